"""A checkpoint becomes a version and, if the gate lets it, champion; on real stores and evaluations, without Ray."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from das.skeleton import MUCO21
from pipeline.cli import main
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.rescore import rescore
from pipeline.infra.files import write_json
from pipeline.infra.mlflow_client import mlflow_client
from pipeline.models import fingerprint, resolve_model
from pipeline.registry import versions
from pipeline.registry.champion_lock import champion_lock, queue_name
from pipeline.registry.models_store import champion_version, register
from pipeline.registry.promote import promote
from pipeline.registry.queries import History, RegistryConfig, Rollback, ask
from pipeline.tracking.tracker import Tracker
from tests.pipeline.evaluation.evaluation_cases import write_prepared
from tests.pipeline.registry.promotion_cases import (
    MODEL,
    NAME,
    Place,
    checkpoint_of,
    prepare,
    truth_of,
    write_evaluation,
)

PROJECT = Path(__file__).resolve().parents[3]


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def aliases(place):
    return {k: int(v) for k, v in mlflow_client(place.uri).get_registered_model(NAME).aliases.items()}


def count(place):
    return len(mlflow_client(place.uri).search_model_versions(f"name = '{NAME}'"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """An sqlite store with its tables, which cost seconds to make."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow_client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def place(tmp_path, prepared, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Place(tmp_path, prepared)


# ---- the first version ----


def test_a_good_first_version_becomes_champion_and_can_be_loaded(place):
    config = place.candidate("first", 2.0)
    result = promote(config)
    assert result.champion and result.verdict.passed and (result.version, result.holder) == (1, 1)
    assert fingerprint(resolve_model(f"models:/{NAME}@champion", place.uri)) == fingerprint(config.model)
    lines = result.summary().splitlines()
    assert lines[0] == "das-demo version 1 promoted; champion is version 1"
    for part in ("is better than the mean pose's", "the scores of the evaluation again", "12 evaluated images"):
        assert any(part in line for line in lines), part
    assert lines[-1] == "  terms of its training data: research only"
    assert aliases(place) == {"champion": 1}


def test_a_version_lies_in_its_training_run_with_its_lineage_verdict_and_predictions(place):
    config = place.candidate("lineage", 2.0)
    promote(config)
    version = mlflow_client(place.uri).get_model_version(NAME, "1")
    assert version.run_id == json.loads((Path(config.model).parent / "finished.json").read_text())["run_id"]
    assert version.tags["das.skeleton"] == "panoptic15" and "research only" in version.tags["das.data.terms"]
    assert version.description.startswith("**Promoted**") and "- passed, artefact:" in version.description
    assert json.loads(version.tags["das.gate"])["min_recall"] == 0.9
    kept = versions.read_predictions(place.uri, versions.read_version(place.uri, NAME, "champion"))
    assert kept.provenance.model_fingerprint == fingerprint(config.model)


def test_a_poor_first_version_is_refused_judged_again_by_a_milder_gate_and_stays_one_version(place, tmp_path):
    config = place.candidate("mild", 20.0)
    result = promote(config)
    assert result.holder is None and "champion is nobody" in result.summary()
    assert any("is not better than the mean pose's" in reason for reason in result.verdict.reasons)
    assert aliases(place) == {"challenger": 1}  # it loads, it gives its scores again, it is not champion
    strange = tmp_path / "gate.json"
    write_json(strange, {"min_recal": 0.5})
    refused(lambda: promote(replace(config, gate=str(strange))), "gate.json", "min_recal", "known: protocol")
    good = place.candidate("good", 2.0)
    write_json(strange, {"min_recall": 1.0})
    assert not promote(replace(good, gate=str(strange))).champion  # nothing is above 1
    assert promote(good).champion and count(place) == 2
    assert aliases(place) == {"champion": 2}


def test_scores_made_again_from_the_predictions_alone_are_promoted_like_the_first_ones(place, tmp_path):
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


# ---- against a champion ----


def test_a_better_candidate_takes_over_and_worse_and_equal_ones_are_told_why(place):
    first, better = place.candidate("first", 2.0), place.candidate("better", 1.0)
    assert promote(first).champion
    result = promote(better)
    assert result.champion and result.holder == 2
    reasons = " ".join(result.verdict.reasons)
    assert "mpjpe_with_misses" in reasons and "is better than the champion's" in reasons and "latency" in reasons
    assert "95 %, 12 blocks of frames" in reasons

    worse = promote(place.candidate("worse", 3.0))
    assert not worse.champion and (worse.version, worse.holder) == (3, 2)
    assert worse.summary().splitlines()[0] == "das-demo version 3 not promoted; champion is version 2"
    assert any("is not better than the champion's" in reason for reason in worse.verdict.reasons)
    told = mlflow_client(place.uri).get_model_version(NAME, "3")
    assert "is not better than the champion's" in told.description and told.tags["das.verdict"].startswith("refused: ")
    assert aliases(place) == {"champion": 2, "challenger": 3}

    equal = promote(place.candidate("equal", 1.0, code="another"))
    assert not equal.champion and equal.version == 4
    assert any("difference +0.00 mm" in reason for reason in equal.verdict.reasons)
    assert aliases(place) == {"champion": 2, "challenger": 4}


