"""The usual trainings by name, for `das train-panoptic`, `das train-mupots` and sweeps; flags change every field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.infra.job_defaults import given
from pipeline.training import optim_config
from pipeline.training.config import IngestConfig, ModelChoice, TrainConfig
from pipeline.training.optim_config import OptimConfig


@dataclass(frozen=True)
class Preset:
    """One way to train, for the joint sets that it exists for.

    Attributes:
        name: what is typed after the command.
        text: one sentence for the command's help.
        panoptic: the training for Panoptic's 15 joints, or None.
        mupots: the training for the 21 joints of MuCo and MuPoTS, or None.
    """

    name: str
    text: str
    panoptic: TrainConfig | None = None
    mupots: TrainConfig | None = None


def presets() -> tuple[Preset, ...]:
    """All presets, in the order in which the help lists them; a new one is one more entry here."""
    return (
        Preset(
            "release",
            "The released architecture, loss, recipe and schedule, its slips included.",
            panoptic=_as_released("release_panoptic"),
            mupots=_as_released("release_mupots"),
        ),
        Preset(
            "ours",
            "The released architecture and loss; recipe and optimisation mended.",
            panoptic=_on_gpus("release_panoptic", "ours_panoptic", optim_config.ours()),
            mupots=_on_gpus("release_mupots", "ours_mupots", optim_config.ours()),
        ),
        Preset(
            "paper",
            "What the paper writes, with its ResNet-50 (Table 1).",
            panoptic=_on_gpus("paper_resnet50", "ours_panoptic", optim_config.ours()),
        ),
        Preset(
            "small",
            "A small model at low resolution, from scratch, on CPUs.",
            panoptic=small_training(),
            mupots=small_training(joints="muco21", height=256),
        ),
    )


def panoptic_presets() -> dict[str, tuple[str, TrainConfig]]:
    """Name -> (sentence for the help, training) of the presets for Panoptic's 15 joints."""
    return _named(lambda preset: preset.panoptic, run="das-panoptic")


def mupots_presets() -> dict[str, tuple[str, TrainConfig]]:
    """Name -> (sentence for the help, training) of the presets for the 21 joints of MuCo and MuPoTS."""
    return _named(lambda preset: preset.mupots, run="das-mupots")


def small_training(joints: str | None = None, height: int = 144) -> TrainConfig:
    """Training of the small model from scratch on CPUs.

    Args:
        joints: joint set to predict; None keeps the model's own, Panoptic's 15.
        height: of the network input, pixels; its width is 256.
    """
    return TrainConfig(
        model=ModelChoice("small", joints=joints),
        ingest=IngestConfig(recipe="small", width=256, height=height, batch_size=16),
        optim=optim_config.small(),
    )


def _as_released(name: str) -> TrainConfig:
    """Training of a released model with the recipe of the same name; its suppression is kept."""
    return replace(_on_gpus(name, name, optim_config.release()), oks_thresholds=())


def _on_gpus(variant: str, recipe: str, schedule: OptimConfig) -> TrainConfig:
    """Training of a published architecture: 4 images on each of 4 GPUs are the release's 16 images a step."""
    return TrainConfig(
        model=ModelChoice(variant),
        ingest=IngestConfig(recipe=recipe, batch_size=4),
        optim=schedule,
        gpu=True,
        workers=4,
    )


def _named(choose: Callable[[Preset], TrainConfig | None], run: str) -> dict[str, tuple[str, TrainConfig]]:
    found = ((preset, choose(preset)) for preset in presets())
    prepared = given("prepared")
    data = prepared.values if prepared else ()
    return {
        preset.name: (preset.text, replace(config, name=run, data=data))
        for preset, config in found
        if config is not None
    }
