"""How busy a machine is while a run lasts: read every few seconds in a thread, told to whoever logs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

INTERVAL = 10.0
"""Seconds between two samples."""


class Monitor(Protocol):
    """A reader of one kind of load, as MLflow's are: collect, then aggregate, then clear."""

    def collect_metrics(self) -> None:
        """Reads once."""

    def aggregate_metrics(self) -> dict[str, Any]:
        """What was read, by name."""

    def clear_metrics(self) -> None:
        """Forgets it."""


class Sampler:
    """Samples in a daemon thread from ``start`` to ``stop``; the last sample is taken by ``stop``.

    Args:
        monitors: what is read.
        log: takes the numbers of one sample and its step.
        first_step: where the steps go on when a run continues.
        interval: seconds between two samples.
    """

    def __init__(
        self,
        monitors: Sequence[Monitor],
        log: Callable[[Mapping[str, float], int], None],
        first_step: int = 0,
        interval: float = INTERVAL,
    ) -> None:
        self._monitors, self._log, self._step, self._interval = monitors, log, first_step, interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="system metrics")

    def start(self) -> None:
        """Begins to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Takes the last sample and ends."""
        self._ended.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        self._log(values, self._step)
        self._step += 1
