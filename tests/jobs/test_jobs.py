"""Whole jobs on a cluster: ways to submit, one name submitted twice, a sweep that is killed.

Every training has one MLflow run afterwards, however often it was killed, and continues from its last committed
checkpoint: the epochs before it are not trained again.
"""

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from das.checkpoint import load_training_state
from das.model_info import load_info
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.tracking.run_description import IDENTITY_TAG
from pipeline.training.validation import SELECT_BY
from tests.jobs.own_cluster import PATIENCE, Cluster, wait_for

pytestmark = pytest.mark.slow

# An epoch has 8 steps and takes about a second.
TINY = {"model.backbone-width": "8", "ingest.width": "96", "ingest.height": "54", "ingest.batch-size": "4"}
TINY |= {"optim.lr": "3e-3", "optim.warmup-steps": "0", "optim.ema-decay": "None"}


def flags(options, prefix=""):
    return [word for name, value in options.items() for word in (f"--{prefix}{name}", str(value))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The storage of jobs without options."""
    return tmp_path_factory.mktemp("default")


@pytest.fixture(scope="module")
def cluster(prepared, place):
    cluster = Cluster({"DAS_PRESET": "small", "DAS_PREPARED": str(prepared), "DAS_STORAGE": str(place)})
    try:
        wait_for(cluster.ready, "the start of a Ray cluster")
        yield cluster
    finally:
        cluster.stop()


def training(prepared, storage, name, **options):
    """Arguments of a training job."""
    return ["small", "--data", str(prepared), "--name", name, "--cluster.storage", str(storage), *flags(TINY | options)]


def committed(folder: Path) -> bool:
    """Whether Ray has a checkpoint of this training that it will continue from."""
    snapshot = folder / "checkpoint_manager_snapshot.json"
    return snapshot.exists() and bool(json.loads(snapshot.read_text())["checkpoint_results"])


def epochs_trained(folder: Path) -> list[int]:
    """Every epoch that a worker ended, in the order of time; one that was trained twice is listed twice."""
    events = [event for sent in (folder / "tracking").glob("*/sent/*.json") for event in json.loads(sent.read_text())]
    ended = [event for event in events if "epoch" in event.get("metrics", {})]
    return [int(event["metrics"]["epoch"]) for event in sorted(ended, key=lambda event: event["time_ms"])]


def runs_of(storage: Path, name: str):
    """All MLflow runs of this name."""
    client = MlflowStore(f"sqlite:///{storage}/mlflow.db").client(must_exist=True)
    experiment = client.get_experiment_by_name("das").experiment_id
    return client.search_runs([experiment], f"tags.`{IDENTITY_TAG}` = '{name}'")


def check_whole(storage: Path, name: str, epochs: int, steps: int) -> list[int]:
    """Checks that there is one finished run with all of its epochs; returns the epochs in the order of training."""
    (run,) = runs_of(storage, name)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["epoch"] == epochs and run.data.metrics["step"] == steps
    client = MlflowStore(f"sqlite:///{storage}/mlflow.db").client(must_exist=True)
    history = client.get_metric_history(run.info.run_id, "epoch")
    assert [metric.value for metric in history] == [*range(1, epochs + 1)], "each once, however often it was trained"
    finished = json.loads((storage / name / "finished.json").read_text())
    assert finished["run_id"] == run.info.run_id
    trained = epochs_trained(storage / name)
    assert sorted(set(trained)) == list(range(1, epochs + 1)) and trained[-1] == epochs
    newest = max((storage / name).glob("checkpoint_2*"))
    assert load_training_state(newest)["progress"]["step"] == steps
    return trained


def test_a_job_is_submitted_with_its_working_folder_or_from_the_clusters_own(cluster, prepared, tmp_path):
    arguments = [*training(prepared, tmp_path, "submitted", **{"optim.epochs": 1}), "--profile"]
    uploaded = cluster.submit("--working-dir", ".", "--", "python", "jobs/train_panoptic.py", *arguments)
    assert uploaded.returncode == 0, uploaded.stdout + uploaded.stderr
    assert f"training finished: {tmp_path}/submitted/best" in uploaded.stdout
    assert f"trace of 3 steps: {tmp_path}/submitted/trace.json.gz (open it at " in uploaded.stdout
    assert (tmp_path / "submitted" / "trace.json.gz").exists()
    check_whole(tmp_path, "submitted", epochs=1, steps=8)
    info = load_info(tmp_path / "submitted" / "best")
    assert "+src." in info.code_version, "the job must run the uploaded copy, which has no git history"

    # As an executable file in the folder where `ray start` ran; a training of the same name has finished.
    again = cluster.submit("--", "jobs/train_panoptic.py", *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "training finished before, nothing to do" in again.stdout
    check_whole(tmp_path, "submitted", epochs=1, steps=8)


def test_the_bare_command_trains_where_the_cluster_was_started_in_the_projects_folder(cluster, prepared, place):
    folder, words = place / "das-panoptic", ["--no-wait", "--submission-id", "bare", "jobs/train_panoptic.py"]
    try:
        assert cluster.submit(*words).returncode == 0
        wait_for(lambda: committed(folder), "the first committed checkpoint")
        settings = json.loads((folder / "training.json").read_text())
        assert settings["optim"]["epochs"] == 22 and settings["data"]["sources"] == ["synthetic"]
    finally:  # 22 epochs take minutes
        cluster.ray("job", "stop", "bare")
        print(cluster.ray("job", "logs", "bare").stdout[-3000:])


def test_a_job_that_is_stopped_ends_its_run_and_goes_on_when_it_is_submitted_again(cluster, prepared, tmp_path):
    command = ["jobs/train_panoptic.py", *training(prepared, tmp_path, "stopped", **{"optim.epochs": 20})]
    assert cluster.submit("--no-wait", "--submission-id", "stopped", "--", *command).returncode == 0
    wait_for(lambda: committed(tmp_path / "stopped"), "the first committed checkpoint")
    stopped = cluster.ray("job", "stop", "stopped")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    (run,) = runs_of(tmp_path, "stopped")
    assert run.info.status == "KILLED" and not (tmp_path / "stopped" / "finished.json").exists()
    again = cluster.submit("--", *command)
    assert again.returncode == 0, again.stdout + again.stderr
    check_whole(tmp_path, "stopped", epochs=20, steps=160)
    assert runs_of(tmp_path, "stopped")[0].info.run_id == run.info.run_id


def test_a_wrong_argument_fails_a_submitted_job_with_one_line(cluster, tmp_path):
    arguments = ["small", "--data", "/no/such/folder", "--cluster.storage", str(tmp_path / "runs")]
    failed = cluster.submit("--", "jobs/train_panoptic.py", *arguments)
    assert failed.returncode == 1
    wanted = "das: /no/such/folder does not exist; wanted a folder made by `das prepare`"
    assert wanted in failed.stdout + failed.stderr and "Traceback" not in failed.stdout + failed.stderr
    assert not (tmp_path / "runs").exists()


def test_of_the_same_training_submitted_twice_at_once_one_trains_and_the_other_is_refused(cluster, prepared, tmp_path):
    command = training(prepared, tmp_path, "twice", **{"optim.epochs": 6})
    drivers = [cluster.drive(tmp_path / f"log{i}", "train_panoptic.py", *command) for i in range(2)]
    try:
        ended = [driver.wait(PATIENCE) for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
    logs = [(tmp_path / f"log{i}").read_text() for i in range(2)]
    assert sorted(ended) == [0, 2], logs
    winner = drivers[ended.index(0)]
    wanted = (
        rf"das: {tmp_path}/twice: this training is running already \(process {winner.pid} on \S+ since .*, Ray job 0"
    )
    assert re.match(wanted, logs[ended.index(2)].splitlines()[-1]), logs
    assert Counter(check_whole(tmp_path, "twice", epochs=6, steps=48)) == Counter(range(1, 7))
    assert not os.listdir(tmp_path / "twice" / "claims")


def test_a_sweep_of_four_trials_survives_its_driver_and_names_the_best(cluster, prepared, tmp_path):
    command = ["small", "--name", "s", "--trials", "4", "--update-layers", "0", "1", "2", "--max-concurrent", "1"]
    # With a reduction this large, ASHA stops every trial whose first epoch is not the best one so far.
    command += ["--reduction", "1000", *flags(TINY | {"optim.epochs": 2, "data": prepared}, "train.")]
    command += ["--train.cluster.storage", str(tmp_path)]
    driver = cluster.drive(tmp_path / "log", "sweep.py", *command)
    first = tmp_path / "s" / "s-0" / "finished.json"
    wait_for(lambda: first.exists() or driver.poll() is not None, "the end of the first trial")
    assert driver.poll() is None, (tmp_path / "log").read_text()
    driver.kill()
    driver.wait()
    trained = epochs_trained(tmp_path / "s" / "s-0")

    again = cluster.drive(tmp_path / "log", "sweep.py", *command)
    try:
        assert again.wait(2 * PATIENCE) == 0, (tmp_path / "log").read_text()
    finally:
        again.kill()
    assert epochs_trained(tmp_path / "s" / "s-0") == trained, "a finished trial must not be trained again"

    (parent,) = runs_of(tmp_path, "s")
    client = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db").client()
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {child.info.run_name for child in children} == {f"s-{i}" for i in range(4)} and len(children) == 4
    assert parent.info.status == "FINISHED"
    layers = {child.info.run_name: child.data.params["model.update_layers"] for child in children}
    assert layers == {"s-0": "None", "s-1": "0", "s-2": "1", "s-3": "2"}

    # Repeats ASHA's decisions on the recorded errors, in order of time: larger than the smallest so far means stopped.
    trials = {t["name"]: t for t in json.loads((tmp_path / "s" / "finished.json").read_text())["trials"]}
    status = {child.info.run_name: child.info.status for child in children}
    best = None
    for name in sorted(trials):
        (child,) = (c for c in children if c.info.run_name == name)
        scores = [m.value for m in client.get_metric_history(child.info.run_id, SELECT_BY)]
        # The second driver found the first trial finished and reported its best epoch only.
        decisive = min(scores) if name == "s-0" else scores[0]
        worse = best is not None and decisive > best
        assert (trials[name]["status"], status[name]) == (("stopped", "KILLED") if worse else ("finished", "FINISHED"))
        assert trials[name]["score"] == (scores[0] if worse else min(scores))
        best = decisive if best is None else min(best, decisive)

    winner = min(trials.values(), key=lambda trial: trial["score"])
    assert parent.data.tags["das.best.trial"] == winner["name"]
    assert parent.data.metrics[SELECT_BY] == winner["score"]
    folder = tmp_path / "s" / "best"
    assert parent.data.tags["das.best.checkpoint"] == str(folder)
    wanted = winner["changes"].get("update_layers", 1)
    assert load_info(folder).model.layers == wanted
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last == f"best trial {winner['name']}: {folder}"
    shutil.rmtree(tmp_path)
