"""Initial weights are checked before a training starts, wherever they come from, and their absence is said."""

import dataclasses
from pathlib import Path

import pytest
import torch

from das.checkpoint import load_model, save_model
from das.model import DAS
from das.train_step import TrainStep
from pipeline.data.digest import hashes, write_digest
from pipeline.evaluation.train_overlap import TrainingFiles, digest_name
from pipeline.infra.cluster import ClusterConfig
from pipeline.infra.files import copy_folder
from pipeline.training.config import ModelChoice
from pipeline.training.initial_weights import initialise, is_checkpoint
from pipeline.training.job import training_job
from pipeline.training.presets import mupots_presets, panoptic_presets
from tests.pipeline.checkpoints import finished_run, model_named, point_champion_at
from tests.pipeline.training.training_cases import tiny
from tests.pipeline.weights.weight_files import mmpose_file, weights_of
from tests.servers import s3_server


def other_model(prepared, folder, width=16) -> Path:
    """A checkpoint folder of a model of this width."""
    config = tiny(prepared, model=ModelChoice("small", backbone_width=width))
    torch.manual_seed(5)
    save_model(folder, DAS(config.model.build()), training_job(config).info)
    return folder


def known_model(prepared, folder) -> Path:
    """A checkpoint folder of the tiny model that says what images it was trained on."""
    other_model(prepared, folder, width=8)
    (fingerprint,) = load_model(folder)[1].data["fingerprints"]
    write_digest(folder / digest_name(fingerprint), [hashes(["films/a/0/0"], ["0" * 64])])
    return folder


def starts_from(config, folder):
    """The training's job, after its initial weights are those of the folder and their digests reach checkpoints."""
    job = training_job(config)
    step = TrainStep(job.info.model)
    initialise(step, job.config.pretrained, job.config.cluster.tracking_uri, start_at_mean=True, batches=())
    wanted = load_model(folder)[0].state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in step.model.state_dict().items())
    return job


def test_initial_weights_of_another_architecture_are_refused(prepared, tmp_path):
    wide = other_model(prepared, tmp_path / "wide")
    with pytest.raises(ValueError, match=r"wide/model.safetensors is of another architecture, \d+ tensors differ"):
        training_job(tiny(prepared, pretrained=str(wide)))


def test_a_training_starts_from_a_registered_model_and_keeps_its_digests(prepared, tmp_path):
    folder, uri = known_model(prepared, tmp_path / "start"), f"sqlite:///{tmp_path}/mlflow.db"
    run = finished_run(uri, "first", tmp_path / "first").handle.run_id
    point_champion_at(uri, "das-start", model_named(uri, "das-start").register(run, folder))
    name = next((tmp_path / "mlartifacts").rglob("checkpoints/*")).name
    cluster = ClusterConfig(storage=str(tmp_path), tracking_uri=uri)
    for i, pretrained in enumerate(("models:/das-start@champion", f"runs:/{run}/checkpoints/{name}")):
        job = starts_from(tiny(prepared, pretrained=pretrained, cluster=cluster), folder)
        assert job.settings()["pretrained"] == pretrained.replace("@champion", "/1"), "an alias may move later"
        (copied := tmp_path / f"copied{i}").mkdir()
        TrainingFiles(job.trained_on).copy_to(copied)
        assert [path.name for path in copied.iterdir()] == [file.name for file in job.trained_on]


@pytest.mark.slow
def test_a_training_starts_from_folders_and_files_in_object_storage(prepared, tmp_path, monkeypatch, capsys):
    folder = known_model(prepared, tmp_path / "start")
    mspn = tiny(prepared, model=ModelChoice("release_panoptic", backbone_width=8))
    state = weights_of(mspn.model.build())
    (tmp_path / "files").mkdir()
    mmpose_file(tmp_path / "files" / "mspn.pth", state)
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("bucket")
        copy_folder(folder, "s3://bucket/start")
        copy_folder(tmp_path / "files", "s3://bucket/files")
        starts_from(tiny(prepared, pretrained="s3://bucket/start"), folder)
        capsys.readouterr()
        job = training_job(dataclasses.replace(mspn, pretrained="s3://bucket/files/mspn.pth"))
        assert "backbone mspn (width 8, 2 stages) starts from s3://bucket/files/mspn.pth" in capsys.readouterr().out
        step = TrainStep(job.info.model)
        initialise(step, job.config.pretrained, None, start_at_mean=False, batches=())
    assert all(torch.equal(step.model.backbone.state_dict()[name], value) for name, value in state.items())


@pytest.mark.parametrize("choose", [panoptic_presets, mupots_presets])
def test_the_presets_with_a_large_backbone_say_that_it_starts_from_random_weights(prepared, tmp_path, capsys, choose):
    said = {}
    for name, (_, config) in choose().items():
        training_job(dataclasses.replace(config, data=(str(prepared),), workers=1))
        said[name] = "starts from random weights" in (line := capsys.readouterr().out)
        assert not said[name] or ("--pretrained" in line and line.count("\n") == 1)
    assert said == {name: name != "small" for name in said} and len(said) >= 3
    mspn = tiny(prepared, model=ModelChoice("release_panoptic", backbone_width=8))
    file = mmpose_file(tmp_path / "mspn.pth", weights_of(mspn.model.build()))
    training_job(dataclasses.replace(mspn, pretrained=str(file)))
    assert "random" not in capsys.readouterr().out


def test_what_is_a_checkpoint_and_what_a_file_follows_from_the_address(tmp_path):
    checkpoints = (str(tmp_path), "s3://bucket/folder", "models:/a@b", "runs:/0/checkpoint")
    files = (
        "w.pth",
        "https://example.org/w.pth",
        "https://example.org/w",
        "s3://bucket/w.safetensors",
        "s3://b/w.pt?a=b",
    )
    assert all(map(is_checkpoint, checkpoints)) and not any(map(is_checkpoint, files))
