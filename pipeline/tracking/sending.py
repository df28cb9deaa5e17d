"""Sends the events of a run's journals to MLflow, and tries again later when the server is lost.

Nothing is sent without being written first: every event goes to the journal (outbox.py), and from there to the server.
Events have their own time, so sending one twice changes nothing. They are redacted before they are written; what is
needed to read a file of the run from object storage is taken from the address of the run's folder.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.infra.files import join, local_copy
from pipeline.infra.mlflow_client import MlflowStore, first_line, is_loss
from pipeline.infra.redaction import redacted, redacted_values
from pipeline.tracking.mlflow_values import valid_name
from pipeline.tracking.outbox import Journal, journal_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

RETRY_AFTER = 30.0
"""Seconds without a new attempt after the server was lost: an attempt blocks the training until it fails."""
# The most that the server takes in one request.
_METRICS_AT_ONCE, _TEXTS_AT_ONCE = 1000, 100
_log = logging.getLogger(__name__)


class Sender:
    """Writes the events of one writer of a run, and sends them while the server answers.

    Args:
        store: the MLflow store.
        run_id: the run.
        folder: folder or object-storage URI of the run.
        writer: name of this process in the run; two processes that write at the same time need two names.
    """

    def __init__(self, store: MlflowStore, run_id: str, folder: str, writer: str) -> None:
        self._store, self._run_id = store, run_id
        self._retry_at = 0.0  # monotonic seconds; 0 while the server answers
        self._run_folder = folder
        self._addresses: dict[str, str] = {}  # redacted addresses of artifacts to their own, of this process
        self.folder = journal_folder(folder)
        self.journal = Journal(self.folder / f"{run_id}.{writer}.jsonl")

    def add(self, event: dict[str, Any]) -> None:
        """Writes an event with the present time, and sends all that is waiting unless the server was lost just now."""
        if "artifact" in event:
            self._addresses[redacted(event["artifact"])] = event["artifact"]
        self.journal.append(redacted_values({**event, "time_ms": int(time.time() * 1000)}))
        if time.monotonic() >= self._retry_at:
            self._send_pending(self.journal)

    def backfill(self) -> bool:
        """Sends what the server lacks of this run, from the journals of all its writers in this folder.

        To be called when no other process writes them: at the start and the end of the run.

        Returns:
            Whether the server has all of it now.
        """
        self._retry_at = 0.0
        journals = sorted(self.folder.glob(f"{self._run_id}.*.jsonl"))
        return all([self._send_pending(Journal(path)) for path in journals])  # a list: try every journal

    def _send_pending(self, journal: Journal) -> bool:
        events, position = journal.pending()
        if not events:
            return True
        try:
            send_events(self._store, self._run_id, [self._with_address(event) for event in events])
        except Exception as error:
            if not is_loss(error):
                raise
            if not self._retry_at:
                _log.warning("MLflow is lost (%s); metrics are kept in %s", first_line(error), journal.path)
            self._retry_at = time.monotonic() + RETRY_AFTER
            return False
        journal.mark_sent(position)
        if self._retry_at:
            _log.warning("MLflow is back: %d events sent", len(events))
            self._retry_at = 0.0
        return True

    def _with_address(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event with the artifact's own address, as far as this process or the run's folder has it."""
        source = event.get("artifact", "")
        if "***" not in source:
            return event
        if source in self._addresses:
            return {**event, "artifact": self._addresses[source]}
        place = redacted(self._run_folder).partition("?")[0].rstrip("/")
        if not source.startswith(place + "/"):
            return event
        name = source.removeprefix(place + "/").partition("?")[0]
        return {**event, "artifact": join(self._run_folder, name)}


def send_events(store: MlflowStore, run_id: str, events: Iterable[dict[str, Any]]) -> None:
    """Sends events to one run: numbers and texts first, then datasets and files, the run's status last.

    Raises:
        ConnectionError: a file's storage does not answer. Errors of the server are MLflow's own, see ``is_loss``.
    """
    client = store.client()
    batch = _Batch()
    for event in events:
        batch.add(event)
    batch.send(client, run_id)


@dataclass
class _Batch:
    """The content of several events, by the request that sends it."""

    metrics: list[Any] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: list[Any] = field(default_factory=list)
    artifacts: list[tuple[str, str | None]] = field(default_factory=list)
    status: tuple[str, int] | None = None

    def add(self, event: dict[str, Any]) -> None:
        """Adds one event of the journal; of parameters, tags and status a later value replaces an earlier one."""
        from mlflow.entities import Metric

        time_ms = event["time_ms"]
        self.metrics += [Metric(k, v, time_ms, event["step"]) for k, v in event.get("metrics", {}).items()]
        self.params |= event.get("params", {})
        self.tags |= event.get("tags", {})
        if "dataset" in event:
            self.datasets.append(_dataset_input(event["dataset"]))
        if "artifact" in event:
            self.artifacts.append((event["artifact"], event["to"]))
        if "status" in event:
            self.status = (event["status"], time_ms)

    def send(self, client: MlflowClient, run_id: str) -> None:
        """Sends everything to a run."""
        from mlflow.entities import Param, RunTag

        if self.params:
            # MLflow refuses a second value of a parameter.
            known = client.get_run(run_id).data.params
            self.tags |= {valid_name(f"das.changed.{k}"): v for k, v in self.params.items() if known.get(k, v) != v}
            self.params = {k: v for k, v in self.params.items() if k not in known}
        for i in range(0, len(self.metrics), _METRICS_AT_ONCE):
            client.log_batch(run_id, metrics=self.metrics[i : i + _METRICS_AT_ONCE])
        params = [Param(k, v) for k, v in self.params.items()]
        for i in range(0, len(params), _TEXTS_AT_ONCE):
            client.log_batch(run_id, params=params[i : i + _TEXTS_AT_ONCE])
        tags = [RunTag(k, v) for k, v in self.tags.items()]
        for i in range(0, len(tags), _TEXTS_AT_ONCE):
            client.log_batch(run_id, tags=tags[i : i + _TEXTS_AT_ONCE])
        if self.datasets:
            client.log_inputs(run_id, datasets=self.datasets)
        for source, target in self.artifacts:
            _send_artifact(client, run_id, source, target)
        if self.status is not None:
            status, time_ms = self.status
            if status == "RUNNING":
                client.update_run(run_id, status="RUNNING")
            else:
                client.set_terminated(run_id, status=status, end_time=time_ms)


def _dataset_input(dataset: dict[str, str]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    # MLflow allows 36 characters of a digest; the source has all of it.
    source = json.dumps({"uri": dataset["source"], "fingerprint": dataset["digest"]})
    found = Dataset(dataset["name"], dataset["digest"][:36], "das", source)
    return DatasetInput(found, [InputTag("mlflow.data.context", dataset["context"])])


def _send_artifact(client: MlflowClient, run_id: str, source: str, target: str | None) -> None:
    """Uploads a file or folder (or URI) to a folder of the run's artifacts; None for the topmost."""
    with tempfile.TemporaryDirectory() as copies:
        try:
            path = local_copy(source, copies)
        except ValueError as error:
            _log.warning("cannot be sent to MLflow any more: %s", redacted(str(error)))  # the file was deleted since
            return
        except OSError as error:  # the storage does not answer: treated as a lost server, so it is tried again
            raise ConnectionError(f"{redacted(source)} cannot be read: {first_line(error)}") from error
        if path.is_dir():
            client.log_artifacts(run_id, str(path), target)
        else:
            client.log_artifact(run_id, str(path), target)
