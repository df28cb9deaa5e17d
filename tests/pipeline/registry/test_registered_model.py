"""Registering checkpoints as versions: without pickles, once per content, and loaded back file by file."""

import json

import pytest

from pipeline.infra.mlflow_client import MlflowStore
from pipeline.models import fingerprint, resolve_model
from tests.pipeline.checkpoints import CONFIG, finished_run, model_named, write_checkpoint


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


def test_a_registered_checkpoint_comes_back_file_by_file_without_training_state(store, checkpoint, trained):
    folder = checkpoint(1)
    version = model_named(store, "das-files").register(trained.handle.run_id, folder, {"das.note": "x"})
    loaded = resolve_model(f"models:/das-files/{version}", store)
    assert {p.name for p in loaded.iterdir()} == {"model.safetensors", "config.json"}
    for path in loaded.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    found = MlflowStore(store).client().get_model_version("das-files", str(version))
    assert found.run_id == trained.handle.run_id
    expected = {
        "das.code_version": "1.1",
        "das.skeleton": "panoptic15",
        "das.data.sources": '["synthetic"]',
        "das.note": "x",
    }
    assert expected.items() <= found.tags.items()
    assert json.loads(found.tags["das.config"]) == json.loads(json.dumps(CONFIG.to_json()))


def test_the_same_checkpoint_is_one_version_and_another_one_does_not_change_it(store, checkpoint, trained):
    run, first = trained.handle.run_id, checkpoint(1)
    version = model_named(store, "das-same").register(run, first)
    assert model_named(store, "das-same").register(run, first) == version
    assert model_named(store, "das-same").register(run, checkpoint(2)) == version + 1  # of the same run
    assert fingerprint(resolve_model(f"models:/das-same/{version}", store)) == fingerprint(first)


def test_a_pickle_in_the_folder_is_not_registered(store, checkpoint, trained):
    folder = checkpoint(1)
    (folder / "extra.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="extra.pkl: a registered checkpoint holds plain files and no pickle"):
        model_named(store, "das-pickle").register(trained.handle.run_id, folder)


def test_wrong_arguments_of_registering_are_refused(store, checkpoint, trained):
    with pytest.raises(ValueError, match="run 'none' is not in"):
        model_named(store, "das-x").register("none", checkpoint(1))
    with pytest.raises(ValueError, match='registered name = "a\'b"'):
        model_named(store, "a'b").register(trained.handle.run_id, checkpoint(1))
    with pytest.raises(ValueError, match="there is no database"):
        model_named(f"{store}x", "das-x").register(trained.handle.run_id, checkpoint(1))
    assert model_named(store, "das-x").champion() is None