def test_promoting_the_champion_again_changes_nothing_but_its_evaluation(place, prepared, tmp_path):
    """On new data nobody can be compared with a champion that was scored on the old ones: it is scored there first."""
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


def test_a_champion_that_somebody_else_crowned_is_compared_with_by_nobody(place):
    first = place.candidate("first", 2.0)
    run = json.loads((Path(first.model).parent / "finished.json").read_text())["run_id"]
    number = register(place.uri, NAME, run, first.model)
    mlflow_client(place.uri).set_registered_model_alias(NAME, "champion", str(number))
    result = promote(place.candidate("better", 1.0))
    assert not result.champion and "is champion but was never scored" in result.summary()


# ---- what a candidate is, not what it scores ----


def test_a_tampered_artefact_is_refused_whatever_it_scores(place):
    first, better = place.candidate("first", 2.0), place.candidate("better", 1.0)
    promote(first)
    run = json.loads((Path(better.model).parent / "finished.json").read_text())["run_id"]
    number = register(place.uri, NAME, run, better.model)
    stored = resolve_model(f"models:/{NAME}/{number}", place.uri) / "config.json"
    stored.write_text(stored.read_text().replace('"code_version": "0"', '"code_version": "1"'))
    result = promote(better)
    assert not result.champion and result.version == number and "its files were changed" in result.summary()
    assert aliases(place) == {"champion": 1}  # not even challenger


def test_files_that_do_not_give_their_scores_are_refused(place):
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
    told = promote(place.config(marked, place.evaluated(marked, train_fit=True)))
    assert not told.champion and "train-fit" in told.summary()
    silent = place.trained("silent", 1.0, seen=seen, code="1")
    found = promote(place.config(silent, place.evaluated(silent)))  # says nothing of it
    assert not found.champion and "the model was trained on 2 of 12 images" in found.summary()
    assert aliases(place) == {"challenger": 1}


def test_what_does_not_belong_together_is_refused_and_nothing_is_registered(place, prepared):
    config, other = place.candidate("one", 2.0), place.trained("other", 1.0)
    best, scores, nowhere = Path(config.model), Path(config.scores), str(place.folder / "nowhere")
    lonely = checkpoint_of(place.folder / "lonely", 1.0)
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
        ({"model": str(lonely), "scores": str(place.evaluated(lonely, "lonely"))}, ("finished.json", "--run")),
        ({"run": "0" * 32}, ("0" * 32, "is not in")),
        ({"gate": nowhere}, (nowhere, "no such file")),
    ):  # fmt: skip
        refused(lambda c=change: promote(replace(config, **c)), *parts)
    assert not mlflow_client(place.uri).search_registered_models()
    assert promote(replace(config, scores=str(moved), data=(str(prepared),))).champion


def test_scores_are_found_by_file_and_run_and_a_checkpoint_by_its_run(place):
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
    assert mlflow_client(place.uri).get_model_version(NAME, "1").run_id == training.handle.run_id
    assert promote(replace(config, scores=str(Path(config.scores) / "scores.json"))).champion


# ---- the way back, and what is told ----


def call(place, *arguments, capsys):
    main([*arguments, "--cluster.storage", str(place.folder), "--cluster.tracking-uri", place.uri])
    return capsys.readouterr().out


def test_rollback_restores_exactly_the_version_before_and_the_history_tells_all(place, capsys):
    marks = []
    for name, off in (("a", 3.0), ("b", 2.0), ("c", 1.0)):
        config = place.candidate(name, off)
        assert promote(config).champion
        marks.append(fingerprint(config.model))
    refused_one = promote(place.candidate("d", 4.0))
    assert not refused_one.champion

    told = call(place, "registry", "rollback", NAME, "--reason", "rain", capsys=capsys)
    assert told == "das-demo: champion is version 2 again, instead of version 3\n"
    assert fingerprint(resolve_model(f"models:/{NAME}@champion", place.uri)) == marks[1]
    call(place, "registry", "rollback", NAME, capsys=capsys)
    assert fingerprint(resolve_model(f"models:/{NAME}@champion", place.uri)) == marks[0]
    call(place, "registry", "rollback", NAME, "--to", "3", capsys=capsys)
    assert aliases(place) == {"champion": 3, "challenger": 4}

    history = call(place, "registry", "history", NAME, capsys=capsys)
    lines = history.splitlines()
    assert lines[0] == "das-demo: challenger is version 4, champion is version 3"
    moves = [line.split("  ")[2] for line in lines[lines.index("changes of champion:") + 1 :]]
    assert moves == ["nobody -> 1", "1 -> 2", "2 -> 3", "3 -> 2", "2 -> 1", "1 -> 3"]
    assert "rollback: rain" in history and history.count("refused: ") == 1

    diff = call(place, "registry", "diff", NAME, "1", "champion", capsys=capsys)
    assert diff.startswith("das-demo version 1 -> version 3\n") and "trained by run" in diff
    assert "mpjpe_with_misses: difference -" in diff and "by joint, mm:" in diff


