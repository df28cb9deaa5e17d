"""Drivers and workers that are killed: one run, no step missing, none twice; on a disk and on object storage."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.infra.files import delete, exists, join, names, read_json
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.tracking import sending
from pipeline.tracking.tracker import Tracker
from tests.pipeline.tracking.killed_processes import loss
from tests.pipeline.tracking.tracked_runs import history, run_of, start
from tests.servers import s3_server

PROJECT = Path(__file__).resolve().parents[3]
SECRETS = ("AKIAKEY", "SECRET1")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """URI of a bucket, with keys in it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"s3://{':'.join(SECRETS)}@bucket/NAME?endpoint_override={server.address}&scheme=http&region=us-east-1"


@pytest.fixture(params=["disk", "object storage"])
def folder(request, tmp_path):
    """The run's folder."""
    if request.param == "disk":
        return str(tmp_path / "run")
    return request.getfixturevalue("bucket").replace("NAME", request.node.name.partition("[")[0])


def killed(role, home, **arguments):
    """Runs a process to its death on a node of its own, which has a home of its own; returns what it printed."""
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.tracking.killed_processes", role, json.dumps(arguments)],
        cwd=PROJECT,
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [*home.rglob("*.json*")] == [], "nothing that matters lies in a node's home"
    return done.stdout.split()


def check_whole(tracker, last):
    """One run of its name, with every step once."""
    info = run_of(tracker).info
    same = f"tags.`das.identity` = '{info.run_name}'"
    found = tracker.handle.store.client().search_runs([info.experiment_id], same)
    assert [run.info.run_id for run in found] == [info.run_id]
    assert history(tracker, "loss") == [(step, loss(step)) for step in range(20, last + 1, 20)]


def test_a_worker_that_is_killed_and_restarted_on_another_node_leaves_every_step_once(store, folder, tmp_path):
    driver, checkpoint = start(store, f"worker {folder[:2]}", folder), 0
    for node, (die_after, in_time) in enumerate(((100, True), (160, True), (220, False), (300, True))):
        life = {"checkpoint": checkpoint, "die_after": die_after, "in_time": in_time}
        printed = killed("train", tmp_path / f"node{node}", handle=vars(driver.handle), **life)
        assert node == 1 or driver.deliver()  # both: sent before the steps come again, and sent together with them
        checkpoint = int(printed[-1])
    assert driver.finish() is True
    check_whole(driver, last=300)
    assert history(driver, "val") == [(step, loss(step)) for step in (60, 120, 180, 240, 300)]


@pytest.mark.parametrize("die_at", ["written", "sent"])
def test_a_driver_that_is_killed_loses_nothing_that_its_workers_wrote(store, folder, tmp_path, die_at):
    name = f"{folder[:2]} {die_at}"
    folder = folder.replace("?", f"-{die_at}?")  # the bucket is the same in both cases
    killed("drive", tmp_path / "node", store=store, name=name, folder=folder, die_at=die_at)
    again = start(store, name, folder)
    assert again.resumed
    log = Tracker.join(again.handle)
    for step in range(80, 161, 20):  # the last checkpoint was at step 60
        log.log_metrics({"loss": loss(step)}, step)
    log.flush()
    assert again.finish() is True and run_of(again).info.status == "FINISHED"
    check_whole(again, last=160)


def test_a_training_begun_anew_on_the_same_storage_gets_a_new_run(store, folder):
    first = start(store, f"anew {folder[:2]}", folder)
    assert start(store, f"anew {folder[:2]}", folder).handle == first.handle
    delete(folder)
    second = start(store, f"anew {folder[:2]}", folder)
    assert second.handle.run_id != first.handle.run_id and not second.resumed


def test_no_secret_of_the_storages_address_reaches_the_journal_or_mlflow(store, bucket, tmp_path, monkeypatch, caplog):
    folder = bucket.replace("NAME", "secret")
    tracker = start(store, "secret storage", folder)
    asked = []

    def away(uri, to):
        asked.append(uri)
        raise OSError("away")

    with monkeypatch.context() as lost:
        lost.setattr(sending, "local_copy", away)
        tracker.log_json("numbers.json", {"from": folder})
    # Another process: it has the folder's address only.
    again = start(store, "secret storage", folder)
    assert again.finish() is True and exists(asked[0])
    client = MlflowStore(store).client()
    file = client.download_artifacts(again.handle.run_id, "numbers.json", str(tmp_path))
    events = [json.dumps(events) for events in sent_events(again)]
    said = " ".join((Path(file).read_text(), str(run_of(again).data.tags), caplog.text, *events))
    assert "s3://***@bucket/secret" in said and not any(secret in said for secret in SECRETS)


def sent_events(tracker):
    """What the journal keeps of what was sent."""
    place = join(tracker._sender.journal.place, "sent")
    return [read_json(join(place, name)) for name in names(place)]


def test_a_storage_that_is_full_at_the_end_leaves_no_run_running(store, tmp_path, caplog):
    with pytest.raises(OSError), start(store, "full", tmp_path) as tracker:
        waiting = tmp_path / "tracking" / tracker.handle.run_id / "waiting"
        waiting.rmdir()
        waiting.write_text("no folder: nothing can be written")
        tracker.log_metrics({"loss": 1.0}, step=1)
    run = run_of(tracker)
    assert run.info.status == "FAILED" and str(waiting) in run.data.tags["das.error"]
    assert f"{waiting.parent} cannot be written" in caplog.text
