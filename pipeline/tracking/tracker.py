"""Everything a run tells MLflow; the only code that speaks to MLflow runs (``registry`` to its models).

A training has one identity, its name, and one MLflow run, however often its driver or its workers start
again: the run carries the identity as a tag and is found by it. ``Tracker.open`` is for the driver, which
owns the run's status; workers ``join`` with the driver's ``RunHandle``.

Nothing is sent without being written first: every event goes to a JSON-lines journal beside the run, and
from there to the server. While the server is lost, training goes on and the journal grows; what is missing
is sent once the server answers, at the latest when the run is opened again. Events carry their own time, so
sending one twice changes nothing.

While its block lasts, a run also tells how busy its machine is (``sampler``), and at both ends its page gets a
description in words (``story``).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from pipeline.infra.code_version import code_version
from pipeline.infra.files import exists, is_folder, join, local_copy
from pipeline.infra.mlflow_client import first_line, is_local_store, is_loss, mlflow_client, talking_to
from pipeline.tracking.outbox import Journal, journal_folder
from pipeline.tracking.run_description import HEADLINE_TAG, Input, Story, TrialSummary
from pipeline.tracking.system_metrics import Monitor, Sampler

if TYPE_CHECKING:
    from mlflow import MlflowClient

IDENTITY_TAG, SUMMARY_TAG = "das.identity", "das.summary"
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

PARAM_LENGTH = 500
"""Characters of a parameter's value; longer ones end in their hash (MLflow allows 6000, its tables show
500)."""
TAG_LENGTH = 5000
"""Characters of a tag's value, likewise (MLflow allows 8000)."""

NOTE_LENGTH = 7500
"""Characters of a description, likewise."""

_NOTE = "mlflow.note.content"  # what MLflow shows as the run's description
_RETRY_AFTER = 30.0  # seconds without a new attempt after the server was lost; attempts block the training
_log = logging.getLogger(__name__)


# ---- values that MLflow takes ----


