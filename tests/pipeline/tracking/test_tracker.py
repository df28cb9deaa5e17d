"""One MLflow run per identity: its status, content, machine load and description; on a real sqlite store."""

import json
import math
import os
import shutil
import subprocess
import sys
import time

import pytest

from pipeline.infra.code_version import code_version
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.tracking import system_metrics, worker_log
from pipeline.tracking.mlflow_values import parameters
from pipeline.tracking.tracker import RunHandle, Tracker
from tests.pipeline.tracking.tracked_runs import history, run_of, start

# ---- one run ----


def test_the_same_name_in_the_same_folder_continues_the_same_run(store, tmp_path):
    with start(store, "resumed", tmp_path) as first:
        first.log_metrics({"loss": 3.0}, step=1)
    with start(store, "resumed", tmp_path) as second:
        assert second.resumed and not first.resumed
        assert run_of(second).info.status == "RUNNING"
        second.log_metrics({"loss": 2.0}, step=2)
    runs = (
        MlflowStore(store).client().search_runs([run_of(first).info.experiment_id], "tags.`das.identity` = 'resumed'")
    )
    assert [run.info.run_id for run in runs] == [first.handle.run_id]
    assert history(second, "loss") == [(1, 3.0), (2, 2.0)]
    assert second.latest_metrics()["loss"] == 2.0
    assert runs[0].info.status == "FINISHED"
    assert runs[0].info.run_name == "resumed"


def test_a_name_whose_folder_is_gone_begins_a_new_run(store, tmp_path):
    first = start(store, "anew", tmp_path / "run")
    Tracker.join(first.handle).log_metrics({"loss": 3.0}, step=100)
    assert first.finish()
    shutil.rmtree(tmp_path / "run")
    second = start(store, "anew", tmp_path / "run")
    assert second.handle.run_id != first.handle.run_id and not second.resumed
    worker = Tracker.join(second.handle)
    worker.log_metrics({"loss": 9.0}, step=20)  # its steps begin anew
    worker.flush()
    assert second.deliver() and history(second, "loss") == [(20, 9.0)]


def test_other_identities_are_other_runs(store, tmp_path):
    assert start(store, "a", tmp_path).handle.run_id != start(store, "b", tmp_path).handle.run_id


def test_trials_are_children_of_their_sweep(store, tmp_path):
    sweep = start(store, "sweep", tmp_path)
    trials = [start(store, f"sweep/{i}", tmp_path / str(i), parent=sweep.handle) for i in range(3)]
    experiment = run_of(sweep).info.experiment_id
    found = (
        MlflowStore(store).client().search_runs([experiment], f"tags.`mlflow.parentRunId` = '{sweep.handle.run_id}'")
    )
    assert {run.info.run_id for run in found} == {trial.handle.run_id for trial in trials}


