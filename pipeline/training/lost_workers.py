"""Lines for the terminal about workers that failed and that Ray replaces."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

import ray
from ray.train import UserCallback
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def would_repeat(errors: Iterable[BaseException]) -> ValueError | None:
    """The first of the errors that a restart would meet again, as a ValueError; None where a restart may help.

    A bad shard or NaN losses come back at the same place, and a storage without room stays full; a lost node or
    connection does not.
    """
    for error in errors:
        if isinstance(error, ValueError | FloatingPointError):
            return error if isinstance(error, ValueError) else ValueError(str(error))
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return ValueError(
                f"{error.filename or 'the storage'}: {os.strerror(error.errno or 0)}; when there is room, the same "
                "command continues from the last checkpoint"
            )
    return None


class LostWorkers(UserCallback):
    """Collects a line for every worker that failed.

    Ray calls it in the process of its training controller; the lines reach the process that shows them through a queue.
    """

    def __init__(self, allowed: int) -> None:
        """``allowed``: failures after which Ray restarts the workers, -1: any number; one more ends the training."""
        self._allowed = allowed
        self._failures = 0
        # On this node: the training would end with any other that has the queue, though its workers could be replaced.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._lines = Queue(actor_options={"scheduling_strategy": here, "num_cpus": 0})

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray after one or more workers have failed; their errors by rank.

        Raises:
            ValueError: an error that a restart would meet again. Ray then ends the training at once.
        """
        if (lasting := would_repeat(worker_exceptions.values())) is not None:
            raise lasting
        self._failures += 1
        of = "" if self._allowed < 0 else f" of at most {self._allowed}"
        then = f"failure {self._failures}{of}, the workers restart from the last checkpoint"
        if 0 <= self._allowed < self._failures:
            then = f"no restart after more than {self._allowed} failures"
        for rank, error in sorted(worker_exceptions.items()):
            reason = " ".join(str(error).split()) or type(error).__name__
            self._lines.put(f"worker {rank} failed ({then}): {reason[:300]}")

    def lines(self) -> list[str]:
        """The lines since the last call."""
        found = []
        try:
            while True:
                found.append(self._lines.get_nowait())
        except Empty:
            return found
