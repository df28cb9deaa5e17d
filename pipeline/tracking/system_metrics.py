"""The load of a machine while a run lasts: CPU, memory, disk, network and GPUs, sampled in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

INTERVAL = 10.0
"""Seconds between two samples."""


class Monitor(Protocol):
    """A reader of one kind of load with the methods of MLflow's monitors: collect, then aggregate, then clear."""

    def collect_metrics(self) -> None:
        """Reads once."""

    def aggregate_metrics(self) -> dict[str, Any]:
        """The means of what was read, by name."""

    def clear_metrics(self) -> None:
        """Discards what was read."""


class Sampler:
    """Samples in a daemon thread from ``start`` to ``stop``; ``stop`` takes the last sample itself.

    Args:
        monitors: read once a sample.
        log: called with the metrics of one sample and its step, which counts samples.
        first_step: step of the first sample; above 0 when a run is continued.
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
        """Starts the thread; the first sample is taken after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and takes the last sample, so that even a short run has one."""
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


def machine_monitors() -> list[Monitor]:
    """MLflow's own monitors of CPU, memory, disk, network and, where there are any, GPUs."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        found.append(GPUMonitor())
    except RuntimeError:  # no NVIDIA driver here
        pass
    return found
