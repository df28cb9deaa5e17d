"""Faults of the MLflow server while a job runs and before: real servers, and a proxy that answers in their place.

After each of them there is one run, no step is missing and none is there twice.
"""

import logging
import time
from dataclasses import replace

import pytest

from pipeline.infra.mlflow_client import MlflowStore
from pipeline.tracking import delivery
from pipeline.tracking.tracker import Tracker
from tests.pipeline.tracking.tracked_runs import history, run_of, start
from tests.servers import Front, MlflowServer, free_port

pytestmark = pytest.mark.slow

PAGE = "<html>\n<head><title>no such page</title></head>\n<body>nginx</body>\n</html>"
ANSWERS = {
    "401": (401, "text/plain", "You are not authenticated.\nSee the documentation."),
    "403": (403, "text/plain", "Permission denied"),
    "404": (404, "text/html", PAGE),
    "500": (500, "application/json", '{"error_code": "INTERNAL_ERROR", "message": "no disk"}'),
    "502": (502, "text/html", PAGE),
    "200": (200, "text/html", PAGE),  # a login page
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def front(server):
    front = Front(server.uri)
    yield front
    front.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.parametrize("status", ANSWERS)
def test_no_answer_of_a_server_ends_a_running_job_or_costs_a_number(front, status, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(delivery, "RETRY_AFTER", 0.0)  # an attempt with every event
    driver = start(front.uri, f"answers {status}", tmp_path)
    worker = Tracker.join(driver.handle)
    worker.log_metrics({"loss": 3.0}, step=20)
    worker.flush()
    assert driver.deliver()
    front.answer = ANSWERS[status]
    try:
        for step, loss in ((40, 2.0), (60, 1.0)):
            worker.log_metrics({"loss": loss}, step=step)
            worker.flush()
            driver.log_metrics({"seen": loss}, step=step)
        driver.log_params({"seed": 0})
        driver.log_json("numbers.json", {"n": 1})
        assert driver.deliver() is False and driver.latest_metrics() == {}
    finally:
        front.answer = None
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("pipeline.")]
    assert warning.startswith(f"MLflow at {front.uri} does not get what is logged (") and "\n" not in warning
    said = "not in a valid JSON" if status == "200" else f"(answers {status})"
    assert said in warning and "<" not in warning, warning
    assert driver.finish() is True
    assert history(driver, "loss") == [(20, 3.0), (40, 2.0), (60, 1.0)]
    assert history(driver, "seen") == [(40, 2.0), (60, 1.0)]
    run = run_of(driver)
    assert run.data.params == {"seed": "0"} and run.info.status == "FINISHED"
    files = driver.handle.store.client().list_artifacts(run.info.run_id)
    assert [file.path for file in files] == ["numbers.json", "params.json"]


@pytest.mark.parametrize("away", ["refused", "unknown", "silent"])
def test_a_server_that_cannot_be_reached_costs_no_number(server, front, away, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(delivery, "RETRY_AFTER", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    there = start(server.uri, f"away {away}", tmp_path)
    uri = {"refused": f"http://127.0.0.1:{free_port()}", "unknown": "http://no-such-host.invalid:5000"}
    lost = Tracker(replace(there.handle, tracking_uri=uri.get(away, front.uri)))
    front.silence = 2.0 if away == "silent" else 0.0
    try:
        for step in (20, 40):
            lost.log_metrics({"loss": step}, step=step)
    finally:
        front.silence = 0.0
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("pipeline.")]
    assert lost.handle.tracking_uri in warning and "\n" not in warning
    why = {"refused": "Connection refused", "unknown": "Failed to resolve", "silent": "timed out"}[away]
    assert why in warning
    assert there.finish() is True and history(there, "loss") == [(20, 20.0), (40, 40.0)]


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_a_server_that_refuses_the_user_is_one_line_before_anything_is_written(front, status, tmp_path):
    front.answer = ANSWERS[status]
    try:
        with pytest.raises(ValueError, match=f"{front.uri}.* answers {status}: wanted") as refused:
            start(front.uri, "refused", tmp_path / "run")
    finally:
        front.answer = None
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_a_server_that_was_killed_and_started_again_gets_everything_once(server, tmp_path, caplog):
    driver = start(server.uri, "lost", tmp_path / "run")
    worker = Tracker.join(driver.handle)
    worker.log_metrics({"loss": 3.0}, step=1)
    away = start(server.uri, "away", tmp_path / "away").__enter__()
    server.stop()
    with caplog.at_level(logging.WARNING):
        before = time.monotonic()
        for step, loss in ((2, 2.0), (3, 1.0)):
            worker.log_metrics({"loss": loss}, step=step)
        worker.flush()
        (tmp_path / "picture.txt").write_text("x")
        driver.log_artifact(tmp_path / "picture.txt")
        assert time.monotonic() - before < 10
        assert driver.finish() is False
        away.log_params({"seed": 1})
        away.log_dataset("panoptic", "d" * 64, "/data", "train")
        away.describe("the result")
        away.__exit__(None, None, None)
    assert "sent when the run is opened again" in caplog.text
    with pytest.raises(ConnectionError, match="MLflow does not answer at http://127.0.0.1"):
        start(server.uri, "another", tmp_path / "other")
    server.start()
    start(server.uri, "away", tmp_path / "away").finish()
    run = run_of(away)
    assert run.data.params == {"seed": "1"} and len(run.inputs.dataset_inputs) == 1
    assert run.data.metrics["system/disk_usage_percentage"] > 0
    assert run.info.status == "FINISHED" and "the result" in run.data.tags["mlflow.note.content"]
    again = start(server.uri, "lost", tmp_path / "run")
    assert again.handle == driver.handle
    assert history(again, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    files = MlflowStore(server.uri).client().list_artifacts(again.handle.run_id)
    assert [file.path for file in files] == ["picture.txt"]
    assert again.finish() is True
    assert run_of(again).info.status == "FINISHED"
    assert "finished" in run_of(again).data.tags["mlflow.note.content"]