def flatten(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings and dataclasses to ``a.b.c`` -> text; lists become JSON, long values end in their hash."""
    values = _plain(values)
    if isinstance(values, Mapping):
        return {k: v for name, value in values.items() for k, v in flatten(value, f"{prefix}{name}.").items()}
    text = json.dumps(values, default=str) if isinstance(values, list | tuple) else str(values)
    return {_name(prefix[:-1]): _shortened(text, PARAM_LENGTH)}


def _plain(values: Any) -> Any:
    return asdict(values) if is_dataclass(values) and not isinstance(values, type) else values


def _shortened(text: str, length: int) -> str:
    """Text of at most ``length`` characters; two different long texts stay different."""
    if len(text) <= length:
        return text
    ending = f"... [{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}]"
    return text[: length - len(ending)] + ending


def _name(name: str) -> str:
    """A metric's or parameter's name in MLflow's characters and length: PCK@150 becomes PCK_150."""
    return re.sub(r"[^\w\-. :/]", "_", _shortened(name, 240), flags=re.ASCII)


# ---- the run ----


@dataclass(frozen=True)
class RunHandle:
    """What a worker needs to write into the driver's run; plain strings, so it travels in any config."""

    tracking_uri: str
    """Absolute address of the MLflow store."""
    run_id: str
    """The MLflow run."""
    folder: str
    """Folder or object-storage URI of the run; the journal lies in its ``tracking/``."""
    host: str = ""
    """Machine of the driver, whose load the driver reports."""


class Tracker:
    """One MLflow run, seen from one process.

    Every ``log_*`` and ``set_tags`` returns also while the server is lost. What the server refuses for its
    content (a deleted run, say) is raised.
    """

    def __init__(self, handle: RunHandle, writer: str, resumed: bool = False) -> None:
        self.handle = handle
        self.resumed = resumed
        self._journal = Journal(journal_folder(handle.folder) / f"{handle.run_id}.{writer}.jsonl")
        self._retry_at = 0.0  # monotonic seconds; 0 while the server answers
        self._sampler: Sampler | None = None

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
        """The run of this identity: continued where it exists, else created; for the one process that owns it.

        Args:
            tracking_uri: absolute, see ``absolute_tracking_uri``.
            experiment: MLflow experiment; with sqlite its files lie in mlartifacts/ beside the database.
            identity: the training's stable name, unique within the experiment.
            folder: the run's folder or object-storage URI.
            parent: the sweep that this run is a trial of.
            tags: set at the start, beside the code version.

        Raises:
            ValueError: an identity that cannot be searched for.
            ConnectionError: the server does not answer: a run without tracking is not started.
        """
        if not re.fullmatch(r"[\w\-./: ]{1,200}", identity, flags=re.ASCII):
            raise ValueError(f"name = {identity!r}, wanted up to 200 letters, digits and _ - . / : or spaces")
        with talking_to(tracking_uri):
            client = mlflow_client(tracking_uri)
            experiment_id = _experiment(client, tracking_uri, experiment)
            same = f"tags.`{IDENTITY_TAG}` = '{identity}'"
            found = client.search_runs([experiment_id], same, order_by=["attribute.start_time ASC"])
            if found:
                run_id = found[0].info.run_id
            else:
                first = {IDENTITY_TAG: identity} | ({"mlflow.parentRunId": parent.run_id} if parent else {})
                run_id = client.create_run(experiment_id, tags=first, run_name=identity).info.run_id
        tracker = cls(RunHandle(tracking_uri, run_id, str(folder), socket.gethostname()), "driver", resumed=bool(found))
        tracker._event({"status": "RUNNING"})
        tracker.set_tags({"das.code_version": code_version(), "das.host": tracker.handle.host, **(tags or {})})
        tracker.backfill()
        return tracker

    @classmethod
    def join(cls, handle: RunHandle, writer: str = "worker") -> Tracker:
        """The same run from another process, which logs but does not own the status. Contacts no server.

        ``writer`` tells the processes' journals apart: two that write at the same time need two names. A process on
        another machine than the driver's also reports that machine's load, for as long as it lives.
        """
        tracker = cls(handle, writer)
        here = socket.gethostname()
        if handle.host not in ("", here):
            tracker._start_sampler(f"{writer}-system", f"system/{here}/")
        return tracker

    def log_params(self, values: Any) -> None:
        """Configuration: nested mappings or a dataclass, flattened; the whole of it also as params.json.

        MLflow keeps the first value of a parameter for good. A restart that changes one leaves the first in
        place and sets the tag ``das.changed.NAME``.
        """
        self._event({"params": flatten(values)})
        self.log_json("params.json", _plain(values))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers of one step. ValueError names one that is no number; nan and inf are numbers."""
        values = {}
        for name, value in metrics.items():
            try:
                values[_name(name)] = float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"metric {name} = {value!r}, wanted a number") from error
        self._event({"metrics": values, "step": step})

    def latest_metrics(self) -> dict[str, float]:
        """The newest value of every metric that the server has; empty while it is lost."""
        try:
            run = mlflow_client(self.handle.tracking_uri).get_run(self.handle.run_id)
        except Exception as error:
            if not is_loss(error):
                raise
            return {}
        return dict(run.data.metrics)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Text about the run, cut at TAG_LENGTH; a later value replaces an earlier one."""
        self._event({"tags": {_name(k): _shortened(str(v), TAG_LENGTH) for k, v in tags.items()}})

    def describe(self, summary: str, headline: Sequence[str] = ()) -> None:
        """The run's result in Markdown, for its description in MLflow; ``headline`` names the metrics to show first."""
        self.set_tags({SUMMARY_TAG: summary} | ({HEADLINE_TAG: ", ".join(headline)} if headline else {}))

    def log_dataset(self, name: str, fingerprint: str, source: str, context: str, splits: str = "") -> None:
        """A dataset that the run reads.

        Args:
            name: for example panoptic.
            fingerprint: of its content, from the manifest; MLflow shows 36 characters, the tag holds all.
            source: folder or URI.
            context: train, val or test.
            splits: identity of the split manifest that chose its frames.
        """
        dataset = {"name": name, "digest": fingerprint, "source": source, "context": context}
        self._event({"dataset": dataset})
        self.set_tags({f"das.data.{context}.{name}": fingerprint, f"das.splits.{context}.{name}": splits})

    def log_artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """A file, or a folder with all its content, to ``artifact_path`` in the run's artifacts.

        It is read when it is sent, which may be later: it must stay where it is.

        Args:
            path: of the file or folder, or its URI on object storage.
            artifact_path: folder in the artifacts; None for the topmost.

        Raises:
            ValueError: there is no such file.
        """
        where = str(path) if "://" in str(path) else str(Path(path).resolve())
        if not exists(where):
            raise ValueError(f"{where} does not exist, wanted a file or folder to log")
        self._event({"artifact": where, "to": artifact_path})

    def log_files(self, folder: str, names: Iterable[str]) -> None:
        """Those of the named files, and folders with all their content, that ``folder`` (or URI) holds."""
        for name in names:
            where = join(folder, name)
            if exists(where):
                self.log_artifact(where, name if is_folder(where) else None)

    def log_json(self, name: str, value: Any) -> None:
        """A value as the JSON artifact ``name`` (for example scores.json), kept beside the journal as well."""
        path = self._journal.path.parent / self.handle.run_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2, default=str) + "\n")
        parent = Path(name).parent
        self.log_artifact(path, None if parent == Path() else str(parent))

    def finish(self, status: Status = "FINISHED", error: BaseException | None = None) -> bool:
        """Ends the run and sends all that is missing, workers' journals included; True when it all arrived."""
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None
        if error is not None:
            self.set_tags({"das.error": f"{type(error).__name__}: {first_line(error)}"})
        self._event({"status": status})
        complete = self.backfill() and self._tell()
        if not complete:
            _log.warning(
                "MLflow at %s is lost: the end of run %s waits in %s, is sent when the run is opened again",
                self.handle.tracking_uri,
                self.handle.run_id,
                self._journal.path.parent,
            )
        return complete

    def backfill(self) -> bool:
        """Sends what is missing of this run, from the journals of all its writers in this folder.

        For moments without other writers: at the start and the end. True when the server has it all.
        """
        self._retry_at = 0.0
        journals = sorted(self._journal.path.parent.glob(f"{self.handle.run_id}.*.jsonl"))
        return all([self._flush(Journal(path)) for path in journals])

    def __enter__(self) -> Tracker:
        self._tell()
        self._start_sampler("system", "system/")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed: Status = "FAILED" if isinstance(error, Exception) else "KILLED"
        self.finish(failed if error is not None else "FINISHED", error)

    def _start_sampler(self, writer: str, prefix: str) -> None:
        """Reports this machine's load from a thread, through a journal of its own."""
        aside = Tracker(self.handle, writer)

        def log(metrics: Mapping[str, float], step: int) -> None:
            aside.log_metrics({prefix + name: value for name, value in metrics.items()}, step)

        self._sampler = Sampler(_monitors(), log, first_step=aside._journal.length())
        self._sampler.start()

    def _tell(self) -> bool:
        """Writes the run's description from what the server knows of the run; False while it is lost."""
        client = mlflow_client(self.handle.tracking_uri)
        try:
            text = _story(client, self.handle.run_id).text()
            client.set_tag(self.handle.run_id, _NOTE, _shortened(text, NOTE_LENGTH))
        except Exception as error:
            if not is_loss(error):
                raise
            return False
        return True

    def _event(self, event: dict[str, Any]) -> None:
        self._journal.append({**event, "time_ms": int(time.time() * 1000)})
        if time.monotonic() >= self._retry_at:
            self._flush(self._journal)

    def _flush(self, journal: Journal) -> bool:
        events, position = journal.pending()
        if not events:
            return True
        try:
            _send(self.handle, events)
        except Exception as error:
            if not is_loss(error):
                raise
            if not self._retry_at:
                _log.warning("MLflow is lost (%s); metrics are kept in %s", first_line(error), journal.path)
            self._retry_at = time.monotonic() + _RETRY_AFTER
            return False
        journal.mark_sent(position)
        if self._retry_at:
            _log.warning("MLflow is back: %d events sent", len(events))
            self._retry_at = 0.0
        return True


