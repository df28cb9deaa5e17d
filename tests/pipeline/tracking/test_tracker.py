"""One MLflow run per identity, nothing lost without a server; on real sqlite stores and a real server process."""

import json
import logging
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from pipeline.infra.code_version import code_version
from pipeline.infra.mlflow_client import absolute_tracking_uri, mlflow_client
from pipeline.tracking import system_metrics
from pipeline.tracking import tracker as tracker_module
from pipeline.tracking.outbox import Journal, journal_folder
from pipeline.tracking.tracker import RunHandle, Tracker, flatten


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Tracking URI of one sqlite store; making its tables costs seconds, so tests share it."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def start(store, name, folder, **more):
    return Tracker.open(store, "tests", name, folder, **more)


def run_of(tracker):
    return mlflow_client(tracker.handle.tracking_uri).get_run(tracker.handle.run_id)


def history(tracker, name):
    client = mlflow_client(tracker.handle.tracking_uri)
    return [(m.step, m.value) for m in client.get_metric_history(tracker.handle.run_id, name)]


# ---- one run ----


def test_the_same_identity_continues_the_same_run(store, tmp_path):
    with start(store, "resumed", tmp_path) as first:
        first.log_metrics({"loss": 3.0}, step=1)
    with start(store, "resumed", tmp_path / "elsewhere") as second:  # the tag decides, not the folder
        assert second.resumed and not first.resumed
        assert run_of(second).info.status == "RUNNING"
        second.log_metrics({"loss": 2.0}, step=2)
    runs = mlflow_client(store).search_runs([run_of(first).info.experiment_id], "tags.`das.identity` = 'resumed'")
    assert [run.info.run_id for run in runs] == [first.handle.run_id]
    assert history(second, "loss") == [(1, 3.0), (2, 2.0)]
    assert second.latest_metrics()["loss"] == 2.0
    assert runs[0].info.status == "FINISHED"
    assert runs[0].info.run_name == "resumed"


def test_other_identities_are_other_runs(store, tmp_path):
    assert start(store, "a", tmp_path).handle.run_id != start(store, "b", tmp_path).handle.run_id


def test_trials_are_children_of_their_sweep(store, tmp_path):
    sweep = start(store, "sweep", tmp_path)
    trials = [start(store, f"sweep/{i}", tmp_path / str(i), parent=sweep.handle) for i in range(3)]
    experiment = run_of(sweep).info.experiment_id
    found = mlflow_client(store).search_runs([experiment], f"tags.`mlflow.parentRunId` = '{sweep.handle.run_id}'")
    assert {run.info.run_id for run in found} == {trial.handle.run_id for trial in trials}


