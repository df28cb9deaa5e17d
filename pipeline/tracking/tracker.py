"""An MLflow run: opening, joining and finishing it, and what is logged in between.

A folder of a job has one MLflow run, however often its driver or its workers are restarted (run_lookup.py).
``Tracker.open`` is for the driver, which sets the run's status and is the only process that speaks to the server;
workers call ``Tracker.join`` with the driver's ``RunHandle`` and write to the run's storage (worker_log.py).

While the server is lost, the job goes on: what is logged is kept on the storage and sent later (delivery.py), at the
latest when the run is opened again. While its ``with`` block lasts, a run sends what its workers have written, and logs
the load of its machine (system_metrics.py). At both ends of the block its description in MLflow is written
(run_description.py).
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pipeline.infra.code_version import code_version
from pipeline.infra.files import exists, is_folder, join
from pipeline.infra.mlflow_client import first_line
from pipeline.infra.redaction import redacted, redacted_values
from pipeline.tracking.delivery import Deliveries, RunDeletedError, Sender
from pipeline.tracking.mlflow_values import NOTE_LENGTH, TAG_LENGTH, cut, metric_values, parameters, valid_name
from pipeline.tracking.run_description import HEADLINE_TAG, SUMMARY_TAG, read_run
from pipeline.tracking.run_handle import RunHandle
from pipeline.tracking.run_lookup import find_or_create_run
from pipeline.tracking.system_metrics import Sampler, machine_monitors
from pipeline.tracking.worker_log import WorkerLog

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_NOTE = "mlflow.note.content"  # the tag that MLflow shows as a run's description
_log = logging.getLogger(__name__)


class Tracker:
    """One MLflow run, as the driver logs into it.

    Every ``log_*`` and ``set_tags`` returns also while the server is lost, whatever it answers; they raise a ValueError
    where the run was deleted, and an OSError where the run's storage cannot be written.

    Args:
        handle: the run.
        resumed: the run existed before.
    """

    def __init__(self, handle: RunHandle, resumed: bool = False) -> None:
        self.handle = handle
        self.resumed = resumed
        self._sender = Sender(handle.store, handle.run_id, handle.folder)
        self._deliveries: Deliveries | None = None
        self._sampler: Sampler | None = None

    # ---- opening and joining ----

    @classmethod
    def open(
        cls,
        tracking_uri: str,
        experiment: str,
        identity: str,
        folder: str | Path,
        parent: RunHandle | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Tracker:
        """The run of this folder, continued if it exists and created if not; for one process at a time.

        Args:
            tracking_uri: absolute, see ``absolute_tracking_uri``.
            experiment: MLflow experiment; with sqlite its files are in mlartifacts/ beside the database.
            identity: the training's name; together with the folder it says which run this is.
            folder: the run's folder or object-storage URI; one that was deleted begins a new run.
            parent: the sweep that this run is a trial of.
            tags: set at the start, beside the code version.

        Raises:
            ValueError: an identity that cannot be searched for, or a server that refuses the user.
            ConnectionError: the server does not answer: a run without tracking is not started.
        """
        here, parent_id = socket.gethostname(), None if parent is None else parent.run_id
        handle = RunHandle(tracking_uri, "", str(folder), here)
        run_id, resumed = find_or_create_run(handle.store, experiment, identity, handle.folder, parent_id)
        tracker = cls(replace(handle, run_id=run_id), resumed)
        tracker._sender.journal.end(None)
        about = {"das.code_version": code_version(), "das.host": here, **(tags or {})}
        tracker._sender.add({"status": "RUNNING", "tags": _tags(about)})
        return tracker

    @staticmethod
    def join(handle: RunHandle) -> WorkerLog:
        """The same run in a worker, on any node; see ``WorkerLog``."""
        return WorkerLog(handle)

    # ---- what is logged ----

    def log_params(self, values: Any) -> None:
        """A configuration as parameters, see ``parameters``; uncut, as it is given, also as the artifact params.json.

        MLflow does not change a parameter's value. A restart with another value leaves the first in place and sets the
        tag ``das.changed.NAME``.

        Args:
            values: a dataclass or dict, nested or flat.
        """
        self._sender.add({"params": parameters(values)})
        plain = asdict(values) if is_dataclass(values) and not isinstance(values, type) else values
        self.log_json("params.json", plain)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Results, at one step; nan and inf are allowed. ValueError names a value that is no number.

        Numbers of another call with the same step are added to them in the history: what a training logs step by step
        goes through ``join``, which leaves out what a restart computes again.
        """
        self._sender.add({"metrics": metric_values(metrics), "step": step})

    def latest_metrics(self) -> dict[str, float]:
        """The last value of every metric that the server has; empty while it does not answer as it should."""
        try:
            run = self.handle.store.client().get_run(self.handle.run_id)
        except Exception:  # `deliver` warns of it
            return {}
        return dict(run.data.metrics)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags of the run, values redacted and cut at TAG_LENGTH; a later value replaces an earlier one."""
        self._sender.add({"tags": _tags(tags)})

    def describe(self, summary: str, headline: Sequence[str] = ()) -> None:
        """The run's result in Markdown, for the first lines of its description in MLflow (run_description.py).

        ``headline`` names the metrics that the description shows first.
        """
        self.set_tags({SUMMARY_TAG: summary} | ({HEADLINE_TAG: ", ".join(headline)} if headline else {}))

    def log_dataset(self, name: str, fingerprint: str, source: str, context: str, splits: str = "") -> None:
        """A dataset that the run reads.

        Args:
            name: for example panoptic.
            fingerprint: of its content, from the manifest; MLflow shows 36 characters, the tag has all.
            source: folder or URI.
            context: train, val or test.
            splits: identity of the split manifest that chose its frames.
        """
        dataset = {"name": name, "digest": fingerprint, "source": source, "context": context}
        self._sender.add({"dataset": dataset})
        self.set_tags({f"das.data.{context}.{name}": fingerprint, f"das.splits.{context}.{name}": splits})

    def log_artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """A file, or a folder with all its content, to ``artifact_path`` in the run's artifacts.

        It is read when it is sent, which may be later, so it must not be moved or deleted.

        Args:
            path: of the file or folder, or its URI on object storage.
            artifact_path: folder in the artifacts; None for the topmost.

        Raises:
            ValueError: there is no such file.
        """
        source = str(path) if "://" in str(path) else str(Path(path).resolve())
        if not exists(source):
            raise ValueError(f"{redacted(source)} does not exist, wanted a file or folder to log")
        self._sender.add({"artifact": source, "to": artifact_path})

    def log_files(self, folder: str, names: Iterable[str]) -> None:
        """Those of the named files and folders that exist in ``folder`` (or URI), folders with all their content."""
        for name in names:
            source = join(folder, name)
            if exists(source):
                self.log_artifact(source, name if is_folder(source) else None)

    def log_json(self, name: str, value: Any) -> None:
        """A value, redacted, as the JSON artifact ``name``, such as scores.json; the file stays in the journal."""
        data = json.dumps(redacted_values(value), indent=2, default=str) + "\n"
        parent = Path(name).parent
        path = self._sender.journal.write_file(name, data.encode())
        self.log_artifact(path, None if parent == Path() else str(parent))

    # ---- finishing ----

    def deliver(self) -> bool:
        """Sends what the driver and the workers have written, now; returns whether the server has all of it.

        In a ``with`` block this happens every few seconds, and after it.
        """
        return self._sender.deliver()

    def finish(self, status: Status = "FINISHED", error: BaseException | None = None) -> bool:
        """Ends the run and sends all that is missing, also what the workers wrote.

        Args:
            status: of the run from now on.
            error: why it failed; its first line becomes the tag ``das.error``.

        Returns:
            Whether the server has all of it. What is missing is sent when the run is opened again.
        """
        if self._sampler is not None:
            self._sampler.stop()
        if self._deliveries is not None:
            self._deliveries.stop()
        self._sampler = self._deliveries = None
        why = {} if error is None else _tags({"das.error": f"{type(error).__name__}: {first_line(error)}"})
        self._sender.add_last({"status": status, "tags": why})
        complete = self.deliver()
        complete = self._write_description() and complete
        if not complete:
            _log.warning(
                "MLflow at %s lacks a part of run %s: it is kept in %s and sent when the run is opened again",
                redacted(self.handle.tracking_uri),
                self.handle.run_id,
                redacted(self._sender.journal.place),
            )
        return complete

    def __enter__(self) -> Tracker:
        self._write_description()
        self._sampler = Sampler(machine_monitors(), self._log_load, self._sender.journal.next_step("system"))
        self._sampler.start()
        self._deliveries = Deliveries(self._sender)
        self._deliveries.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed: Status = "FAILED" if isinstance(error, Exception) else "KILLED"
        self.finish(failed if error is not None else "FINISHED", error)

    def _log_load(self, metrics: Mapping[str, float], step: int) -> None:
        """The load of the driver's machine."""
        values = metric_values({f"system/{name}": value for name, value in metrics.items()})
        with suppress(OSError, RunDeletedError):  # the job itself meets the same error and says it
            self._sender.add({"metrics": values, "step": step, "once": True})

    def _write_description(self) -> bool:
        """Writes the run's description from what the server has of the run; False where that fails."""
        try:
            client = self.handle.store.client()
            text = read_run(client, self.handle.run_id).text()
            client.set_tag(self.handle.run_id, _NOTE, cut(text, NOTE_LENGTH))
        except Exception:  # of the server, whatever it is: it ends no job, and `finish` says it
            return False
        return True


def _tags(values: Mapping[str, object]) -> dict[str, str]:
    return {valid_name(name): cut(redacted(str(value)), TAG_LENGTH) for name, value in values.items()}
