"""A checkpoint becomes a version and, if the gate lets it, champion; on real sqlite stores, without Ray."""

import json
import math
import shutil
from dataclasses import replace

import pytest
from evaluation_cases import MODEL, write_checkpoint

from das.checkpoint import save_training_state
from das.skeleton import MUCO21
from pipeline import registry
from pipeline.cli import main
from pipeline.cluster import ClusterConfig
from pipeline.gate import Gate, Scores
from pipeline.promote import PromoteConfig, promote
from pipeline.registry import champion_version, fingerprint, resolve_model
from pipeline.storage import write_json
from pipeline.tracking import Tracker, mlflow_client

NAME = "das-demo"


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


class Place:
    """A storage with trainings and scores in it."""

    def __init__(self, folder):
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"

    def trained(self, name, config=MODEL, seed=0):
        """The folder of a finished training's best checkpoint."""
        best = write_checkpoint(self.folder / name / "best", config, seed=seed)
        save_training_state(best, {"epoch": 3})
        with Tracker.open(self.uri, "das", name, self.folder / name) as tracker:
            tracker.log_metrics({"loss": 1.0}, step=0)
        write_json(self.folder / name / "finished.json", {"run_id": tracker.handle.run_id, "metrics": {}})
        return best

    def scored(self, checkpoint, name=None, **changes):
        """The scores.json of an evaluation of that checkpoint."""
        scores = Scores(
            protocol="strict",
            split="synthetic/test",
            skeleton="panoptic15",
            data_fingerprint="d1",
            model_fingerprint=fingerprint(checkpoint),
            train_fit=False,
            mpjpe_mm=90.0,
            recall=0.95,
            precision=0.9,
            baseline_mpjpe_mm=150.0,
        )
        path = self.folder / "evaluations" / (name or checkpoint.parent.name) / "scores.json"
        write_json(path, replace(scores, **changes).to_json())
        return path

    def config(self, checkpoint, scores, **changes):
        cluster = ClusterConfig(storage=str(self.folder))
        return replace(PromoteConfig(str(checkpoint), str(scores), NAME, cluster=cluster), **changes)

    def versions(self, name=NAME):
        return len(mlflow_client(self.uri).search_model_versions(f"name = '{name}'"))


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """An sqlite store with its tables, which cost seconds to make."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow_client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def place(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Place(tmp_path)


def test_a_good_first_version_becomes_champion_and_can_be_loaded(place):
    best = place.trained("first")
    result = promote(place.config(best, place.scored(best)))
    assert result.champion and result.verdict.passed and (result.version, result.holder) == (1, 1)
    assert fingerprint(resolve_model(f"models:/{NAME}@champion", place.uri)) == fingerprint(best)
    summary = result.summary().splitlines()
    assert summary[0] == "das-demo version 1 promoted; champion is version 1"
    assert any("MPJPE 90 mm is better than the mean pose's 150 mm" in line for line in summary)
    assert summary[-1] == "  terms of its training data: research only"


def test_a_version_lies_in_its_training_run(place):
    best = place.trained("lineage")
    result = promote(place.config(best, place.scored(best)))
    version = mlflow_client(place.uri).get_model_version(NAME, str(result.version))
    assert version.run_id == json.loads((best.parent / "finished.json").read_text())["run_id"]
    assert version.tags["das.skeleton"] == "panoptic15" and "research only" in version.tags["das.data.terms"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mpjpe_mm": 95.0}, "MPJPE 95 mm is not better than the champion's 90 mm"),
        ({"mpjpe_mm": 80.0, "recall": 0.94, "precision": 0.95}, "recall 0.94 is not better"),
        ({"mpjpe_mm": 1.0, "recall": 1.0, "precision": 1.0, "train_fit": True}, "train-fit"),
        ({"mpjpe_mm": 1.0, "recall": 1.0, "precision": 1.0, "data_fingerprint": "d2"}, "data_fingerprint is d2"),
        ({"mpjpe_mm": math.nan, "baseline_mpjpe_mm": math.nan, "recall": 0.0, "precision": 0.0}, "nobody was matched"),
    ],
)
def test_a_worse_or_incomparable_candidate_is_kept_without_the_alias_and_told_why(place, change, reason):
    champion, candidate = place.trained("champion"), place.trained("candidate", seed=1)
    promote(place.config(champion, place.scored(champion)))
    result = promote(place.config(candidate, place.scored(candidate, **change)))
    assert not result.champion and (result.version, result.holder) == (2, 1)
    assert champion_version(place.uri, NAME) == 1
    lines = result.summary().splitlines()
    assert lines[0] == "das-demo version 2 not promoted; champion is version 1"
    assert any(reason in line for line in lines[1:]), lines
    assert reason in mlflow_client(place.uri).get_model_version(NAME, "2").description


def test_a_better_candidate_takes_over(place):
    first, second = place.trained("first"), place.trained("second", seed=1)
    promote(place.config(first, place.scored(first)))
    better = place.scored(second, mpjpe_mm=80.0, recall=0.96, precision=0.91)
    assert promote(place.config(second, better)).holder == 2


def test_promoting_the_champion_again_changes_nothing(place):
    best = place.trained("again")
    config = place.config(best, place.scored(best))
    first, second = promote(config), promote(config)
    assert second.champion and second.version == first.version and place.versions() == 1
    assert "champion already" in second.summary()


def test_a_refused_version_can_be_judged_again_by_a_milder_gate(place):
    best = place.trained("mild")
    config = place.config(best, place.scored(best, recall=0.5))
    assert promote(config).holder is None and "champion is nobody" in promote(config).summary()
    assert promote(replace(config, gate=Gate(min_recall=0.4))).champion and place.versions() == 1


def test_scores_are_found_by_file_folder_and_run(place):
    best = place.trained("found")
    path = place.scored(best)
    with Tracker.open(place.uri, "das", "evaluation/found", place.folder / "evaluations" / "found") as tracker:
        tracker.log_artifact(path)
    for where in (path, path.parent, tracker.handle.run_id):
        assert promote(place.config(best, where)).champion


def test_a_checkpoint_among_a_runs_artifacts_is_promoted_by_its_uri(place):
    best = place.trained("uri")
    with Tracker.open(place.uri, "das", "uri", place.folder / "uri") as tracker:
        for file in best.iterdir():
            if file.name != "training_state.pt":
                tracker.log_artifact(file, "checkpoint")
    run_id = tracker.handle.run_id
    assert promote(place.config(f"runs:/{run_id}/checkpoint", place.scored(best))).champion
    assert mlflow_client(place.uri).get_model_version(NAME, "1").run_id == run_id


def test_what_does_not_belong_together_is_refused_and_nothing_is_registered(place):
    best, other = place.trained("one"), place.trained("other", seed=1)
    muco = place.trained("muco", replace(MODEL, skeleton=MUCO21))
    lonely = write_checkpoint(place.folder / "lonely")
    scores, nowhere = place.scored(best), str(place.folder / "nowhere")
    for change, parts in (
        ({"model": nowhere}, (nowhere, "checkpoint folder")),
        ({"scores": nowhere}, (nowhere, "scores.json")),
        ({"scores": str(best / "config.json")}, ("unknown fields",)),
        ({"scores": "0" * 32}, ("0" * 32, "is not in")),
        ({"model": str(other)}, (fingerprint(other)[:12], fingerprint(best)[:12])),
        ({"model": str(muco), "scores": str(place.scored(muco))}, ("muco21", "das-demo", "panoptic15")),
        ({"model": str(lonely), "scores": str(place.scored(lonely))}, ("lonely", "finished.json", "--run")),
        ({"run": "0" * 32}, ("0" * 32, "is not in")),
        ({"scores": str(place.scored(best, "on val", split="synthetic/val"))}, ("synthetic/val", "test")),
    ):
        refused(lambda c=change: promote(replace(place.config(best, scores), **c)), *parts)
    assert place.versions() == 0


def test_the_command_ends_with_1_and_the_reasons_when_refused(place, capsys):
    best = place.trained("command")

    def call(scores):
        arguments = ["--model", str(best), "--scores", str(scores), "--name", NAME]
        main(["promote", *arguments, "--cluster.storage", str(place.folder)])

    with pytest.raises(SystemExit) as exit_:
        call(place.scored(best, mpjpe_mm=150.0))
    assert exit_.value.code == 1 and "not better than the mean pose's" in capsys.readouterr().out
    call(place.scored(best))
    assert "promoted; champion is version 1" in capsys.readouterr().out
    assert registry.CHAMPION == "champion"
