"""Drawn batches of people on noise, and small training steps of every kind to feed them to."""

import dataclasses

import numpy as np
import torch
from torch import nn

from das.config import release_panoptic, small
from das.sample import Batch, Sample, collate
from das.skeleton import PANOPTIC15
from das.train_step import TrainStep

TINY = dataclasses.replace(small(), backbone_width=8, fpn_channels=32)
VARIANTS = {
    "ours": TINY,
    "l1 without update": dataclasses.replace(TINY, pose_likelihood="l1", update="none"),
    # The release's losses and update on the tiny backbone.
    "release": dataclasses.replace(
        release_panoptic(),
        backbone="resnet18",
        backbone_width=8,
        fpn_channels=32,
        strides=TINY.strides,
        range_ends=TINY.range_ends,
        head_norm=False,
        tower_deformable=False,
    ),
}


def person(rng, center, has_depth, size=18.0):
    uv = np.array(center) + rng.normal(0, size, (15, 2))
    uv[2] = center
    depth = 3000 + rng.normal(0, 200, 15)
    return uv, depth, has_depth


def scene(people, seed=0, height=64, width=96, size=18.0):
    """One batch, one image per list of people (center, has_depth), on noise."""
    rng = np.random.default_rng(seed)
    samples = []
    for i, crowd in enumerate(people):
        made = [person(rng, c, d, size) for c, d in crowd]
        uv = np.array([p[0] for p in made]).reshape(-1, 15, 2)
        depth = np.array([p[1] for p in made]).reshape(-1, 15)
        samples.append(
            Sample(
                key=f"scene/{seed}/{i}",
                skeleton=PANOPTIC15,
                image=rng.integers(0, 255, (height, width, 3), dtype=np.uint8),
                K=np.array([[600.0, 0, width / 2], [0, 600, height / 2], [0, 0, 1]]),
                distortion=np.zeros(5),
                joints_uv=uv,
                joints_depth=depth,
                visible=rng.uniform(size=depth.shape) < 0.9,
                root_uv=uv[:, 2],
                root_depth=depth[:, 2],
                has_depth=np.array([p[2] for p in made], dtype=bool),
            )
        )
    return collate(samples)


MIXED = [[((30, 30), True), ((70, 40), False)], [((50, 20), False)], [], [((40, 40), True), ((47, 36), True)]]


def part_of(batch, start, end):
    fields = [f.name for f in dataclasses.fields(batch) if f.name != "targets"]
    return Batch(**{name: getattr(batch, name)[start:end] for name in fields})


def frozen_norms(step):
    """Batch norm computes over what its own worker sees; frozen, workers can be compared with one process."""
    for module in step.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return step


def made(config):
    torch.manual_seed(0)
    return TrainStep(config)


def gradients_of(step):
    return {name: p.grad for name, p in step.named_parameters() if p.requires_grad}