def test_a_rollback_that_leads_nowhere_moves_nothing(place, capsys):
    def refused_with(line, *arguments):
        with pytest.raises(SystemExit) as ended:
            call(place, "registry", *arguments, capsys=capsys)
        assert ended.value.code == 2 and line in capsys.readouterr().err

    refused_with("das-demo has no champion, so nothing to roll back", "rollback", NAME)
    for name, off in (("a", 2.0), ("b", 1.0)):
        assert promote(place.candidate(name, off)).champion
    promote(place.candidate("c", 3.0))
    refused_with("version 3 of das-demo was never champion, wanted one of [1, 2]", "rollback", NAME, "--to", "3")
    refused_with("version 2 of das-demo is the champion already", "rollback", NAME, "--to", "2")
    refused_with("no version 9; there are: 1, 2, 3", "rollback", NAME, "--to", "9")
    refused_with("has no alias 'chmpion'", "diff", NAME, "1", "chmpion")
    stored = resolve_model(f"models:/{NAME}/1", place.uri) / "config.json"
    stored.write_text(stored.read_text() + " ")
    refused_with("its files were changed", "rollback", NAME)
    assert aliases(place)["champion"] == 2
    assert len(versions.read_moves(place.uri, NAME)) == 2


def test_the_gate_that_is_printed_can_be_given_back(place, tmp_path, capsys):
    main(["registry", "gate", NAME])
    (tmp_path / "gate.json").write_text(capsys.readouterr().out)
    config = place.candidate("command", 20.0)
    arguments = ["--model", config.model, "--scores", config.scores, "--name", NAME]
    with pytest.raises(SystemExit) as exit_:
        call(place, "promote", *arguments, "--gate", str(tmp_path / "gate.json"), capsys=capsys)
    assert exit_.value.code == 1 and "not better than the mean pose's" in capsys.readouterr().out
    good = place.candidate("good", 2.0)
    arguments = ["--model", good.model, "--scores", good.scores, "--name", NAME]
    assert "promoted; champion is version 2" in call(place, "promote", *arguments, capsys=capsys)


# ---- at the same time ----


def started(config):
    """`das promote` in a process of its own."""
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
    """Champion C, and two candidates that improve on it: A, which is better than B, and B, which is not than A."""
    assert promote(place.candidate("c", 3.0)).champion
    a, b = place.candidate("a", 1.0), place.candidate("b", 2.0)
    numbers = []
    for config in (a, b):  # registering takes a turn too; here it is over before the contest
        run = json.loads((Path(config.model).parent / "finished.json").read_text())["run_id"]
        numbers.append(register(place.uri, NAME, run, config.model))
    return a, b, *numbers


def one_after_the_other(place, first, second):
    """Both compare with C and then queue behind a turn that ends when both are there, in this order."""
    client = mlflow_client(place.uri)
    source = client.get_model_version(NAME, "1")

    def wait_for(tickets, process):
        patience = time.monotonic() + 400
        while len(client.search_model_versions(f"name = '{queue_name(NAME)}'")) < tickets:
            assert time.monotonic() < patience and process.poll() is None, process.communicate()
            time.sleep(0.1)

    with champion_lock(place.uri, NAME, source.source, source.run_id):
        one = started(first)
        wait_for(2, one)
        two = started(second)
        wait_for(3, two)
    return ended(one), ended(two)


@pytest.mark.slow
def test_two_candidates_at_once_end_with_the_better_one_in_either_order(place, tmp_path, prepared, empty_store):
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
    assert a_won and b_won and champion_version(place.uri, NAME) == best
    assert [(m.before, m.after) for m in versions.read_moves(place.uri, NAME)] == [
        (None, 1),
        (1, second),
        (second, best),
    ]


@pytest.mark.slow
def test_all_of_it_on_a_server_over_http(mlflow_server, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # downloads are cached there
    place = Place(tmp_path / "here", prepared, mlflow_server.uri)
    place.folder.mkdir()
    a, b, best, second = contest(place)
    processes = [started(a), started(b)]  # whoever is faster
    (a_won, why_a), (b_won, why_b) = map(ended, processes)
    assert a_won, why_a
    assert champion_version(place.uri, NAME) == best and aliases(place)["champion"] == best
    moves = [(move.before, move.after) for move in versions.read_moves(place.uri, NAME)]
    assert moves == ([(None, 1), (1, second), (second, best)] if b_won else [(None, 1), (1, best)]), why_b
    assert not mlflow_client(place.uri).search_model_versions(f"name = '{queue_name(NAME)}'")
    equal = promote(place.candidate("equal", 1.0, code="another"))
    assert not equal.champion and "difference +0.00 mm" in equal.summary()
    ask(RegistryConfig(Rollback(NAME, cluster=a.cluster)))
    assert fingerprint(resolve_model(f"models:/{NAME}@champion", place.uri)) != fingerprint(a.model)
    assert "rollback: not given" in ask(RegistryConfig(History(NAME, cluster=a.cluster)))