def test_a_worker_process_logs_into_the_drivers_run(store, tmp_path):
    driver = start(store, "with worker", tmp_path)
    code = (
        "import json, sys\n"
        "from pipeline.tracking.tracker import RunHandle, Tracker\n"
        "worker = Tracker.join(RunHandle(**json.loads(sys.argv[1])))\n"
        "worker.log_metrics({'loss': 0.5}, step=7)\n"
        "worker.flush()\n"
        "assert 'mlflow' not in sys.modules\n"
    )
    handle = json.dumps(vars(driver.handle))
    subprocess.run(
        [sys.executable, "-c", code, handle], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert driver.deliver() and history(driver, "loss") == [(7, 0.5)]
    assert run_of(driver).info.status == "RUNNING"  # a worker does not set it


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (RuntimeError("no\nGPU"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_the_status_is_how_the_block_ended(store, tmp_path, error, status):
    tracker = start(store, f"ends {status}", tmp_path)
    try:
        with tracker:
            if error is not None:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    run = run_of(tracker)
    assert run.info.status == status
    assert run.data.tags.get("das.error") == (
        None if error is None else f"{type(error).__name__}: {str(error) or type(error).__name__}".splitlines()[0]
    )


@pytest.mark.parametrize("identity", ["", "it's", "a`b", "x" * 251])
def test_an_identity_that_cannot_be_searched_for_is_refused(store, tmp_path, identity):
    with pytest.raises(ValueError, match="name = "):
        start(store, identity, tmp_path)


def test_a_handle_can_be_sent_as_json():
    handle = RunHandle("sqlite:////a.db", "id", "/runs/a")
    assert RunHandle(**json.loads(json.dumps(vars(handle)))) == handle


def test_importing_the_module_imports_no_mlflow():
    code = "import sys, pipeline.tracking.tracker, pipeline.infra.cluster; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- content ----


def test_a_configuration_becomes_parameters_and_uncut_an_artifact(store, tmp_path):
    tracker, text = start(store, "long", tmp_path), "x" * 10_000 + "a"
    tracker.log_params({"a": text, "é" * 300: 1})
    tracker.set_tags({"long": text})
    data = run_of(tracker).data
    assert data.params["a"] == parameters({"a": text})["a"] and len(data.params) == 2
    assert "sha256" in data.tags["long"]
    file = MlflowStore(store).client().download_artifacts(tracker.handle.run_id, "params.json")
    assert json.loads(open(file).read())["a"] == text  # nothing is lost


def test_nan_and_infinite_metrics_arrive_and_text_is_refused(store, tmp_path):
    tracker = start(store, "numbers", tmp_path)
    tracker.log_metrics({"nan": math.nan, "PCK@150": 1, "inf": math.inf}, step=0)
    assert math.isnan(history(tracker, "nan")[0][1])
    assert history(tracker, "PCK_150") == [(0, 1.0)]
    with pytest.raises(ValueError, match="metric loss = 'low', wanted a number"):
        tracker.log_metrics({"loss": "low"}, step=0)


def test_datasets_are_inputs_with_their_whole_fingerprint(store, tmp_path):
    tracker = start(store, "data", tmp_path)
    mark = "0123456789abcdef" * 4
    for _ in range(2):  # a restart logs it again
        tracker.log_dataset("panoptic", mark, "/data/panoptic", "train", "panoptic@0123456789ab")
    run = run_of(tracker)
    (found,) = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("panoptic", mark[:36])
    assert json.loads(found.dataset.source) == {"uri": "/data/panoptic", "fingerprint": mark}
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "train")]
    assert run.data.tags["das.data.train.panoptic"] == mark
    assert run.data.tags["das.splits.train.panoptic"] == "panoptic@0123456789ab"


def test_files_folders_and_json_become_artifacts_beside_the_store(store, tmp_path, monkeypatch):
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays/one.txt").write_text("1")
    monkeypatch.chdir(tmp_path)  # in a worker it is Ray's folder: nothing may be written there
    tracker = start(store, "files", tmp_path / "run")
    tracker.log_artifact("overlays", "pictures")
    tracker.log_artifact(tmp_path / "overlays/one.txt")
    tracker.log_json("scores.json", {"recall": 1})
    client = MlflowStore(store).client()
    names = {f.path for f in client.list_artifacts(tracker.handle.run_id)}
    assert names == {"pictures", "one.txt", "scores.json"}
    assert [f.path for f in client.list_artifacts(tracker.handle.run_id, "pictures")] == ["pictures/one.txt"]
    assert run_of(tracker).info.artifact_uri.startswith(f"file://{os.path.dirname(store.removeprefix('sqlite:///'))}/")
    assert {p.name for p in tmp_path.iterdir()} == {"overlays", "run"}
    with pytest.raises(ValueError, match="nothing.png does not exist"):
        tracker.log_artifact("nothing.png")


# ---- the machine ----


def test_a_run_logs_its_machines_load_and_continues_after_a_restart(store, tmp_path):
    with start(store, "load", tmp_path) as tracker:
        pass  # however short a block is, there is one sample at its end
    with start(store, "load", tmp_path):
        pass
    metrics = run_of(tracker).data.metrics
    names = ("cpu_utilization_percentage", "system_memory_usage_percentage", "disk_usage_percentage")
    for name in (*names, "network_receive_megabytes"):
        assert 0 <= metrics[f"system/{name}"], name
    assert [step for step, _ in history(tracker, "system/disk_usage_percentage")] == [0, 1]


def test_a_worker_on_another_machine_logs_that_machines_load(store, tmp_path, monkeypatch):
    driver = start(store, "nodes", tmp_path)
    monkeypatch.setattr(system_metrics.Sampler.__init__, "__defaults__", (0, 0.02))
    assert Tracker.join(driver.handle)._sampler is None  # the driver logs this machine
    monkeypatch.setattr(worker_log.socket, "gethostname", lambda: "gpu-node")
    worker = Tracker.join(driver.handle)
    patience = time.monotonic() + 20
    while not any(name.startswith("system/gpu-node/cpu") for name in driver.latest_metrics()):
        assert time.monotonic() < patience
        time.sleep(0.02)
        driver.deliver()
    worker._sampler.stop()
    worker.flush()
    assert driver.deliver()
    steps = [step for step, _ in history(driver, "system/gpu-node/disk_usage_percentage")]
    assert steps == [*range(len(steps))]
    again = Tracker.join(driver.handle)  # a restarted worker on the same node
    again._sampler.stop()
    again.flush()
    driver.deliver()
    assert len(history(driver, "system/gpu-node/disk_usage_percentage")) > len(steps)
    assert "system/cpu_utilization_percentage" not in run_of(driver).data.metrics


# ---- the description ----


def note(tracker):
    return run_of(tracker).data.tags["mlflow.note.content"]


def test_the_page_of_a_run_describes_it_from_start_to_end(store, tmp_path):
    with start(store, "evaluation/described", tmp_path) as tracker:
        tracker.log_dataset("panoptic", "0123456789abcdef" * 4, "/data/panoptic", "test")
        assert "is running" in note(tracker)
        tracker.log_params({"model": "runs/a/best", "cluster": {"address": "local"}})
        tracker.log_metrics({"strict/mpjpe": 91.234567, "strict/recall": 0.9, "other": 1.0}, step=0)
        tracker.log_json("scores.json", {})
        tracker.describe("All is **well**.", ["strict/mpjpe"])
    text = note(tracker)
    for part in (
        "Evaluation `evaluation/described` finished after",
        "All is **well**.",
        "| `strict/mpjpe` | 91.23 |",
        "| panoptic | test | `0123456789ab` | `/data/panoptic` |",
        "`model = runs/a/best`",
        "- `scores.json`: the scores that promotion uses",
        code_version(),
    ):
        assert part in text, (part, text)
    assert "other" not in text and "cluster.address" not in text


def test_the_description_has_the_reason_of_a_failure_and_the_trials_of_a_sweep(store, tmp_path):
    with pytest.raises(RuntimeError), start(store, "failed sweep", tmp_path) as sweep:
        for i, error in enumerate((90.0, 80.0)):
            with start(store, f"failed sweep-{i}", tmp_path / str(i), parent=sweep.handle) as trial:
                trial.log_metrics({"val/mpjpe_with_misses": error}, step=3)
        raise RuntimeError("no | GPU")
    text = note(sweep)
    assert "Sweep of 2 trials `failed sweep` failed" in text and "RuntimeError: no / GPU" in text
    assert text.index("| failed sweep-1 | finished | 80 |") < text.index("| failed sweep-0 | finished | 90 |")
    assert "Trial of the sweep failed sweep" in note(trial)