def _experiment(client: MlflowClient, tracking_uri: str, name: str) -> str:
    """Id of the experiment, created if needed; its artifacts lie beside an sqlite store, wherever we are."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None
        if is_local_store(tracking_uri):
            database = Path(tracking_uri.removeprefix("sqlite:///"))
            location = (database.parent / "mlartifacts" / re.sub(r"\W+", "_", name)).as_uri()
        try:
            return cast(str, client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was faster
    if found is None or found.lifecycle_stage != "active":
        raise ValueError(f"MLflow experiment {name!r} was deleted; restore it or choose another name")
    return cast(str, found.experiment_id)


def _send(handle: RunHandle, events: Iterable[dict[str, Any]]) -> None:
    """Brings events to the server: numbers and texts first, the run's status last."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    client = mlflow_client(handle.tracking_uri)
    metrics: list[Any] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    datasets, artifacts, status = [], [], None
    for event in events:
        time_ms = event["time_ms"]
        metrics += [Metric(k, v, time_ms, event["step"]) for k, v in event.get("metrics", {}).items()]
        params |= event.get("params", {})
        tags |= event.get("tags", {})
        if "dataset" in event:
            found = event["dataset"]
            source = json.dumps({"uri": found["source"], "fingerprint": found["digest"]})
            dataset = Dataset(found["name"], found["digest"][:36], "das", source)
            datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", found["context"])]))
        if "artifact" in event:
            artifacts.append((event["artifact"], event["to"]))
        if "status" in event:
            status = (event["status"], time_ms)
    if params:
        known = client.get_run(handle.run_id).data.params
        tags |= {_name(f"das.changed.{k}"): v for k, v in params.items() if known.get(k, v) != v}
        params = {k: v for k, v in params.items() if k not in known}
    # The server takes 1000 metrics, or 100 parameters or tags, at a time.
    for i in range(0, len(metrics), 1000):
        client.log_batch(handle.run_id, metrics=metrics[i : i + 1000])
    texts = [Param(k, v) for k, v in params.items()]
    for i in range(0, len(texts), 100):
        client.log_batch(handle.run_id, params=texts[i : i + 100])
    texts = [RunTag(k, v) for k, v in tags.items()]
    for i in range(0, len(texts), 100):
        client.log_batch(handle.run_id, tags=texts[i : i + 100])
    if datasets:
        client.log_inputs(handle.run_id, datasets=datasets)
    for where, to in artifacts:
        with tempfile.TemporaryDirectory() as copies:
            try:
                path = local_copy(where, copies)
            except ValueError as error:
                _log.warning("cannot be sent to MLflow any more: %s", error)
                continue
            except OSError as error:  # the storage does not answer: as good as a lost server, and later it may
                raise ConnectionError(f"{where} cannot be read: {first_line(error)}") from error
            if path.is_dir():
                client.log_artifacts(handle.run_id, str(path), to)
            else:
                client.log_artifact(handle.run_id, str(path), to)
    if status is not None:
        if status[0] == "RUNNING":
            client.update_run(handle.run_id, status="RUNNING")
        else:
            client.set_terminated(handle.run_id, status=status[0], end_time=status[1])


