"""What the journal holds reaches MLflow: limits of a request, retries, sending twice; on a real sqlite store."""

import logging
import shutil
import time

import pytest

from pipeline.infra.mlflow_client import MlflowStore
from pipeline.tracking import delivery, sending
from pipeline.tracking.tracker import Tracker
from tests.pipeline.tracking.tracked_runs import history, run_of, start


def test_many_parameters_and_metrics_pass_the_limits_of_one_request(store, tmp_path):
    tracker = start(store, "many", tmp_path)
    tracker.log_params({f"p{i}": i for i in range(250)})
    tracker.log_metrics({f"m{i}": i for i in range(2100)}, step=0)
    data = run_of(tracker).data
    assert len(data.params) == 250 and len(data.metrics) == 2100


def test_a_restart_with_another_parameter_keeps_the_first_and_sets_a_tag(store, tmp_path):
    start(store, "changed", tmp_path).log_params({"epochs": 10, "seed": 0})
    second = start(store, "changed", tmp_path)
    second.log_params({"epochs": 20, "seed": 0, "new": 1})
    data = run_of(second).data
    assert data.params == {"epochs": "10", "seed": "0", "new": "1"}
    assert data.tags["das.changed.epochs"] == "20" and "das.changed.seed" not in data.tags


def test_an_artifact_whose_storage_does_not_answer_is_sent_later(store, tmp_path, monkeypatch, caplog):
    (tmp_path / "picture.txt").write_text("1")
    tracker, original = start(store, "storage away", tmp_path / "run"), sending.local_copy

    def away(uri, folder):
        raise OSError("When reading information for key 'picture.txt': curlCode: 7, Couldn't connect to server")

    monkeypatch.setattr(sending, "local_copy", away)
    with caplog.at_level(logging.WARNING):
        tracker.log_artifact(tmp_path / "picture.txt")
    assert "picture.txt cannot be read: When reading" in caplog.text
    monkeypatch.setattr(sending, "local_copy", original)
    assert tracker.finish() is True
    assert [f.path for f in MlflowStore(store).client().list_artifacts(tracker.handle.run_id)] == ["picture.txt"]


def test_a_lost_server_is_tried_again_after_a_while(store, tmp_path, monkeypatch):
    tracker = start(store, "tried again", tmp_path)
    attempts, original = [], delivery.send_events

    def lost(store, run_id, events):
        attempts.append(len(events))
        raise ConnectionError("refused")

    monkeypatch.setattr(delivery, "send_events", lost)
    for step in range(3):
        tracker.log_metrics({"loss": step}, step=step)
    assert attempts == [1]  # not one attempt per step: each would block the training
    monkeypatch.setattr(delivery, "RETRY_AFTER", 0.0)
    tracker._sender._retry_at = time.monotonic()
    tracker.log_metrics({"loss": 3}, step=3)
    assert attempts == [1, 4]
    monkeypatch.setattr(delivery, "send_events", original)
    tracker.log_metrics({"loss": 4}, step=4)
    assert history(tracker, "loss") == [(step, step) for step in range(5)]


def test_sending_twice_changes_nothing(store, tmp_path):
    tracker = start(store, "twice", tmp_path)
    tracker.log_metrics({"loss": 1.0}, step=1)
    journal = tmp_path / "tracking" / tracker.handle.run_id
    shutil.copytree(journal / "sent", journal / "waiting", dirs_exist_ok=True)  # killed between sending and noting it
    again = start(store, "twice", tmp_path)
    assert history(again, "loss") == [(1, 1.0)]


def test_a_deleted_run_ends_the_driver_and_its_workers_and_is_a_new_one_next_time(store, tmp_path):
    tracker = start(store, "deleted", tmp_path)
    worker = Tracker.join(tracker.handle)
    MlflowStore(store).client().delete_run(tracker.handle.run_id)
    with pytest.raises(ValueError, match=f"run {tracker.handle.run_id} of MLflow at sqlite.* was deleted"):
        tracker.log_metrics({"loss": 1.0}, step=1)
    worker.log_metrics({"loss": 2.0}, step=2)
    with pytest.raises(ValueError, match="was deleted while it was written"):
        worker.flush()
    with pytest.raises(ValueError, match="was deleted while it was written"):
        Tracker.join(tracker.handle)
    again = start(store, "deleted", tmp_path)
    assert again.handle.run_id != tracker.handle.run_id and not again.resumed
    Tracker.join(again.handle).flush()


def test_a_refused_event_holds_up_no_other(store, tmp_path, caplog):
    tracker = start(store, "refused", tmp_path)
    worker = Tracker.join(tracker.handle)
    for name in ("before", "a/../b", "after"):  # MLflow refuses names that look like paths upwards
        worker.log_metrics({name: 1.0}, step=1)
        worker.flush()
    assert tracker.deliver() is False
    assert run_of(tracker).data.metrics == {"before": 1.0, "after": 1.0}
    assert "MLflow refuses an event, kept in" in caplog.text
    assert tracker.finish() is False and run_of(tracker).info.status == "FINISHED"


SECRETS = ("AKIAKEY", "SECRET1", "hunter2")
STORAGE = "s3://AKIAKEY:SECRET1@bucket/runs/a?region=eu"


def test_no_secret_of_an_address_reaches_the_journal_or_mlflow(store, tmp_path):
    tracker = start(store, "secret", tmp_path, tags={"das.from": STORAGE})
    database = "postgresql://user:hunter2@host/db"
    cluster = {"tracking_uri": database}
    tracker.log_params({"data": [STORAGE, "/plain"], "cluster": cluster, "long": "x" * 480 + STORAGE})
    tracker.log_dataset("panoptic", "d" * 64, STORAGE, "train")
    tracker.describe(f"from {STORAGE}")
    tracker.log_json("some/numbers.json", {"source": STORAGE, "n": [1.5, None]})
    tracker.finish("FAILED", ConnectionError(f"{STORAGE} and {database} do not answer"))
    run = run_of(tracker)
    files = b"".join(path.read_bytes() for path in (tmp_path / "tracking").rglob("*") if path.is_file())
    said = f"{run.data.params} {run.data.tags} {run.inputs.to_dictionary() if run.inputs else ''} {files.decode()}"
    assert not any(secret in said for secret in SECRETS)
    assert run.data.params["data"] == '["s3://***@bucket/runs/a?region=eu", "/plain"]'
    assert run.data.params["cluster.tracking_uri"] == "postgresql://***@host/db"
    assert run.data.tags["das.error"].startswith("ConnectionError: s3://***@bucket/runs/a?region=eu and")
