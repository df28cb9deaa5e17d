"""Which feature points are positives for which person (Section 3.2, "Ground truth assignment").

A person is assigned to the pyramid level whose range contains r_max, the distance from the center to the farthest
visible joint. On that level the feature points around the center are positives. A point near several people is a
positive of the one with the nearest center. All other points are background, padding included, as in the release;
those inside ``Batch.masked`` are neither (``masked_points``).

Two choices differ between paper and release (``DASConfig.positives``): the N_pos nearest points, or the points
strictly within 1.5 strides on both axes (9 at most). The center is the root, or the middle of the tight box of the
visible joints (Table 1a). It decides the positives and r_max; the regression targets stay relative to the root.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from das.config import DASConfig
from das.recursive_update import FeaturePoints
from das.sample import Batch

# Steepness of the centerness target, and its unit: the diagonal of the square of positives, whose sqrt(2) the
# release rounds to 1.414.
_CENTERNESS_DECAY = 2.5
_DIAGONAL = 1.414


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
