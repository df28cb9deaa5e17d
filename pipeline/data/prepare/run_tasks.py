"""Runs the tasks of a conversion on Ray, except those that an earlier attempt finished.

The driver makes no file-system call for a single shard: it lists the reports once, and tasks read and write them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import ray
from tqdm import tqdm

from pipeline.data.prepare.frames import RecordReader
from pipeline.data.prepare.plan import Tasks
from pipeline.data.prepare.shard_task import (
    REPORTS,
    SUMMARY_ENDING,
    ShardTask,
    finished_summary,
    write_shard,
)
from pipeline.infra.files import join, names

# Ray starts a task again this many times: after a lost worker, and after an ``OSError``, which may pass.
_RETRIES = 3
# Reports of an earlier attempt that one task reads.
_REPORTS_A_TASK = 64
# Different faults that the message names: an error that names its file differs from shard to shard.
_FAULTS_SAID = 5

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_tasks(tasks: Tasks, read_records: RecordReader) -> list[dict[str, Any]]:
    """Runs the tasks, one CPU each, and shows the progress in images.

    At most two tasks per CPU are submitted at a time, so that a long list does not fill Ray's queue.

    Args:
        tasks: one for every Parquet shard.
        read_records: ``records`` of the source.

    Returns:
        the summaries of the reports (``write_shard``), in the order of ``tasks``.

    Raises:
        ValueError: some tasks failed; names them and why, when all others have ended.
    """
    summaries = _finished_before(tasks)
    progress = tqdm(total=tasks.frames, unit=" images", delay=2, desc="convert")
    progress.update(sum(tasks[i].frames for i in summaries))
    remote = _remote(write_shard)
    running: dict[Any, int] = {}
    failed: dict[str, list[str]] = {}  # names of the tasks by fault
    waiting = (i for i in range(len(tasks)) if i not in summaries)
    with progress:
        try:
            while True:
                for i in islice(waiting, _at_once() - len(running)):
                    running[remote.remote(tasks.complete(i), read_records)] = i
                if not running:
                    break
                (ready,), _ = ray.wait([*running], num_returns=1)
                task = tasks[i := running.pop(ready)]
                try:
                    summaries[i] = ray.get(ready)
                except ray.exceptions.RayError as error:
                    failed.setdefault(_fault(error), []).append(task.name)
                progress.update(task.frames)
        finally:
            for ref in running:
                ray.cancel(ref)
    if failed:
        raise ValueError(_failure(failed, len(tasks)))
    return [summaries[i] for i in range(len(tasks))]


def in_tasks(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The function's results in the order of the items, computed in Ray tasks; a few are in memory together.

    Raises:
        Exception: what the function raises.
    """
    remote = _remote(function)
    running: deque[Any] = deque()
    try:
        for item in items:
            running.append(remote.remote(item))
            if len(running) == _at_once():
                yield ray.get(running.popleft())
        while running:
            yield ray.get(running.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    finally:
        for ref in running:
            ray.cancel(ref)


def _remote(function: Callable[..., Any]) -> Any:
    return ray.remote(num_cpus=1, max_retries=_RETRIES, retry_exceptions=[OSError])(function)


def _at_once() -> int:
    return max(4, 2 * int(ray.cluster_resources().get("CPU", 1)))


def _finished_before(tasks: Tasks) -> dict[int, dict[str, Any]]:
    """Summaries of the tasks that earlier attempts finished, by number."""
    if not len(tasks):
        return {}
    reports = set(names(join(tasks[0].out, *REPORTS)))
    reported = [i for i in range(len(tasks)) if reports and tasks[i].report + SUMMARY_ENDING in reports]
    groups = [reported[at : at + _REPORTS_A_TASK] for at in range(0, len(reported), _REPORTS_A_TASK)]
    found = in_tasks(_finished_summaries, ([tasks[i] for i in group] for group in groups))
    every = [summary for summaries in found for summary in summaries]
    return {i: summary for i, summary in zip(reported, every, strict=True) if summary is not None}


def _finished_summaries(tasks: Sequence[ShardTask]) -> list[dict[str, Any] | None]:
    return [finished_summary(task) for task in tasks]


def _fault(error: Exception) -> str:
    """A task's error in one line, without the worker's stack."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    lines = str(cause).strip().splitlines() or [""]
    return lines[0] if isinstance(cause, ValueError) else f"{type(cause).__name__}: {lines[0]}"


def _failure(failed: dict[str, list[str]], tasks: int) -> str:
    """One line that names the tasks that failed, by fault."""
    parts = []
    for fault, shards in [*failed.items()][:_FAULTS_SAID]:
        more = f" and {len(shards) - 3} more" if len(shards) > 3 else ""
        parts.append(f"{fault} ({', '.join(sorted(shards)[:3])}{more})")
    if len(failed) > _FAULTS_SAID:
        parts.append(f"and {len(failed) - _FAULTS_SAID} other faults")
    number = sum(map(len, failed.values()))
    return f"{number} of {tasks} shards were not made, the others are kept for the next attempt: {'; '.join(parts)}"
