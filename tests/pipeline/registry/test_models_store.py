"""Versions without pickles, and URIs that lead to exactly the registered files."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from das.checkpoint import ModelInfo, save_model, save_training_state
from das.config import small
from das.model import DAS
from das.predictor import Predictor
from das.recipe import InputSize
from pipeline.evaluation.scores import SCORES_FILE, Scores
from pipeline.infra.mlflow_client import mlflow_client
from pipeline.models import fingerprint, resolve_model
from pipeline.registry.models_store import CHAMPION, champion_version, read_scores, register
from pipeline.tracking.tracker import Tracker

CONFIG = replace(small(), backbone_width=8, fpn_channels=32, update="none", update_layers=0)

SCORES = Scores(
    protocol="strict",
    split="panoptic/test",
    skeleton="panoptic15",
    data_fingerprint="d1",
    model_fingerprint="m1",
    train_fit=False,
    mpjpe_mm=90.0,
    recall=0.95,
    precision=0.9,
    baseline_mpjpe_mm=150.0,
)


# ---- scores ----


def test_scores_round_trip_as_json_with_null_for_nan():
    scores = replace(SCORES, mpjpe_mm=math.nan)
    text = json.dumps(scores.to_json(), allow_nan=False)
    again = Scores.from_json(json.loads(text))
    assert math.isnan(again.mpjpe_mm) and replace(again, mpjpe_mm=1.0) == replace(scores, mpjpe_mm=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recall": 1.5}, "recall = 1.5, wanted nan or 0 to 1"),
        ({"mpjpe_mm": -1.0}, "mpjpe_mm = -1.0"),
        ({"data_fingerprint": ""}, "data_fingerprint = ''"),
        ({"train_fit": "no"}, "train_fit = 'no'"),
        ({"pck": 1.0}, r"unknown fields \['pck'\]"),
    ],
)
def test_bad_scores_are_refused_by_field(change, message):
    with pytest.raises(ValueError, match=message):
        Scores.from_json({**SCORES.to_json(), **change})


def test_missing_fields_of_scores_are_named():
    with pytest.raises(ValueError, match=r"missing fields \['recall'\]"):
        Scores.from_json({k: v for k, v in SCORES.to_json().items() if k != "recall"})


# ---- versions, on a real store ----


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def checkpoint(tmp_path):
    """Makes complete checkpoint folders; equal seeds give equal weights."""

    def make(seed):
        folder = tmp_path / f"checkpoint-{seed}"
        info = ModelInfo(
            model=CONFIG,
            test_size=InputSize(256, 144),
            weights="raw",
            score_threshold=0.3,
            unsupervised_joints=(),
            recipe={},
            data={"sources": ["synthetic"], "fingerprints": ["abc"], "terms": ["none"], "split": "train"},
            code_version=f"1.{seed}",
            mean_pose=tuple((0.0, 0.0, 0.0) for _ in range(CONFIG.n_joints)),
        )
        save_model(folder, DAS(CONFIG), info)
        save_training_state(folder, {"epoch": seed})
        return folder

    return make


@pytest.fixture
def trained(store, tmp_path):
    """A finished training run of this test's own."""
    with Tracker.open(store, "tests", tmp_path.name, tmp_path / "run") as tracker:
        pass
    return tracker


def crown(store, name, version):
    mlflow_client(store).set_registered_model_alias(name, CHAMPION, str(version))


def test_a_registered_checkpoint_comes_back_file_by_file_without_training_state(store, checkpoint, trained):
    folder = checkpoint(1)
    version = register(store, "das-files", trained.handle.run_id, folder, {"das.note": "x"})
    loaded = resolve_model(f"models:/das-files/{version}", store)
    assert {p.name for p in loaded.iterdir()} == {"model.safetensors", "config.json"}
    for path in loaded.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    found = mlflow_client(store).get_model_version("das-files", str(version))
    assert found.run_id == trained.handle.run_id
    expected = {
        "das.code_version": "1.1",
        "das.skeleton": "panoptic15",
        "das.data.sources": '["synthetic"]',
        "das.note": "x",
    }
    assert expected.items() <= found.tags.items()
    assert json.loads(found.tags["das.config"]) == json.loads(json.dumps(CONFIG.to_json()))


def test_a_predictor_is_loaded_from_every_form_of_uri(store, checkpoint, trained):
    folder = checkpoint(1)
    version = register(store, "das-load", trained.handle.run_id, folder)
    assert champion_version(store, "das-load") is None
    crown(store, "das-load", version)
    assert champion_version(store, "das-load") == version
    path = mlflow_client(store).get_model_version("das-load", str(version)).source
    image = np.zeros((72, 128, 3), np.uint8)
    for uri in ("models:/das-load@champion", f"models:/das-load/{version}", path, str(folder)):
        assert path.startswith("runs:/")
        assert Predictor.from_folder(resolve_model(uri, store)).predict(image).people is not None


def test_the_same_checkpoint_is_one_version_and_another_one_does_not_change_it(store, checkpoint, trained):
    run, first = trained.handle.run_id, checkpoint(1)
    version = register(store, "das-same", run, first)
    assert register(store, "das-same", run, first) == version
    assert register(store, "das-same", run, checkpoint(2)) == version + 1  # of the same run
    assert fingerprint(resolve_model(f"models:/das-same/{version}", store)) == fingerprint(first)


