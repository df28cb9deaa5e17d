"""Which feature points are positives for which person (Section 3.2, "Ground truth assignment"), and their targets.

A person is assigned to the pyramid level whose range contains r_max, the distance from the center to the farthest
visible joint. On that level the feature points around the center are positives. A point near several people is a
positive of the one with the nearest center. All other points are background, padding included, as in the release;
those inside ``Batch.masked`` are neither (``masked_points``).

Two choices differ between paper and release (``DASConfig.positives``): the N_pos nearest points, or the points
strictly within 1.5 strides on both axes (9 at most). The center is the root, or the middle of the tight box of the
visible joints (Table 1a). It decides the positives and r_max; the regression targets stay relative to the root.

All that the losses need from people depends on targets alone (``Targets``), so the threads that load a batch make it
(``with_targets``), on the CPU. There selecting by masks costs nothing; on a GPU every selection of unknown size makes
the host wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from das.camera import mean_focal
from das.codec import PoseCodec
from das.config import DASConfig
from das.loss import POSE_LOSSES, Regression
from das.recursive_update import FeaturePoints
from das.sample import Batch

# Steepness of the centerness target, and its unit: the diagonal of the square of positives, whose sqrt(2) the
# release rounds to 1.414.
_CENTERNESS_DECAY = 2.5
_DIAGONAL = 1.414
# What the four entries of ``Targets.counts`` hold.
POSITIVES, IMAGES, POSITIVES_WITH_DEPTH, SUPERVISED_JOINTS = range(4)


@dataclass
class Positives:
    """The P positive feature points of one level.

    Attributes:
        cells: image, row and column of each.
        person: (P,) int64, index of the person in its image.
        points: (P, 2) px, positions of the cells in the network input.
        centerness: (P,) target in (0, 1].
        shape: rows and columns of the level.
    """

    cells: FeaturePoints
    person: Tensor
    points: Tensor
    centerness: Tensor
    shape: tuple[int, int]


def level_shape(height: int, width: int, stride: int) -> tuple[int, int]:
    """Rows and columns of the level with this stride, for a padded image: every pyramid step rounds up."""
    return -(-height // stride), -(-width // stride)


def points_of(y: Tensor, x: Tensor, stride: int) -> Tensor:
    """Pixel positions (..., 2), float32, of the cells in rows ``y`` and columns ``x`` of a level."""
    return torch.stack([x, y], dim=-1).float() * stride + stride // 2


def feature_points(height: int, width: int, stride: int, device: torch.device | None = None) -> Tensor:
    """All points of a level with ``height`` rows and ``width`` columns, row by row: (height * width, 2) px."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return points_of(y, x, stride).reshape(-1, 2)


def person_centers(batch: Batch, center: str) -> Tensor:
    """(B, N, 2) px: the root, or the middle of the tight box of visible joints (the root where none is visible)."""
    if center == "root":
        return batch.root_uv
    hidden = ~batch.visible[..., None]
    low = batch.joints_uv.masked_fill(hidden, torch.inf).amin(dim=2)
    high = batch.joints_uv.masked_fill(hidden, -torch.inf).amax(dim=2)
    return torch.where(batch.visible.any(-1, keepdim=True), (low + high) / 2, batch.root_uv)


def farthest_joint(joints_uv: Tensor, visible: Tensor, centers: Tensor) -> Tensor:
    """r_max (..., N) px: largest image distance of a visible joint (..., N, J, 2) from the center; 0 without any."""
    distance = (joints_uv - centers[..., None, :]).norm(dim=-1)
    return distance.masked_fill(~visible, 0.0).amax(dim=-1)


def centerness_target(distance: Tensor, stride: int, radius: float) -> Tensor:
    """exp(-2.5 distance / (1.414 radius stride)) for a distance in px to the center: 1 at the center itself."""
    return torch.exp(-_CENTERNESS_DECAY * distance / (_DIAGONAL * radius * stride))


def assign(batch: Batch, config: DASConfig) -> list[Positives]:
    """Positives of every level, finest first; depends on targets and the padded image size only.

    People whose root is outside their image get no positives. Training never sees them, because transforms remove
    them; their positives would describe a place that is not in the image.
    """
    height, width = batch.images.shape[-2:]
    centers = person_centers(batch, config.center)
    r_max = farthest_joint(batch.joints_uv, batch.visible, centers)
    ends = batch.sizes.flip(-1)[:, None] - 0.5  # (B, 1, 2): right and lower border of the image
    usable = batch.person_mask & ((batch.root_uv >= -0.5) & (batch.root_uv < ends)).all(-1)

    levels = []
    for stride, (low, high) in zip(config.strides, config.level_ranges):
        rows, columns = level_shape(height, width, stride)
        points = feature_points(rows, columns, stride, centers.device)
        offset = points - centers[:, :, None]  # (B, N, h*w, 2)
        distance = offset.norm(dim=-1)
        if config.positives == "square":
            near = (offset.abs() < config.positive_radius * stride).all(-1)
        else:
            near = _nearest(distance, config.n_positive)
        near &= (usable & (r_max >= low) & (r_max <= high))[..., None]
        distance = distance.masked_fill(~near, torch.inf)
        # One more person, infinitely far away, represents the background: a batch without people needs no branch.
        background = distance.new_full((len(distance), 1, len(points)), torch.inf)
        closest, person = torch.cat([distance, background], dim=1).min(dim=1)  # (B, h*w)
        image, index = torch.nonzero(closest.isfinite(), as_tuple=True)
        cells = FeaturePoints(image, index // columns, index % columns)
        centerness = centerness_target(closest[image, index], stride, config.positive_radius)
        levels.append(Positives(cells, person[image, index], points[index], centerness, (rows, columns)))
    return levels


def masked_points(batch: Batch, config: DASConfig) -> list[Tensor]:
    """Which feature points of every level are in an area that is no background (``Batch.masked``): (B, h * w) bool.

    Where such a point is a positive of another person, it stays one.
    """
    height, width = batch.images.shape[-2:]
    low, high = batch.masked[:, :, None, :2], batch.masked[:, :, None, 2:]  # (B, M, 1, 2)
    levels = []
    for stride in config.strides:
        points = feature_points(*level_shape(height, width, stride), stride, batch.masked.device)
        levels.append(((points >= low) & (points <= high)).all(-1).any(1))
    return levels


def _nearest(distance: Tensor, count: int) -> Tensor:
    """Mask of the ``count`` smallest along the last dimension; of equal ones the first, on every machine."""
    order = distance.sort(dim=-1, stable=True).indices[..., :count]
    return torch.zeros_like(distance, dtype=torch.bool).scatter(-1, order, True)


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
