"""Weights that a new training starts from: random ones, a backbone's of a file, or another checkpoint's."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from das.checkpoint import fresh_tensors, load_tensors
from das.config import DASConfig
from das.criterion import Criterion
from das.model import DAS
from das.model_info import WEIGHTS_FILE, ModelInfo, load_info
from das.sample import Batch
from das.train_step import TrainStep
from pipeline.evaluation.train_overlap import TrainingFile, digest_name, training_files
from pipeline.infra.files import join
from pipeline.infra.redaction import redacted
from pipeline.models import in_store, resolve_model
from pipeline.weights.backbones import read_backbone

PRIOR_IMAGES = 64
"""Images whose targets give the mean root and pose that a new model starts from."""
_LARGE = 64  # channels of the first stage of the published backbones
_FILES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class Parent:
    """What checkpoints of a training inherit from the one that it starts from.

    Attributes:
        info: its description.
        trained_on: its files that say what images it was trained on; None where it is not known.
    """

    info: ModelInfo
    trained_on: tuple[TrainingFile, ...] | None


def check_initial_weights(pretrained: str | None, model: DASConfig, tracking_uri: str | None) -> Parent | None:
    """Refuses initial weights before anything starts, and prints what starts from them and what starts fresh.

    Args:
        pretrained: as ``initialise``; an http(s) URL is only opened by the workers.
        model: that starts from them.
        tracking_uri: as ``initialise``.

    Returns:
        The checkpoint; None where the training does not start from one.

    Raises:
        ValueError: missing or unreadable, or of another architecture.
    """
    if pretrained is None:
        if model.backbone_width >= _LARGE:
            print(
                f"backbone {model.backbone} (width {model.backbone_width}) starts from random weights, the release's "
                "from trained ones, which changes the result most: --pretrained takes such weights (docs/weights.md)"
            )
        return None
    if is_checkpoint(pretrained):
        with checkpoint_folder(pretrained, tracking_uri) as folder:
            fresh = fresh_tensors(folder, model)
            load_tensors(folder / WEIGHTS_FILE, DAS(model), fresh)
            parent = _parent(pretrained, folder, tracking_uri)
        if fresh:
            layers = dict.fromkeys(name.rsplit(".", 1)[0] for name in fresh)
            print(
                f"{redacted(pretrained)} predicts other joints than {model.skeleton.name}: {len(layers)} layers start "
                f"fresh ({', '.join(layers)}), all others from it"
            )
        return parent
    if "://" not in pretrained and not Path(pretrained).exists():
        raise ValueError(f"pretrained = {pretrained!r} does not exist, wanted a checkpoint folder, a file or a URL")
    if not pretrained.startswith(("http://", "https://")):
        print(read_backbone(pretrained, model).text)
    return None


def initialise(
    step: TrainStep, pretrained: str | None, tracking_uri: str | None, start_at_mean: bool, batches: Iterable[Batch]
) -> None:
    """Sets the weights of a new training.

    Every worker does this, with the same images.

    Args:
        step: with random weights.
        pretrained: checkpoint folder or a model's URI (``resolve_model``), or a backbone's file (``read_backbone``);
            None keeps the random weights.
        tracking_uri: address of the MLflow store, for models in it.
        start_at_mean: initial outputs are the mean root and pose of the first batches; a checkpoint of the same joints
            brings its own.
        batches: of the first ``PRIOR_IMAGES`` images; read only where they are needed.

    Raises:
        ValueError: as ``check_initial_weights``.
    """
    if pretrained is not None and is_checkpoint(pretrained):
        with checkpoint_folder(pretrained, tracking_uri) as folder:
            fresh = fresh_tensors(folder, step.model.config)
            if fresh:  # new joints start at their mean; the checkpoint's tensors then replace all others
                step.model.set_priors(*mean_targets(step.criterion, batches))
            load_tensors(folder / WEIGHTS_FILE, step.model, fresh)
        return
    if pretrained is not None:
        read_backbone(pretrained, step.model.config).load_into(step.model.backbone)
    if start_at_mean:
        step.model.set_priors(*mean_targets(step.criterion, batches))


def is_checkpoint(pretrained: str) -> bool:
    """Whether initial weights are a checkpoint folder or the URI of one, not a backbone's file or its URL."""
    if "://" in pretrained or in_store(pretrained):
        file = pretrained.partition("?")[0].endswith(_FILES)
        return re.match("https?://", pretrained) is None and not file
    return Path(pretrained).is_dir()


@contextmanager
def checkpoint_folder(pretrained: str, tracking_uri: str | None) -> Iterator[Path]:
    """A checkpoint's folder on this machine; a copy that had to be made is deleted when the block ends.

    Raises:
        ValueError, ConnectionError: as ``resolve_model``.
    """
    with tempfile.TemporaryDirectory(prefix="pretrained-") as cache:
        yield resolve_model(pretrained, tracking_uri, cache)


def _parent(pretrained: str, folder: Path, tracking_uri: str | None) -> Parent:
    """What is inherited from the checkpoint ``pretrained``, of which ``folder`` may be a copy."""
    names = training_files(folder)
    if names is None:
        print(
            f"{redacted(pretrained)} does not hold the digests ({digest_name('*')}) of all its data: what it was "
            "trained on is not known, so no evaluation will count as one of unseen images"
        )
        return Parent(load_info(folder), None)
    if in_store(pretrained):
        files = (TrainingFile(name, pretrained, store=tracking_uri) for name in names)
    else:
        files = (TrainingFile(name, join(pretrained, name)) for name in names)
    return Parent(load_info(folder), tuple(files))


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
