"""Configurations of models, data and trainings: what they build and which values they refuse."""

import dataclasses
import json

import pytest

from das.backbone import ResNet
from das.config import BACKBONE_NAMES
from das.model import DAS
from das.recipe import RECIPES, RecipeConfig
from pipeline import cli
from pipeline.training.config import IngestConfig, ModelChoice, TrainConfig
from pipeline.training.optim_config import OptimConfig
from tests.pipeline.training.training_cases import TINY


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"repeat": (1, 2)}, "repeat has 2 entries, wanted 1"),
        ({"repeat": (0,)}, r"repeat = \(0,\), wanted whole numbers from 1"),
        ({"workers": 0}, "workers = 0, wanted at least 1"),
        ({"name": "a/b"}, "name = 'a/b', wanted 1 to 200 letters"),
        ({"name": ".."}, "name = '..', wanted 1 to 200 letters"),
        ({"model": ModelChoice("small", joints="coco99")}, "coco99"),
        ({"model": ModelChoice("small", update_layers=7)}, "update_layers = 7, wanted 0 to 3"),
    ],
)
def test_bad_values_of_a_training_are_refused_by_name(change, reason):
    with pytest.raises(ValueError, match=reason):
        dataclasses.replace(TINY, data=("a",), **{"repeat": (), **change})


def test_masking_is_a_flag_and_never_of_the_release():
    masks = {recipe: IngestConfig(recipe=recipe).build().mask_people_without_root for recipe in RECIPES}
    assert masks == {recipe: not recipe.startswith("release") for recipe in RECIPES}
    assert not IngestConfig(mask_people_without_root=False).build().mask_people_without_root


def test_synthesised_joints_are_part_of_the_recipe_that_a_checkpoint_holds():
    made = dataclasses.replace(TINY.ingest, synthesise=("neck",)).build()
    assert made.synthesised_joints == ("neck",) and TINY.ingest.build().synthesised_joints == ()
    assert RecipeConfig.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_size": 0}, "batch_size = 0, wanted at least 1"),
        ({"accumulate": 0}, "accumulate = 0, wanted at least 1"),
        ({"prefetch": 0}, "prefetch = 0, wanted at least 1"),
    ],
)
def test_bad_values_of_the_batches_are_refused_by_name(change, reason):
    with pytest.raises(ValueError, match=reason):
        IngestConfig(**change)


def test_the_backbone_is_chosen_on_the_command_line(monkeypatch, prepared):
    called = []

    class Result:
        def summary(self):
            return ""

    def record(config):
        called.append(config)
        return Result()

    monkeypatch.setattr("pipeline.training.fit.fit", record)
    monkeypatch.setenv("DAS_PREPARED", str(prepared))
    cli.main(["train-panoptic", "small", "--model.backbone", "resnet34"])
    cli.main(["train-panoptic", "small"])
    chosen, unchanged = (config.model.build() for config in called)
    assert (chosen.backbone, unchanged.backbone) == ("resnet34", "resnet18")
    assert chosen == dataclasses.replace(unchanged, backbone="resnet34")
    backbone = DAS(chosen).backbone
    assert isinstance(backbone, ResNet) and len(backbone.layer3) == 6


@pytest.mark.parametrize("backbone", BACKBONE_NAMES)
def test_every_backbone_fits_every_head(backbone):
    assert DAS(ModelChoice("small", backbone=backbone, backbone_width=8).build()).config.backbone == backbone


def test_an_unknown_backbone_is_refused_by_name(capsys):
    with pytest.raises(ValueError, match=f"backbone = 'vgg', wanted one of {', '.join(BACKBONE_NAMES)}, or None"):
        ModelChoice(backbone="vgg")
    with pytest.raises(SystemExit):
        cli.main(["train-panoptic", "small", "--model.backbone", "vgg"])
    assert "vgg" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["compile", "sync_norms"])
def test_what_pays_on_gpus_alone_is_refused_on_a_cpu_in_one_line(flag):
    optim = dataclasses.replace(OptimConfig(), **{flag: True})
    with pytest.raises(ValueError, match=f"optim.{flag} = True with device = cpu, wanted device = cuda"):
        TrainConfig(optim=optim)
    assert getattr(TrainConfig(optim=optim, gpu=True).optim, flag)