def _monitors() -> list[Monitor]:
    """MLflow's own readers of CPU, memory, disk, network and, where there are any, GPUs."""
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


def _story(client: MlflowClient, run_id: str) -> Story:
    """What the server knows of a run, for its description."""
    run = client.get_run(run_id)
    identity = run.data.tags.get(IDENTITY_TAG, "")
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000)
    parent = run.data.tags.get("mlflow.parentRunId")
    return Story(
        name=identity or str(run.info.run_name),
        status=run.info.status,
        began_ms=run.info.start_time,
        ended_ms=run.info.end_time,
        tags=run.data.tags,
        params=run.data.params,
        metrics=run.data.metrics,
        inputs=tuple(_input(found) for found in (run.inputs.dataset_inputs if run.inputs else ())),
        files=tuple(file.path + ("/" if file.is_dir else "") for file in client.list_artifacts(run_id)),
        trials=tuple(TrialSummary(c.info.run_name, c.info.status, c.data.metrics) for c in children),
        parent=None if parent is None else client.get_run(parent).info.run_name,
        run_id=run_id,
    )


def _input(found: Any) -> Input:
    source = json.loads(found.dataset.source)
    context = next((tag.value for tag in found.tags if tag.key == "mlflow.data.context"), "")
    return Input(found.dataset.name, context, source.get("fingerprint", found.dataset.digest), source.get("uri", ""))