def test_changed_files_of_a_version_are_refused(store, checkpoint, trained):
    version = register(store, "das-tampered", trained.handle.run_id, checkpoint(1))
    stored = resolve_model(f"models:/das-tampered/{version}", store) / "config.json"
    stored.write_text(stored.read_text().replace("0.3", "0.2"))
    with pytest.raises(ValueError, match="its files were changed"):
        resolve_model(f"models:/das-tampered/{version}", store)


@pytest.mark.slow
def test_versions_of_a_server_are_downloaded_once_and_checked_each_time(mlflow_server, checkpoint, tmp_path):
    uri, folder, cache = mlflow_server.uri, checkpoint(1), tmp_path / "cache"
    with Tracker.open(uri, "tests", "training", tmp_path / "run") as tracker:
        pass
    version = register(uri, "das-remote", tracker.handle.run_id, folder)
    crown(uri, "das-remote", version)
    loaded = resolve_model("models:/das-remote@champion", uri, cache)
    assert loaded == cache / fingerprint(folder) and fingerprint(loaded) == fingerprint(folder)
    written = loaded.stat().st_mtime_ns
    assert resolve_model(f"models:/das-remote/{version}", uri, cache).stat().st_mtime_ns == written
    source = mlflow_client(uri).get_model_version("das-remote", str(version)).source
    assert fingerprint(resolve_model(source, uri, cache)) == fingerprint(folder)
    (loaded / "config.json").write_text((loaded / "config.json").read_text().replace("0.3", "0.2"))
    with pytest.raises(ValueError, match="its files were changed"):
        resolve_model("models:/das-remote@champion", uri, cache)
    assert not list(cache.glob("download-*"))
    mlflow_server.stop()
    with pytest.raises(ConnectionError, match="MLflow does not answer"):
        resolve_model("models:/das-remote/77", uri, cache)


def test_a_pickle_in_the_folder_is_not_registered(store, checkpoint, trained):
    folder = checkpoint(1)
    (folder / "extra.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="extra.pkl: a registered checkpoint holds plain files and no pickle"):
        register(store, "das-pickle", trained.handle.run_id, folder)


def test_the_training_state_and_its_folder_do_not_count_as_the_model(checkpoint):
    folder = checkpoint(1)
    before = fingerprint(folder)
    save_training_state(folder, {"epoch": 99})
    assert fingerprint(folder) == before
    (folder / "training_index.parquet").write_bytes(b"keys")
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/das-none@champion", "no registered model 'das-none'; there are: .*das-known"),
        ("models:/das-known@chmpion", r"model 'das-known' has no alias 'chmpion'; there are: champion \(version 1\)"),
        ("models:/das-known/9", "model 'das-known' has no version 9; there are: 1$"),
        ("models:/das-known", "wanted models:/NAME@ALIAS"),
        ("s3://bucket/model", "wanted models:/NAME@ALIAS"),
        ("runs:/0123/checkpoint", "run '0123' is not in sqlite"),
        ("runs:/RUN/nothing", "has no artifact folder 'nothing'; it has: checkpoints"),
        ("/no/such/folder", "/no/such/folder is no folder"),
    ],
)
def test_a_wrong_uri_is_answered_with_what_there_is(store, checkpoint, trained, uri, message):
    client = mlflow_client(store)
    if "das-known" not in [model.name for model in client.search_registered_models()]:
        folder = checkpoint(1)
        crown(store, "das-known", register(store, "das-known", trained.handle.run_id, folder))
    run = client.get_model_version("das-known", "1").run_id
    with pytest.raises(ValueError, match=message) as caught:
        resolve_model(uri.replace("RUN", run), store)
    assert "\n" not in str(caught.value)


def test_wrong_arguments_of_registering_are_refused(store, checkpoint, trained):
    with pytest.raises(ValueError, match="run 'none' is not in"):
        register(store, "das-x", "none", checkpoint(1))
    with pytest.raises(ValueError, match='registered name = "a\'b"'):
        register(store, "a'b", trained.handle.run_id, checkpoint(1))
    with pytest.raises(ValueError, match="there is no database"):
        register(f"{store}x", "das-x", trained.handle.run_id, checkpoint(1))
    with pytest.raises(ValueError, match="needs tracking_uri"):
        resolve_model("models:/das-x@champion")
    assert champion_version(store, "das-x") is None


def test_a_version_that_somebody_else_made_is_refused(store, trained):
    client = mlflow_client(store)
    client.create_registered_model("das-foreign")
    client.create_model_version("das-foreign", f"runs:/{trained.handle.run_id}/x", trained.handle.run_id)
    with pytest.raises(ValueError, match="not registered by"):
        resolve_model("models:/das-foreign/1", store)


def test_scores_are_read_from_the_evaluation_run(store, trained):
    with pytest.raises(ValueError, match="has no artifact scores.json"):
        read_scores(store, trained.handle.run_id)
    trained.log_json(SCORES_FILE, SCORES.to_json())
    assert read_scores(store, trained.handle.run_id) == SCORES
