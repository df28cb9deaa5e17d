"""The events of a run's journal as requests to MLflow: few, in an order in which each may be repeated.

Events are redacted when they are written. Fields of an event, beside its "time_ms": "metrics" with their "step", and
"once" where a step counts once; "params"; "tags"; "dataset"; "artifact", a file's address, with "to", its folder;
"status".
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.infra.files import local_copy
from pipeline.infra.mlflow_client import MlflowStore, first_line
from pipeline.infra.redaction import redacted
from pipeline.tracking.mlflow_values import valid_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

# The most that the server takes in one request.
_METRICS_AT_ONCE, _TEXTS_AT_ONCE = 1000, 100
_log = logging.getLogger(__name__)


def send_events(store: MlflowStore, run_id: str, events: Iterable[dict[str, Any]]) -> None:
    """Sends events to one run: numbers and texts first, then datasets and files, the run's status last.

    Raises:
        ConnectionError: a file's storage does not answer. Errors of the server are MLflow's own.
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
