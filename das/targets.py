"""What the losses of a batch need from its people: positives, their targets, and the counts that divide the sums.

It depends on targets alone, so the threads that load a batch make it (``with_targets``), on the CPU. There selecting by
masks costs nothing; on a GPU every selection of unknown size makes the host wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from das.assign import Positives, assign, masked_points
from das.camera import mean_focal
from das.codec import PoseCodec
from das.config import DASConfig
from das.loss import POSE_LOSSES, Regression
from das.recursive_update import FeaturePoints
from das.sample import Batch

# What the four entries of ``Targets.counts`` hold.
POSITIVES, IMAGES, POSITIVES_WITH_DEPTH, SUPERVISED_JOINTS = range(4)


@dataclass
class Targets:
    """Targets of the P positives of all levels, level after level, in network units.

    Attributes:
        cells: of every level, its positives' image, row and column.
        positive: (B, M) bool, of the M feature points of all levels, those that are positives.
        counted: (B, M) bool, those that add to the confidence loss (``Batch.masked``).
        centerness: (P,). root: (P, 3). joints: (P, J, 3). All as ``PoseCodec.encode`` makes them.
        has_depth: (P,) bool, the person is annotated in 3D.
        supervised: (P, J) bool, the joint has a target. has_z: (P, J) bool, a target in depth too.
        counts: (4,) float64: positives, images, positives with depth, supervised joints; stays where it was made.
            A joint counts once for each supervised prediction.
    """

    cells: list[FeaturePoints]
    positive: Tensor
    counted: Tensor
    centerness: Tensor
    root: Tensor
    joints: Tensor
    has_depth: Tensor
    supervised: Tensor
    has_z: Tensor
    counts: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same targets with every tensor changed, all but ``counts``."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("cells", "counts")}
        cells = [FeaturePoints(*(change(index) for index in level)) for level in self.cells]
        return replace(self, cells=cells, **{name: change(tensor) for name, tensor in tensors.items()})


def supervised_predictions(config: DASConfig) -> list[str]:
    """Which joint offsets a variant supervises: updated, initial or both."""
    if not config.layers:
        return ["initial"]
    return ["updated", "initial"] if config.supervise_initial else ["updated"]


def with_targets(batch: Batch, config: DASConfig) -> Batch:
    """The batch with the targets of this model."""
    return replace(batch, targets=targets_of(batch, assign(batch, config), config))


def targets_of(batch: Batch, positives: list[Positives], config: DASConfig) -> Targets:
    """Targets of all positives, level after level in the order of ``positives``."""
    image = torch.cat([p.cells.image for p in positives])
    person = torch.cat([p.person for p in positives])
    stride = torch.cat([p.centerness.new_full((len(p.person),), s) for p, s in zip(positives, config.strides)])
    codec, pose_loss = PoseCodec(config), POSE_LOSSES[config.pose_likelihood]
    root, joints = codec.encode(
        batch.joints_uv[image, person],
        batch.joints_depth[image, person],
        batch.root_uv[image, person],
        batch.root_depth[image, person],
        torch.cat([p.points for p in positives]),
        stride,
        mean_focal(batch.K)[image],
    )
    has_depth, supervised = batch.has_depth[image, person], batch.visible[image, person]
    has_z = has_depth[:, None].expand_as(supervised)
    is_root = torch.arange(joints.shape[1], device=joints.device) == codec.root_index
    # The root's own depth offset is 0 by definition. The release adds its constant likelihood, ours does not.
    if isinstance(pose_loss, Regression) or not pose_loss.root_depth:
        has_z = has_z & ~is_root
    # With offsets from the root, the root's own image offset is 0 by definition too. Its sigma would shrink to the
    # floor, and its gradients (1 / sigma) would exceed all others.
    if config.offset_origin == "root":
        supervised = supervised & ~is_root

    masked, positive = masked_points(batch, config), []
    for level, found in zip(masked, positives, strict=True):
        cells = torch.zeros_like(level).view(len(level), *found.shape)
        cells[tuple(found.cells)] = True
        positive.append(cells.flatten(1))
    is_positive = torch.cat(positive, 1)
    joint_count = len(supervised_predictions(config)) * supervised.sum()
    return Targets(
        cells=[p.cells for p in positives],
        positive=is_positive,
        counted=is_positive | ~torch.cat(masked, 1),
        centerness=torch.cat([p.centerness for p in positives]),
        root=root,
        joints=joints,
        has_depth=has_depth,
        supervised=supervised,
        has_z=has_z,
        counts=torch.tensor([len(root), len(batch.keys), int(has_depth.sum()), int(joint_count)], dtype=torch.float64),
    )
