"""Runs the tasks of a conversion on Ray, except those that an earlier attempt finished."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import ray
from tqdm import tqdm

from pipeline.data.prepare.shard_task import RecordReader, ShardTask, finished_summary, write_shard


def run_tasks(tasks: Sequence[ShardTask], read_records: RecordReader) -> list[dict[str, Any]]:
    """Runs the tasks, one CPU each, and shows the progress in images.

    At most two tasks per CPU are submitted at a time, so that a long list does not fill Ray's queue.

    Args:
        tasks: one for every Parquet shard.
        read_records: ``records`` of the source.

    Returns:
        the summaries of the reports (``write_shard``), in the order of ``tasks``.

    Raises:
        ValueError: from ``write_shard``, as it was raised in the task.
    """
    summaries: dict[int, dict[str, Any]] = {}
    unfinished = []
    progress = tqdm(total=sum(task.frames for task in tasks), unit=" images", delay=2, desc="convert")
    for i, task in enumerate(tasks):
        if (summary := finished_summary(task)) is None:
            unfinished.append(i)
        else:
            summaries[i] = summary
            progress.update(task.frames)
    remote = ray.remote(num_cpus=1)(write_shard)
    running: dict[Any, int] = {}
    most = max(4, 2 * int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(unfinished)
    with progress:
        try:
            while len(summaries) < len(tasks):
                for i in islice(waiting, most - len(running)):
                    running[remote.remote(tasks[i], read_records)] = i
                (ready,), _ = ray.wait([*running], num_returns=1)
                i = running.pop(ready)
                summaries[i] = ray.get(ready)
                progress.update(tasks[i].frames)
        except ray.exceptions.RayTaskError as error:
            # The cause is the user's mistake in one line; Ray's own error adds the stack of the worker.
            raise error.cause from error
        finally:
            for ref in running:
                ray.cancel(ref)
    return [summaries[i] for i in range(len(tasks))]
