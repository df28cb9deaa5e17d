"""What a worker logs into the driver's MLflow run."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from pipeline.tracking.mlflow_values import metric_values
from pipeline.tracking.outbox import BackgroundWriter, Journal
from pipeline.tracking.run_handle import RunHandle
from pipeline.tracking.system_metrics import Sampler, machine_monitors


class WorkerLog:
    """The driver's run in a worker, which contacts no server: it writes to the run's storage, and the driver sends.

    On another machine than the driver's it also logs that machine's load, until the process ends.

    Args:
        handle: of the driver's tracker.

    Raises:
        ValueError: the run was deleted.
    """

    def __init__(self, handle: RunHandle) -> None:
        journal = Journal(handle.folder, handle.run_id)
        journal.require_open()
        self._writer = BackgroundWriter(journal)
        self._sampler: Sampler | None = None
        here = socket.gethostname()
        if handle.host not in ("", here):
            group = f"system/{here}"

            def log(metrics: Mapping[str, float], step: int) -> None:
                self.log_metrics({f"{group}/{name}": value for name, value in metrics.items()}, step)

            self._sampler = Sampler(machine_monitors(), log, journal.next_step(group))
            self._sampler.start()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """The metrics of one step, once: later numbers of this step or an earlier one are left out of the history.

        A training that is restarted from a checkpoint computes some steps again, with the same numbers. Returns at
        once; see ``flush``. nan and inf are allowed. ValueError names a value that is no number.
        """
        self._writer.add({"metrics": metric_values(metrics), "step": step, "once": True})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run; a later value replaces an earlier one. Returns at once; see ``flush``."""
        self._writer.add({"tags": dict(tags)})

    def flush(self) -> None:
        """Waits until all that was logged is on the storage. To be called before every checkpoint is reported.

        Without it a checkpoint may survive a crash that the numbers before it do not, and nothing computes them again.

        Raises:
            OSError: the storage cannot be written.
            ValueError: the run was deleted.
        """
        self._writer.flush()
        self._writer.journal.require_open()
