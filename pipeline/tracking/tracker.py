"""An MLflow run: opening, joining and finishing it, and what is logged in between.

A training has one identity, its name, and one MLflow run, however often its driver or its workers are restarted: the
identity is a tag of the run, by which the run is found again. ``Tracker.open`` is for the driver, which sets the run's
status; workers call ``Tracker.join`` with the driver's ``RunHandle``.

While the server is lost, training goes on: what is logged is kept in a file and sent later (sending.py), at the latest
when the run is opened again. While its ``with`` block lasts, a run also logs the load of its machine
(system_metrics.py). At both ends of the block its description in MLflow is written (run_description.py).
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pipeline.infra.code_version import code_version
from pipeline.infra.files import exists, is_folder, join
from pipeline.infra.mlflow_client import MlflowStore, first_line, is_loss
from pipeline.infra.redaction import redacted, redacted_values
from pipeline.tracking.mlflow_values import NOTE_LENGTH, TAG_LENGTH, cut, parameters, valid_name
from pipeline.tracking.run_description import HEADLINE_TAG, SUMMARY_TAG, read_run
from pipeline.tracking.run_lookup import find_or_create_run
from pipeline.tracking.sending import Sender
from pipeline.tracking.system_metrics import Sampler, machine_monitors

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_NOTE = "mlflow.note.content"  # the tag that MLflow shows as a run's description
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunHandle:
    """The data with which a worker joins the driver's run; plain strings, so any config can contain it."""

    tracking_uri: str
    """Absolute address of the MLflow store."""
    run_id: str
    """The MLflow run."""
    folder: str
    """Folder or object-storage URI of the run; the journals are in its ``tracking/``."""
    host: str = ""
    """Machine of the driver, whose load the driver logs."""

    @property
    def store(self) -> MlflowStore:
        """The MLflow store."""
        return MlflowStore(self.tracking_uri)


class Tracker:
    """One MLflow run, as one process logs into it.

    Every ``log_*`` and ``set_tags`` returns also while the server is lost. A request that the server refuses for its
    content (the run was deleted, for example) is raised.

    Args:
        handle: the run.
        writer: name of this process in the run, see ``join``.
        resumed: the run existed before.
    """

    def __init__(self, handle: RunHandle, writer: str, resumed: bool = False) -> None:
        self.handle = handle
        self.resumed = resumed
        self._sender = Sender(handle.store, handle.run_id, handle.folder, writer)
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
        """The run of this identity, continued if it exists and created if not; for one process at a time.

        Args:
            tracking_uri: absolute, see ``absolute_tracking_uri``.
            experiment: MLflow experiment; with sqlite its files are in mlartifacts/ beside the database.
            identity: the training's stable name, unique within the experiment.
            folder: the run's folder or object-storage URI.
            parent: the sweep that this run is a trial of.
            tags: set at the start, beside the code version.

        Raises:
            ValueError: an identity that cannot be searched for.
            ConnectionError: the server does not answer: a run without tracking is not started.
        """
        store = MlflowStore(tracking_uri)
        run_id, resumed = find_or_create_run(store, experiment, identity, None if parent is None else parent.run_id)
        tracker = cls(RunHandle(tracking_uri, run_id, str(folder), socket.gethostname()), "driver", resumed)
        tracker._sender.add({"status": "RUNNING"})
        tracker.set_tags({"das.code_version": code_version(), "das.host": tracker.handle.host, **(tags or {})})
        tracker._sender.backfill()
        return tracker

    @classmethod
    def join(cls, handle: RunHandle, writer: str = "worker") -> Tracker:
        """The same run from another process, which logs but does not set the status. Contacts no server.

        On another machine than the driver's it also logs that machine's load, until the process ends.

        Args:
            handle: of the driver's tracker.
            writer: name of this process's journal; two processes that write at the same time need two names.
        """
        tracker = cls(handle, writer)
        here = socket.gethostname()
        if handle.host not in ("", here):
            tracker._start_sampler(f"{writer}-system", f"system/{here}/")
        return tracker

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
        """The metrics of one step; nan and inf are allowed. ValueError names a value that is no number."""
        values = {}
        for name, value in metrics.items():
            try:
                values[valid_name(name)] = float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"metric {name} = {value!r}, wanted a number") from error
        self._sender.add({"metrics": values, "step": step})

    def latest_metrics(self) -> dict[str, float]:
        """The last value of every metric that the server has; empty while it is lost."""
        try:
            run = self.handle.store.client().get_run(self.handle.run_id)
        except Exception as error:
            if not is_loss(error):
                raise
            return {}
        return dict(run.data.metrics)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags of the run, values redacted and cut at TAG_LENGTH; a later value replaces an earlier one."""
        self._sender.add({"tags": {valid_name(k): cut(redacted(str(v)), TAG_LENGTH) for k, v in tags.items()}})

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
        """A value, redacted, as the JSON artifact ``name``, such as scores.json; the file stays beside the journal."""
        path = self._sender.folder / self.handle.run_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(redacted_values(value), indent=2, default=str) + "\n")
        parent = Path(name).parent
        self.log_artifact(path, None if parent == Path() else str(parent))

    # ---- finishing ----

    def finish(self, status: Status = "FINISHED", error: BaseException | None = None) -> bool:
        """Ends the run and sends all that is missing, also from the workers' journals.

        Args:
            status: of the run from now on.
            error: why it failed; its first line becomes the tag ``das.error``.

        Returns:
            Whether the server has all of it. What is missing is sent when the run is opened again.
        """
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None
        if error is not None:
            self.set_tags({"das.error": f"{type(error).__name__}: {first_line(error)}"})
        self._sender.add({"status": status})
        complete = self._sender.backfill() and self._write_description()
        if not complete:
            _log.warning(
                "MLflow at %s is lost: the end of run %s is kept in %s and sent when the run is opened again",
                redacted(self.handle.tracking_uri),
                self.handle.run_id,
                self._sender.folder,
            )
        return complete

    def __enter__(self) -> Tracker:
        self._write_description()
        self._start_sampler("system", "system/")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed: Status = "FAILED" if isinstance(error, Exception) else "KILLED"
        self.finish(failed if error is not None else "FINISHED", error)

    def _start_sampler(self, writer: str, prefix: str) -> None:
        """Logs this machine's load from a thread, as a writer with its own journal: a journal has one writer."""
        tracker = Tracker(self.handle, writer)

        def log(metrics: Mapping[str, float], step: int) -> None:
            tracker.log_metrics({prefix + name: value for name, value in metrics.items()}, step)

        self._sampler = Sampler(machine_monitors(), log, first_step=tracker._sender.journal.length())
        self._sampler.start()

    def _write_description(self) -> bool:
        """Writes the run's description from what the server has of the run; False while it is lost."""
        client = self.handle.store.client()
        try:
            text = read_run(client, self.handle.run_id).text()
            client.set_tag(self.handle.run_id, _NOTE, cut(text, NOTE_LENGTH))
        except Exception as error:
            if not is_loss(error):
                raise
            return False
        return True