def test_a_worker_process_logs_into_the_drivers_run(store, tmp_path):
    driver = start(store, "with worker", tmp_path)
    code = (
        "import json, sys\n"
        "from pipeline.tracking.tracker import RunHandle, Tracker\n"
        "Tracker.join(RunHandle(**json.loads(sys.argv[1]))).log_metrics({'loss': 0.5}, step=7)\n"
    )
    handle = json.dumps(vars(driver.handle))
    subprocess.run(
        [sys.executable, "-c", code, handle], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert history(driver, "loss") == [(7, 0.5)]
    assert run_of(driver).info.status == "RUNNING"  # the worker does not own the status
    assert len(list((tmp_path / "tracking").glob("*.jsonl"))) == 2


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (RuntimeError("no\nGPU"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_the_status_tells_how_the_block_ended(store, tmp_path, error, status):
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


@pytest.mark.parametrize("identity", ["", "it's", "a`b", "x" * 201])
def test_an_identity_that_cannot_be_searched_for_is_refused(store, tmp_path, identity):
    with pytest.raises(ValueError, match="name = "):
        start(store, identity, tmp_path)


# ---- content ----


@dataclass
class Inner:
    rate: float = 0.1
    strides: tuple = (8, 16)


@dataclass
class Outer:
    inner: Inner
    note: str | None = None


def test_flatten_names_nested_fields_and_keeps_lists_readable():
    values = flatten({"train": Outer(Inner()), "n": 3})
    assert values == {"train.inner.rate": "0.1", "train.inner.strides": "[8, 16]", "train.note": "None", "n": "3"}


def test_long_values_are_cut_but_stay_different(store, tmp_path):
    a, b = "x" * 10_000 + "a", "x" * 10_000 + "b"
    cut = flatten({"a": a, "b": b})
    assert cut["a"] != cut["b"] and all(len(text) == tracker_module.PARAM_LENGTH for text in cut.values())
    tracker = start(store, "long", tmp_path)
    tracker.log_params({"a": a, "é" * 300: 1})
    tracker.set_tags({"long": a})
    data = run_of(tracker).data
    assert data.params["a"] == cut["a"] and len(data.params) == 2
    assert "sha256" in data.tags["long"]
    folder = mlflow_client(store).download_artifacts(tracker.handle.run_id, "params.json")
    assert json.loads(open(folder).read())["a"] == a  # nothing is lost


def test_many_parameters_and_metrics_pass_the_limits_of_one_request(store, tmp_path):
    tracker = start(store, "many", tmp_path)
    tracker.log_params({f"p{i}": i for i in range(250)})
    tracker.log_metrics({f"m{i}": i for i in range(2100)}, step=0)
    data = run_of(tracker).data
    assert len(data.params) == 250 and len(data.metrics) == 2100


def test_a_restart_that_changes_a_parameter_keeps_the_first_and_says_so(store, tmp_path):
    start(store, "changed", tmp_path).log_params({"epochs": 10, "seed": 0})
    second = start(store, "changed", tmp_path)
    second.log_params({"epochs": 20, "seed": 0, "new": 1})
    data = run_of(second).data
    assert data.params == {"epochs": "10", "seed": "0", "new": "1"}
    assert data.tags["das.changed.epochs"] == "20" and "das.changed.seed" not in data.tags


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
    monkeypatch.chdir(tmp_path)  # a worker's folder is Ray's: nothing may land in it
    tracker = start(store, "files", tmp_path / "run")
    tracker.log_artifact("overlays", "pictures")
    tracker.log_artifact(tmp_path / "overlays/one.txt")
    tracker.log_json("scores.json", {"recall": 1})
    client = mlflow_client(store)
    names = {f.path for f in client.list_artifacts(tracker.handle.run_id)}
    assert names == {"pictures", "one.txt", "scores.json"}
    assert [f.path for f in client.list_artifacts(tracker.handle.run_id, "pictures")] == ["pictures/one.txt"]
    assert run_of(tracker).info.artifact_uri.startswith(f"file://{os.path.dirname(store.removeprefix('sqlite:///'))}/")
    assert {p.name for p in tmp_path.iterdir()} == {"overlays", "run"}
    with pytest.raises(ValueError, match="nothing.png does not exist"):
        tracker.log_artifact("nothing.png")


def test_an_artifact_whose_storage_does_not_answer_is_sent_later(store, tmp_path, monkeypatch, caplog):
    (tmp_path / "picture.txt").write_text("1")
    tracker, really = start(store, "storage away", tmp_path / "run"), tracker_module.local_copy

    def away(uri, folder):
        raise OSError("When reading information for key 'picture.txt': curlCode: 7, Couldn't connect to server")

    monkeypatch.setattr(tracker_module, "local_copy", away)
    with caplog.at_level(logging.WARNING):
        tracker.log_artifact(tmp_path / "picture.txt")
    assert "picture.txt cannot be read: When reading" in caplog.text
    monkeypatch.setattr(tracker_module, "local_copy", really)
    assert tracker.finish() is True
    assert [f.path for f in mlflow_client(store).list_artifacts(tracker.handle.run_id)] == ["picture.txt"]


# ---- the machine ----


def test_a_run_reports_its_machines_load_and_goes_on_with_it_after_a_restart(store, tmp_path):
    with start(store, "load", tmp_path) as tracker:
        pass  # however short a block is, there is one sample at its end
    with start(store, "load", tmp_path):
        pass
    metrics = run_of(tracker).data.metrics
    names = ("cpu_utilization_percentage", "system_memory_usage_percentage", "disk_usage_percentage")
    for name in (*names, "network_receive_megabytes"):
        assert 0 <= metrics[f"system/{name}"], name
    assert [step for step, _ in history(tracker, "system/disk_usage_percentage")] == [0, 1]


def test_a_worker_elsewhere_reports_its_own_machine(store, tmp_path, monkeypatch):
    driver = start(store, "nodes", tmp_path)
    monkeypatch.setattr(system_metrics.Sampler.__init__, "__defaults__", (0, 0.02))
    assert Tracker.join(driver.handle)._sampler is None  # the driver reports this one
    monkeypatch.setattr(tracker_module.socket, "gethostname", lambda: "gpu-node")
    worker = Tracker.join(driver.handle)
    patience = time.monotonic() + 20
    while not any(name.startswith("system/gpu-node/cpu") for name in worker.latest_metrics()):
        assert time.monotonic() < patience
        time.sleep(0.02)
    worker._sampler.stop()
    assert "system/cpu_utilization_percentage" not in run_of(driver).data.metrics


# ---- the description ----


def note(tracker):
    return run_of(tracker).data.tags["mlflow.note.content"]


def test_the_page_of_a_run_describes_it_from_start_to_end(store, tmp_path):
    with start(store, "evaluation/told", tmp_path) as tracker:
        tracker.log_dataset("panoptic", "0123456789abcdef" * 4, "/data/panoptic", "test")
        assert "is running" in note(tracker)
        tracker.log_params({"model": "runs/a/best", "cluster": {"address": "local"}})
        tracker.log_metrics({"strict/mpjpe": 91.234567, "strict/recall": 0.9, "other": 1.0}, step=0)
        tracker.log_json("scores.json", {})
        tracker.describe("All is **well**.", ["strict/mpjpe"])
    text = note(tracker)
    for part in (
        "Evaluation `evaluation/told` finished after",
        "All is **well**.",
        "| `strict/mpjpe` | 91.23 |",
        "| panoptic | test | `0123456789ab` | `/data/panoptic` |",
        "`model = runs/a/best`",
        "- `scores.json`: what promotion decides by",
        code_version(),
    ):
        assert part in text, (part, text)
    assert "other" not in text and "cluster.address" not in text


def test_the_page_says_why_a_run_failed_and_what_a_sweep_found(store, tmp_path):
    with pytest.raises(RuntimeError), start(store, "told sweep", tmp_path) as sweep:
        for i, error in enumerate((90.0, 80.0)):
            with start(store, f"told sweep-{i}", tmp_path / str(i), parent=sweep.handle) as trial:
                trial.log_metrics({"val/mpjpe_with_misses": error}, step=3)
        raise RuntimeError("no | GPU")
    text = note(sweep)
    assert "Sweep of 2 trials `told sweep` failed" in text and "RuntimeError: no / GPU" in text
    assert text.index("| told sweep-1 | finished | 80 |") < text.index("| told sweep-0 | finished | 90 |")
    assert "Trial of the sweep told sweep" in note(trial)


# ---- a lost server ----


@pytest.mark.slow
def test_a_lost_server_costs_no_metric(mlflow_server, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    driver = start(mlflow_server.uri, "lost", tmp_path / "run")
    worker = Tracker.join(driver.handle)
    worker.log_metrics({"loss": 3.0}, step=1)
    away = start(mlflow_server.uri, "away", tmp_path / "away").__enter__()
    mlflow_server.stop()
    with caplog.at_level(logging.WARNING):
        before = time.monotonic()
        worker.log_metrics({"loss": 2.0}, step=2)
        worker.log_metrics({"loss": 1.0}, step=3)
        (tmp_path / "picture.txt").write_text("x")
        worker.log_artifact(tmp_path / "picture.txt")
        assert time.monotonic() - before < 10
        assert driver.finish() is False
        away.log_params({"seed": 1})
        away.log_dataset("panoptic", "d" * 64, "/data", "train")
        away.describe("told")
        away.__exit__(None, None, None)
    assert "MLflow is lost" in caplog.text and "sent when the run is opened again" in caplog.text
    with pytest.raises(ConnectionError, match="MLflow does not answer at http://127.0.0.1"):
        start(mlflow_server.uri, "another", tmp_path / "other")
    mlflow_server.start()
    start(mlflow_server.uri, "away", tmp_path / "away").finish()
    run = run_of(away)
    assert run.data.params == {"seed": "1"} and len(run.inputs.dataset_inputs) == 1
    assert run.data.metrics["system/disk_usage_percentage"] > 0
    assert run.info.status == "FINISHED" and "told" in run.data.tags["mlflow.note.content"]
    again = start(mlflow_server.uri, "lost", tmp_path / "run")
    assert again.handle == driver.handle
    assert history(again, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert [f.path for f in mlflow_client(mlflow_server.uri).list_artifacts(again.handle.run_id)] == ["picture.txt"]
    assert again.finish() is True
    assert run_of(again).info.status == "FINISHED"
    assert "finished" in run_of(again).data.tags["mlflow.note.content"]


def test_the_server_is_asked_again_after_a_while(store, tmp_path, monkeypatch):
    tracker = start(store, "asked again", tmp_path)
    attempts, really = [], tracker_module._send

    def lost(handle, events):
        attempts.append(len(events))
        raise ConnectionError("refused")

    monkeypatch.setattr(tracker_module, "_send", lost)
    for step in range(3):
        tracker.log_metrics({"loss": step}, step=step)
    assert attempts == [1]  # and no attempt per step, which would stop the training each time
    monkeypatch.setattr(tracker_module, "_RETRY_AFTER", 0.0)
    tracker._retry_at = time.monotonic()
    tracker.log_metrics({"loss": 3}, step=3)
    assert attempts == [1, 4]
    monkeypatch.setattr(tracker_module, "_send", really)
    tracker.log_metrics({"loss": 4}, step=4)
    assert history(tracker, "loss") == [(step, step) for step in range(5)]


def test_sending_twice_changes_nothing(store, tmp_path):
    tracker = start(store, "twice", tmp_path)
    tracker.log_metrics({"loss": 1.0}, step=1)
    for mark in (tmp_path / "tracking").glob("*.sent"):
        mark.unlink()  # as if killed between sending and noting it
    again = start(store, "twice", tmp_path)
    assert history(again, "loss") == [(1, 1.0)]


def test_what_the_server_refuses_is_raised_and_not_kept_for_later(store, tmp_path):
    tracker = start(store, "deleted", tmp_path)
    mlflow_client(store).delete_run(tracker.handle.run_id)
    with pytest.raises(Exception, match="must be in the 'active' state"):
        tracker.log_metrics({"loss": 1.0}, step=1)


def test_a_half_written_line_is_not_an_event(tmp_path):
    journal = Journal(tmp_path / "w.jsonl")
    journal.append({"n": 1})
    with journal.path.open("ab") as file:
        file.write(b'{"n": 2')  # killed here
    assert Journal(journal.path).pending()[0] == [{"n": 1}]
    journal.append({"n": 3})
    events, position = journal.pending()
    assert events == [{"n": 1}, {"n": 3}] and position == journal.path.stat().st_size
    journal.mark_sent(position)
    assert Journal(journal.path).pending() == ([], position)


def test_runs_on_object_storage_keep_their_journal_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert journal_folder("s3://bucket/runs/a").is_relative_to(tmp_path)
    assert journal_folder("/runs/a").as_posix() == "/runs/a/tracking"


# ---- addresses and code ----


def test_tracking_uris_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_tracking_uri(None, "/runs") == "sqlite:////runs/mlflow.db"
    assert absolute_tracking_uri("sqlite:///here.db", "/runs") == f"sqlite:///{tmp_path}/here.db"
    assert absolute_tracking_uri("http://head:5000/", "s3://bucket") == "http://head:5000"


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///", "http://", "ftp://x"])
def test_an_unusable_tracking_uri_is_refused(uri):
    with pytest.raises(ValueError, match="tracking_uri = "):
        absolute_tracking_uri(uri, "/runs")


def test_object_storage_needs_a_server():
    with pytest.raises(ValueError, match="wanted an MLflow server"):
        absolute_tracking_uri(None, "s3://bucket/runs")


def test_readers_do_not_create_a_database(tmp_path):
    with pytest.raises(ValueError, match="there is no database"):
        mlflow_client(f"sqlite:///{tmp_path}/none/mlflow.db", must_exist=True)
    assert list(tmp_path.iterdir()) == []


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout


def test_code_version_names_commit_changes_and_sources(tmp_path):
    (tmp_path / "das").mkdir()
    source = tmp_path / "das/model.py"
    source.write_text("a = 1\n")
    unversioned = code_version(tmp_path)
    assert "+src." in unversioned
    source.write_text("a = 2\n")
    assert code_version(tmp_path) != unversioned
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert code_version(tmp_path).endswith(f"+git.{commit}")
    source.write_text("a = 3\n")
    assert code_version(tmp_path).endswith(f"+git.{commit}.dirty")
    # A copy in a folder of somebody else's repository is not that repository's commit.
    (tmp_path / "vendored/das").mkdir(parents=True)
    assert "+src." in code_version(tmp_path / "vendored")


def test_importing_the_module_imports_no_mlflow():
    code = "import sys, pipeline.tracking.tracker, pipeline.infra.cluster; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_handle_travels_as_plain_text():
    handle = RunHandle("sqlite:////a.db", "id", "/runs/a")
    assert RunHandle(**json.loads(json.dumps(vars(handle)))) == handle
