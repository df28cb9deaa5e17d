"""Promotion of checkpoints: decisions, aliases, refused inputs, competing processes; on real stores, without Ray."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from das.model_info import Origin, load_info
from das.skeleton import MUCO21, Skeleton
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.rescore import rescore
from pipeline.infra.files import write_json
from pipeline.models import fingerprint, resolve_model
from pipeline.registry.champion_lock import champion_lock, queue_name
from pipeline.registry.config import DefaultGate, History, RegistryConfig, Rollback
from pipeline.registry.gate import Gate
from pipeline.registry.promote import promote
from pipeline.registry.queries import run_command
from pipeline.tracking.tracker import Tracker
from tests.pipeline.evaluation.evaluation_cases import write_prepared
from tests.pipeline.registry.promotion_cases import (
    MODEL,
    NAME,
    Place,
    aliases,
    checkpoint_of,
    truth_of,
    write_evaluation,
)

PROJECT = Path(__file__).resolve().parents[3]


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def count(place):
    return len(place.store.client().search_model_versions(f"name = '{NAME}'"))


# ---- the first version ----


def test_a_good_first_version_becomes_champion_and_can_be_loaded(place):
    config = place.candidate("first", 2.0)
    result = promote(config)
    assert result.champion and result.verdict.passed and (result.version, result.champion_version) == (1, 1)
    assert fingerprint(resolve_model(f"models:/{NAME}@champion", place.uri)) == fingerprint(config.model)
    lines = result.summary().splitlines()
    assert lines[0] == "das-demo version 1 promoted; champion is version 1"
    for part in ("0.9 of the mean pose's", "the scores of the evaluation again", "12 evaluated images"):
        assert any(part in line for line in lines), part
    assert lines[-1] == "  terms of its training data: research only"
    assert aliases(place) == {"champion": 1}


def test_a_version_belongs_to_its_training_run_and_has_lineage_verdict_and_predictions(place):
    config = place.candidate("lineage", 2.0)
    promote(config)
    version = place.store.client().get_model_version(NAME, "1")
    assert version.run_id == json.loads((Path(config.model).parent / "finished.json").read_text())["run_id"]
    assert version.tags["das.skeleton"] == "panoptic15" and "research only" in version.tags["das.data.terms"]
    assert version.description.startswith("**Promoted**") and "- passed, artefact:" in version.description
    assert json.loads(version.tags["das.gate"])["min_f1"] == 0.85
    kept = place.model.version("champion").predictions()
    assert kept.provenance.model_fingerprint == fingerprint(config.model)


def test_a_poor_first_version_is_refused_and_a_gate_file_changes_the_conditions(place, tmp_path):
    config = place.candidate("mild", 20.0)
    result = promote(config)
    assert result.champion_version is None and "no version is champion" in result.summary()
    assert any(
        "MPJPE with misses" in reason and "0.9 of the mean pose's" in reason for reason in result.verdict.reasons
    )
    assert aliases(place) == {"challenger": 1}  # its files load and reproduce its scores, but it is not champion
    gate_file = tmp_path / "gate.json"
    write_json(gate_file, {"min_recal": 0.5})
    refused(lambda: promote(replace(config, gate=str(gate_file))), "gate.json", "min_recal", "known: protocol")
    good = place.candidate("good", 2.0)
    write_json(gate_file, {"min_f1": 1.0})
    assert not promote(replace(good, gate=str(gate_file))).champion  # nothing is above 1
    assert promote(good).champion and count(place) == 2
    assert aliases(place) == {"champion": 2}


def test_scores_computed_again_from_the_predictions_are_accepted_for_promotion(place, tmp_path):
    config = place.candidate("again", 2.0)
    again = str(tmp_path / "rescored")
    rescore(
        EvaluateConfig(
            data=(str(place.prepared),),
            predictions=str(Path(config.scores) / "predictions.parquet"),
            out=again,
            overlays=1,
            worst=1,
        )
    )
    assert promote(replace(config, scores=again)).champion


# ---- any name, any joints, weights from elsewhere ----

OWN = Skeleton("own4", ("neck", "mid_hip", "l_knee", "r_knee"), (("mid_hip", "neck"),), ("mid_hip",))


def test_a_model_of_own_joints_is_promoted_under_a_new_name_whose_versions_keep_its_joint_set(place, tmp_path):
    own = replace(MODEL, skeleton=OWN)
    place.prepared = write_prepared(tmp_path / "own", truth_of(checkpoint_of(tmp_path / "right", config=own)))
    candidate = replace(place.candidate("mine", 2.0, config=own), name="kitchen-4")
    gate = run_command(RegistryConfig(DefaultGate("kitchen-4")))
    assert json.loads(gate) == Gate().to_json()
    assert promote(candidate).summary().splitlines()[0] == "kitchen-4 version 1 promoted; champion is version 1"
    assert load_info(resolve_model("models:/kitchen-4@champion", place.uri)).model.skeleton == OWN
    refused(lambda: promote(replace(candidate, name=NAME)), "predicts the joint set own4, versions of das-demo predict")
    renamed = replace(OWN, joints=("neck", "mid_hip", "l_ankle", "r_ankle"))
    other = replace(place.candidate("other", 2.0, config=replace(MODEL, skeleton=renamed)), name="kitchen-4")
    refused(lambda: promote(other), "own4 (neck, mid_hip, l_ankle, r_ankle), versions of kitchen-4", "l_knee, r_knee)")


def test_imported_weights_are_promoted_with_a_run_of_their_own_and_what_is_not_known_is_said(place):
    origin = Origin("latest.pth", "0" * 64, "panoptic", ("panoptic/train",))
    data = {"sources": ["panoptic"], "fingerprints": [], "terms": ["research only"], "split": "train"}
    imported = checkpoint_of(place.folder / "imported", 2.0, origin=origin, data=data, trained=False)
    (imported / "training_index.parquet").unlink()
    config = place.config(imported, place.evaluated(imported, "imported"))
    assert promote(config).champion and promote(replace(config, name="das-panoptic")).champion
    versions = [place.store.client().get_model_version(name, "1") for name in (NAME, "das-panoptic")]
    assert versions[0].run_id == versions[1].run_id, "one run for one file"
    assert "passed, disjoint from training: the model comes from latest.pth" in versions[0].description
    assert "cannot be checked" in versions[0].description
    assert place.store.client().get_run(versions[0].run_id).data.params["origin.file"] == "latest.pth"


def test_a_name_that_cannot_be_searched_for_is_refused(place):
    refused(lambda: promote(place.config("m", "s", name="das-demo.queue")), "registered name = 'das-demo.queue'")


# ---- against a champion ----


def test_a_better_candidate_becomes_champion_and_worse_and_equal_ones_are_refused_with_reasons(place):
    first, better = place.candidate("first", 2.0), place.candidate("better", 1.0)
    assert promote(first).champion
    result = promote(better)
    assert result.champion and result.champion_version == 2
    reasons = " ".join(result.verdict.reasons)
    assert "mpjpe_with_misses" in reasons and "is better than the champion's" in reasons and "latency" in reasons
    assert "95 %, 12 blocks of frames" in reasons

    worse = promote(place.candidate("worse", 3.0))
    assert not worse.champion and (worse.version, worse.champion_version) == (3, 2)
    assert worse.summary().splitlines()[0] == "das-demo version 3 not promoted; champion is version 2"
    assert any("is not better than the champion's" in reason for reason in worse.verdict.reasons)
    found = place.store.client().get_model_version(NAME, "3")
    assert "is not better than the champion's" in found.description and found.tags["das.verdict"].startswith(
        "refused: "
    )
    assert aliases(place) == {"champion": 2, "challenger": 3}

    equal = promote(place.candidate("equal", 1.0, code="another"))
    assert not equal.champion and equal.version == 4
    assert any("difference +0.00 mm" in reason for reason in equal.verdict.reasons)
    assert aliases(place) == {"champion": 2, "challenger": 4}


def test_promoting_the_champion_again_changes_nothing_but_its_evaluation(place, prepared, tmp_path):
    """A candidate on new data cannot be compared with a champion that was scored on the old data only."""
    old = place.candidate("again", 2.0)
    first, second = promote(old), promote(old)
    assert second.champion and second.version == first.version and count(place) == 1
    assert "champion already" in second.summary()
    new = write_prepared(tmp_path / "new data", truth_of(prepared.parent / "right", sequences=5))
    best = place.trained("better", 1.0)
    config = place.config(best, write_evaluation(best, new, tmp_path / "new scores"))
    result = promote(config)
    assert not result.champion and any("data_fingerprint is" in reason for reason in result.verdict.reasons)
    again = write_evaluation(Path(old.model), new, tmp_path / "old model, new scores")
    assert promote(place.config(old.model, again)).champion
    assert promote(config).champion


def test_no_candidate_is_compared_with_a_champion_that_was_set_without_scores(place):
    first = place.candidate("first", 2.0)
    run = json.loads((Path(first.model).parent / "finished.json").read_text())["run_id"]
    number = place.model.register(run, first.model)
    place.store.client().set_registered_model_alias(NAME, "champion", str(number))
    result = promote(place.candidate("better", 1.0))
    assert not result.champion and "is champion but was never scored" in result.summary()


# ---- what a candidate is, not what it scores ----


def test_changed_registered_files_are_refused_however_good_the_scores(place):
    first, better = place.candidate("first", 2.0), place.candidate("better", 1.0)
    promote(first)
    run = json.loads((Path(better.model).parent / "finished.json").read_text())["run_id"]
    number = place.model.register(run, better.model)
    stored = resolve_model(f"models:/{NAME}/{number}", place.uri) / "config.json"
    stored.write_text(stored.read_text().replace('"code_version": "0"', '"code_version": "1"'))
    result = promote(better)
    assert not result.champion and result.version == number and "its files were changed" in result.summary()
    assert aliases(place) == {"champion": 1}  # not even challenger


def test_files_that_do_not_reproduce_their_scores_are_refused(place):
    """Scores and predictions that name the right model but were made by another one."""
    config, other = place.candidate("claimed", 3.0), place.trained("other", 1.0)
    foreign = place.evaluated(other)
    found = PredictionSet.load(foreign / "predictions.parquet")
    mark = fingerprint(config.model)
    replace(found, provenance=replace(found.provenance, model_fingerprint=mark)).save(foreign / "predictions.parquet")
    scores = json.loads((foreign / "scores.json").read_text())
    write_json(foreign / "scores.json", {**scores, "model_fingerprint": mark})
    result = promote(replace(config, scores=str(foreign)))
    assert not result.champion and "the registered files give on 8 images mpjpe_with_misses" in result.summary()
    assert "instead of" in result.summary() and aliases(place) == {}


def test_a_model_that_was_trained_on_the_evaluated_images_is_refused(place, prepared):
    seen = truth_of(prepared.parent / "right")[:2]
    marked = place.trained("marked", 1.0, seen=seen)
    result = promote(place.config(marked, place.evaluated(marked, train_fit=True)))
    assert not result.champion and "train-fit" in result.summary()
    unmarked = place.trained("unmarked", 1.0, seen=seen, code="1")
    found = promote(place.config(unmarked, place.evaluated(unmarked)))
    assert not found.champion and "the model was trained on 2 of 12 images" in found.summary()
    assert aliases(place) == {"challenger": 1}


def test_inputs_that_do_not_belong_together_are_refused_and_nothing_is_registered(place, prepared):
    config, other = place.candidate("one", 2.0), place.trained("other", 1.0)
    best, scores, nowhere = Path(config.model), Path(config.scores), str(place.folder / "nowhere")
    no_run = checkpoint_of(place.folder / "no_run", 1.0)
    muco = place.trained("muco", config=replace(MODEL, skeleton=MUCO21))
    muco_scores = place.folder / "evaluations" / "muco"
    shutil.copytree(scores, muco_scores)
    as_muco = json.loads((scores / "scores.json").read_text()) | {"model_fingerprint": fingerprint(muco)}
    write_json(muco_scores / "scores.json", as_muco)

    def copied(name, **changes):
        folder = place.folder / "evaluations" / name
        shutil.copytree(scores, folder)
        write_json(folder / "scores.json", json.loads((scores / "scores.json").read_text()) | changes)
        return folder

    bare, better = copied("bare"), copied("better", mpjpe_mm=1.0)
    (bare / "predictions.parquet").unlink()
    moved = copied("moved")
    write_json(moved / "report.json", {"data": {"folders": [nowhere]}})
    for change, parts in (
        ({"model": nowhere}, (nowhere, "checkpoint folder")),
        ({"scores": nowhere}, (nowhere, "scores.json")),
        ({"scores": "0" * 32}, ("0" * 32, "is not in")),
        ({"scores": str(bare)}, ("predictions.parquet", "no such file")),
        ({"scores": str(moved)}, (nowhere, "--data")),
        ({"scores": str(better)}, ("mpjpe_mm = 1.0, but its predictions give", "--threshold")),
        ({"scores": str(copied("on val", split="panoptic/val"))}, ("panoptic/val", "test")),
        ({"model": str(other)}, (fingerprint(other)[:12], fingerprint(best)[:12])),
        ({"model": str(muco), "scores": str(muco_scores)}, ("muco21", "das-demo", "panoptic15")),
        ({"model": str(no_run), "scores": str(place.evaluated(no_run, "no_run"))}, ("finished.json", "--run")),
        ({"run": "0" * 32}, ("0" * 32, "is not in")),
        ({"gate": nowhere}, (nowhere, "no such file")),
    ):  # fmt: skip
        refused(lambda c=change: promote(replace(config, **c)), *parts)
    assert not place.store.client().search_registered_models()
    assert promote(replace(config, scores=str(moved), data=(str(prepared),))).champion


def test_scores_are_given_by_file_or_run_and_a_checkpoint_by_its_run(place):
    config = place.candidate("found", 2.0)
    with Tracker.open(place.uri, "das", "evaluation/found", config.scores) as evaluation:
        for name in ("scores.json", "report.json", "predictions.parquet"):
            evaluation.log_artifact(Path(config.scores) / name)
    with Tracker.open(place.uri, "das", "uri", place.folder / "uri") as training:
        for file in Path(config.model).iterdir():
            if file.name != "training_state.pt":
                training.log_artifact(file, "checkpoint")
    model = f"runs:/{training.handle.run_id}/checkpoint"
    assert promote(replace(config, model=model, scores=evaluation.handle.run_id)).champion
    assert place.store.client().get_model_version(NAME, "1").run_id == training.handle.run_id
    assert promote(replace(config, scores=str(Path(config.scores) / "scores.json"))).champion


# ---- at the same time ----


def started(config):
    """`das promote` in another process."""
    command = [sys.executable, str(PROJECT / "jobs" / "promote.py"), "--model", config.model, "--scores", config.scores]
    command += ["--name", NAME, "--cluster.storage", config.cluster.storage]
    command += ["--cluster.tracking-uri", config.cluster.tracking_uri]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    out, error = process.communicate(timeout=500)
    assert process.returncode in (0, 1), error
    return process.returncode == 0, out


def contest(place):
    """Champion C, and two candidates that are better than C: A and B, of which A is the better one."""
    assert promote(place.candidate("c", 3.0)).champion
    a, b = place.candidate("a", 1.0), place.candidate("b", 2.0)
    numbers = []
    for config in (a, b):  # registering takes the lock too; here it is done before the contest
        run = json.loads((Path(config.model).parent / "finished.json").read_text())["run_id"]
        numbers.append(place.model.register(run, config.model))
    return a, b, *numbers


def one_after_the_other(place, first, second):
    """Both compare with C and then wait for the lock, which is released when both wait, in this order."""
    client = place.store.client()
    source = client.get_model_version(NAME, "1")

    def wait_for(tickets, process):
        patience = time.monotonic() + 400
        while len(client.search_model_versions(f"name = '{queue_name(NAME)}'")) < tickets:
            assert time.monotonic() < patience and process.poll() is None, process.communicate()
            time.sleep(0.1)

    with champion_lock(place.store, NAME, source.source, source.run_id):
        one = started(first)
        wait_for(2, one)
        two = started(second)
        wait_for(3, two)
    return ended(one), ended(two)


@pytest.mark.slow
def test_of_two_candidates_at_once_the_better_one_becomes_champion_in_either_order(
    place, tmp_path, prepared, empty_store
):
    a, b, best, _ = contest(place)
    (a_won, _), (b_won, why) = one_after_the_other(place, a, b)
    assert a_won and not b_won and f"champion is version {best}" in why
    assert "is not better than the champion's" in why  # compared with A, though C was champion when it started

    other = tmp_path / "other order"
    other.mkdir()
    shutil.copy(empty_store, other / "mlflow.db")
    place = Place(other, prepared)
    a, b, best, second = contest(place)
    (b_won, _), (a_won, _) = one_after_the_other(place, b, a)
    assert a_won and b_won and place.model.champion() == best
    assert [(m.before, m.after) for m in place.model.champion_changes()] == [
        (None, 1),
        (1, second),
        (second, best),
    ]


@pytest.mark.slow
def test_promotion_and_rollback_on_a_server_over_http(mlflow_server, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # downloads are cached there
    place = Place(tmp_path / "here", prepared, mlflow_server.uri)
    place.folder.mkdir()
    a, b, best, second = contest(place)
    processes = [started(a), started(b)]  # in any order
    (a_won, why_a), (b_won, why_b) = map(ended, processes)
    assert a_won, why_a
    assert place.model.champion() == best and aliases(place)["champion"] == best
    changes = [(change.before, change.after) for change in place.model.champion_changes()]
    assert changes == ([(None, 1), (1, second), (second, best)] if b_won else [(None, 1), (1, best)]), why_b
    assert not place.store.client().search_model_versions(f"name = '{queue_name(NAME)}'")
    equal = promote(place.candidate("equal", 1.0, code="another"))
    assert not equal.champion and "difference +0.00 mm" in equal.summary()
    run_command(RegistryConfig(Rollback(NAME, cluster=a.cluster)))
    assert fingerprint(resolve_model(f"models:/{NAME}@champion", place.uri)) != fingerprint(a.model)
    assert "rollback: not given" in run_command(RegistryConfig(History(NAME, cluster=a.cluster)))
