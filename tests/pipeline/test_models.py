"""Fingerprints of checkpoints, and model URIs that lead to exactly the registered files."""

import numpy as np
import pytest

from das.checkpoint import save_training_state
from das.predictor import Predictor
from pipeline.evaluation.scores import SCORES_FILE
from pipeline.infra.files import read_json
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.models import FINGERPRINT_TAG, fingerprint, resolve_model, run_file
from tests.pipeline.checkpoints import finished_run, model_named, point_champion_at, write_checkpoint


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint folder for a seed."""
    return lambda seed: write_checkpoint(tmp_path / f"checkpoint-{seed}", seed)


@pytest.fixture
def trained(store, tmp_path):
    """A finished training run for one test."""
    return finished_run(store, tmp_path.name, tmp_path / "run")


def test_the_training_state_is_not_part_of_the_fingerprint(checkpoint):
    folder = checkpoint(1)
    before = fingerprint(folder)
    save_training_state(folder, {"epoch": 99})
    assert fingerprint(folder) == before
    (folder / "training_index.parquet").write_bytes(b"keys")
    assert fingerprint(folder) != before


def test_a_predictor_is_loaded_from_every_form_of_uri(store, checkpoint, trained):
    folder = checkpoint(1)
    version = model_named(store, "das-load").register(trained.handle.run_id, folder)
    assert model_named(store, "das-load").champion() is None
    point_champion_at(store, "das-load", version)
    assert model_named(store, "das-load").champion() == version
    path = MlflowStore(store).client().get_model_version("das-load", str(version)).source
    image = np.zeros((72, 128, 3), np.uint8)
    for uri in ("models:/das-load@champion", f"models:/das-load/{version}", path, str(folder)):
        assert path.startswith("runs:/")
        assert Predictor.from_folder(resolve_model(uri, store)).predict(image).people is not None


def test_changed_files_of_a_version_are_refused(store, checkpoint, trained):
    version = model_named(store, "das-tampered").register(trained.handle.run_id, checkpoint(1))
    stored = resolve_model(f"models:/das-tampered/{version}", store) / "config.json"
    stored.write_text(stored.read_text().replace("0.3", "0.2"))
    with pytest.raises(ValueError, match="its files were changed"):
        resolve_model(f"models:/das-tampered/{version}", store)


@pytest.mark.slow
def test_versions_of_a_server_are_downloaded_once_and_checked_each_time(mlflow_server, checkpoint, tmp_path):
    uri, folder, cache = mlflow_server.uri, checkpoint(1), tmp_path / "cache"
    tracker = finished_run(uri, "training", tmp_path / "run")
    version = model_named(uri, "das-remote").register(tracker.handle.run_id, folder)
    point_champion_at(uri, "das-remote", version)
    loaded = resolve_model("models:/das-remote@champion", uri, cache)
    assert loaded == cache / fingerprint(folder) and fingerprint(loaded) == fingerprint(folder)
    written = loaded.stat().st_mtime_ns
    assert resolve_model(f"models:/das-remote/{version}", uri, cache).stat().st_mtime_ns == written
    source = MlflowStore(uri).client().get_model_version("das-remote", str(version)).source
    assert fingerprint(resolve_model(source, uri, cache)) == fingerprint(folder)
    (loaded / "config.json").write_text((loaded / "config.json").read_text().replace("0.3", "0.2"))
    with pytest.raises(ValueError, match="its files were changed"):
        resolve_model("models:/das-remote@champion", uri, cache)
    assert not list(cache.glob("download-*"))
    mlflow_server.stop()
    with pytest.raises(ConnectionError, match="MLflow does not answer"):
        resolve_model("models:/das-remote/77", uri, cache)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/das-none@champion", "no registered model 'das-none'; there are: .*das-known"),
        ("models:/das-known@chmpion", r"model 'das-known' has no alias 'chmpion'; there are: champion \(version 1\)"),
        ("models:/das-known/9", "model 'das-known' has no version 9; there are: 1$"),
        ("models:/das-known", "wanted models:/NAME@ALIAS"),
        ("model:/bucket/model", "wanted models:/NAME@ALIAS"),
        ("runs:/0123/checkpoint", "run '0123' is not in sqlite"),
        ("runs:/RUN/../../secret", "leads out of its artifacts"),
        ("runs:/RUN//etc", "leads out of its artifacts"),
        ("runs:/RUN/nothing", "has no artifact folder 'nothing'; it has: checkpoints"),
        ("/no/such/folder", "/no/such/folder is no folder"),
    ],
)
def test_the_error_for_a_wrong_uri_lists_what_exists(store, checkpoint, trained, uri, message):
    client = MlflowStore(store).client()
    if "das-known" not in [model.name for model in client.search_registered_models()]:
        folder = checkpoint(1)
        point_champion_at(store, "das-known", model_named(store, "das-known").register(trained.handle.run_id, folder))
    run = client.get_model_version("das-known", "1").run_id
    with pytest.raises(ValueError, match=message) as caught:
        resolve_model(uri.replace("RUN", run), store)
    assert "\n" not in str(caught.value)


def test_a_uri_needs_the_address_of_its_store():
    with pytest.raises(ValueError, match="needs tracking_uri"):
        resolve_model("models:/das-x@champion")


def test_a_fingerprint_that_is_a_path_is_refused(store, checkpoint, trained):
    version = model_named(store, "das-led").register(trained.handle.run_id, checkpoint(1))
    MlflowStore(store).client().set_model_version_tag("das-led", str(version), FINGERPRINT_TAG, "../../elsewhere")
    with pytest.raises(ValueError, match="wanted 64 hex digits"):
        resolve_model(f"models:/das-led/{version}", store)


def test_a_version_without_a_fingerprint_is_refused(store, trained):
    client = MlflowStore(store).client()
    client.create_registered_model("das-foreign")
    client.create_model_version("das-foreign", f"runs:/{trained.handle.run_id}/x", trained.handle.run_id)
    with pytest.raises(ValueError, match="not registered by"):
        resolve_model("models:/das-foreign/1", store)


def test_a_file_is_copied_from_a_run_and_its_absence_named(store, trained, tmp_path):
    run = trained.handle.run_id
    with pytest.raises(ValueError, match="has no artifact scores.json"):
        run_file(MlflowStore(store), run, SCORES_FILE, tmp_path)
    trained.log_json(SCORES_FILE, {"recall": 0.9})
    assert read_json(run_file(MlflowStore(store), run, SCORES_FILE, tmp_path)) == {"recall": 0.9}
