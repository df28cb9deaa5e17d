"""Weights that a new training starts from: random ones, torchvision's ImageNet files, or another checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from das.backbone import BACKBONES
from das.checkpoint import fresh_tensors, load_tensors
from das.config import DASConfig
from das.criterion import Criterion
from das.model import DAS
from das.model_info import WEIGHTS_FILE
from das.sample import Batch
from das.train_step import TrainStep
from pipeline.infra.redaction import redacted

PRIOR_IMAGES = 64
"""Images whose targets give the mean root and pose that a new model starts from."""


def check_initial_weights(pretrained: str, model: DASConfig) -> None:
    """Refuses initial weights before anything starts, and prints which layers they leave untrained.

    Args:
        pretrained: a checkpoint folder, an ImageNet file or its URL; a URL is only opened by the workers.
        model: that starts from them.

    Raises:
        ValueError: missing or unreadable, or of another architecture.
    """
    if "://" in pretrained:
        return
    if is_checkpoint(pretrained):
        fresh = fresh_tensors(pretrained, model)
        _load(pretrained, DAS(model), fresh)
        if fresh:
            layers = dict.fromkeys(name.rsplit(".", 1)[0] for name in fresh)
            print(
                f"{redacted(pretrained)} predicts other joints than {model.skeleton.name}: {len(layers)} layers start "
                f"fresh ({', '.join(layers)}), all others from it"
            )
    elif not Path(pretrained).is_file():
        raise ValueError(f"pretrained = {pretrained!r} does not exist, wanted a checkpoint folder, a file or a URL")
    elif not BACKBONES[model.backbone].imagenet:
        raise ValueError(
            f"pretrained = {pretrained!r}: ImageNet files are for ResNets, this backbone is {model.backbone}"
        )


def initialise(step: TrainStep, pretrained: str | None, start_at_mean: bool, batches: Iterable[Batch]) -> None:
    """Sets the weights of a new training.

    Every worker does this, with the same images.

    Args:
        step: with random weights.
        pretrained: checkpoint folder, ImageNet file or URL; None keeps the random weights.
        start_at_mean: initial outputs are the mean root and pose of the first batches; a checkpoint of the same joints
            brings its own.
        batches: of the first ``PRIOR_IMAGES`` images; read only where they are needed.

    Raises:
        ValueError: as ``check_initial_weights``.
    """
    if pretrained is not None and is_checkpoint(pretrained):
        fresh = fresh_tensors(pretrained, step.model.config)
        if fresh:  # new joints start at their mean; the checkpoint's tensors then replace all others
            step.model.set_priors(*mean_targets(step.criterion, batches))
        _load(pretrained, step.model, fresh)
        return
    if pretrained is not None:
        step.model.backbone.load_imagenet(pretrained)
    if start_at_mean:
        step.model.set_priors(*mean_targets(step.criterion, batches))


def is_checkpoint(pretrained: str) -> bool:
    """Whether initial weights are a checkpoint folder, not an ImageNet file or URL."""
    return Path(pretrained).is_dir()


def _load(folder: str, model: DAS, fresh: tuple[str, ...]) -> None:
    load_tensors(Path(folder) / WEIGHTS_FILE, model, fresh)


def mean_targets(criterion: Criterion, batches: Iterable[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean root (3,) and joint offsets (J, 3) over all positives, in network units; 0 where nothing is labelled."""
    every = [criterion.targets(batch) for batch in batches]
    root, joints = torch.cat([t.root for t in every]), torch.cat([t.joints for t in every])
    has_depth = torch.cat([t.has_depth for t in every])
    supervised, has_z = torch.cat([t.supervised for t in every]), torch.cat([t.has_z for t in every])
    always = torch.ones_like(has_depth)
    return (
        _mean_where(root, torch.stack([always, always, has_depth], dim=-1)),
        _mean_where(joints, torch.stack([supervised, supervised, has_z], dim=-1)),
    )


def _mean_where(values: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    return values.where(labelled, 0.0).sum(0) / labelled.sum(0).clamp(min=1)
