"""Recursive update of the joint offsets (Section 3.3, Eq. 5-7), and the release's variant of it.

An update layer corrects the offsets predicted at a feature point p with those predicted close to the joint: it
reads the dense offset map U at the positions that U points to. Three kinds exist:

- single (Eq. 6): U'[p] = U[p] + U[p + U[p]].
- multi (Eq. 7): with t = p + U[p], U'[p] = U[p] + sum_m P(d_m) (d_m + U[t + d_m]), where the displacements
  d_m and the probabilities are predicted and read at t.
- release: first a gated mix V = (1 - g) U + g (a freshly predicted offset), then the plain weighted average
  U'[p] = sum_m P(d_m) (d_m + V[p + d_m]) over displacements around the target and around the source; the
  probabilities are read where the offsets are, one per dimension. There is no residual term.

A displacement d = (d_x, d_y) of the image plane enters the sums as (d_x, d_y, 0). Every U[.] between cells is
a bilinear reading in cell coordinates of one level, zero outside the map.

Everything with parameters runs inside ``RecursiveUpdate.forward``; the last layer is
returned as an ``UpdateState`` of plain maps. ``update_at`` evaluates it at a few points (positives in training,
candidates at test), ``update_dense`` everywhere; both are the same formula with two ways of
reading a map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from das.config import Update
from das.grid import sampling_grid
from das.head import ConvBlock, init_small, predict

# What one untrained layer makes of offsets that are the same in every cell, per dimension. Single and multi add the map
# to itself. The release's gate lets half of it through, fresh offsets being 0; half of its samples are at the target,
# which adds the gated u, v once more, the other half at the source.
INITIAL_GAIN: dict[Update, tuple[float, float, float]] = {
    "none": (1.0, 1.0, 1.0),
    "single": (2.0, 2.0, 2.0),
    "multi": (2.0, 2.0, 2.0),
    "release": (0.75, 0.75, 0.5),
}


class FeaturePoints(NamedTuple):
    """P cells of one level, each field (P,) int64: which image of the batch, which row, which column."""

    image: Tensor
    y: Tensor
    x: Tensor


@dataclass
class UpdateState:
    """All that the last update layer of one level needs; no parameters. All maps are float32.

    Attributes:
        kind: none (no update: the result is ``offsets``), single, multi or release.
        offsets: (B, J, 3, h, w) the map that is read: current or (release) gated offsets; u, v in cells.
        sampling: (B, J, S, 2, h, w) displacements (x, y) in cells; None for none and single.
        confidence: logits; multi (B, J, S, h, w), one per sample; release (B, J, 3, h, w), one per dimension.
        root: joint whose depth offset is exactly 0 in the result; None inside the branch.
    """

    kind: Update
    offsets: Tensor
    sampling: Tensor | None = None
    confidence: Tensor | None = None
    root: int | None = None


def update_at(state: UpdateState, points: FeaturePoints) -> Tensor:
    """Updated offsets at P points, (P, J, 3): exact, with memory proportional to P (Eq. 6 or 7)."""
    return _updated(state, _AtPoints(points))


def update_dense(state: UpdateState) -> Tensor:
    """Updated offsets of every cell, (B, J, 3, h, w): reference of ``update_at``, and all inner layers."""
    return _updated(state, _Everywhere(state.offsets))


class _Reader(Protocol):
    """Reads maps (B, J, C, h, w) at N x cells places: N = P without cells, or N = B with cells (h, w)."""

    def here(self, maps: Tensor) -> Tensor:
        """Values at the places themselves, (N, J, C, *cells)."""

    def at(self, displacement: Tensor, *maps: Tensor) -> list[Tensor]:
        """Bilinear values of each displaced by (N, J, S, 2, *cells): (N, J, S, C, *cells)."""


def _updated(state: UpdateState, read: _Reader) -> Tensor:
    """The last layer at all places of a reader, (N, J, 3, *cells)."""
    current = read.here(state.offsets)  # (N, J, 3, *cells)
    to_target = current[:, :, None, :2]  # (N, J, 1, 2, *cells)
    if state.kind == "none":
        result = current
    elif state.kind == "single":  # Eq. 6
        (local,) = read.at(to_target, state.offsets)
        result = current + local.squeeze(2)
    else:
        assert state.sampling is not None and state.confidence is not None, state.kind
        samples = state.sampling.shape[2]
        around = state.sampling.flatten(2, 3)  # (B, J, 2S, h, w)
        if state.kind == "multi":  # Eq. 7
            found, logits = read.at(to_target, around, state.confidence)
            at_target = found.squeeze(2).unflatten(2, (samples, 2))  # (N, J, S, 2, *cells)
            (local,) = read.at(to_target + at_target, state.offsets)  # (N, J, S, 3, *cells)
            probability = logits.squeeze(2).softmax(2).unsqueeze(3)
            result = current + (probability * _plus_xy(local, at_target)).sum(2)
        else:
            (found,) = read.at(to_target, around)
            at_target = found.squeeze(2).unflatten(2, (samples, 2))
            at_source = read.here(around).unflatten(2, (samples, 2))
            displacement = torch.cat((at_target + to_target, at_source), dim=2)  # (N, J, 2S, 2, *cells)
            logits, local = read.at(displacement, state.confidence, state.offsets)
            probability = logits.softmax(2)  # over the samples, per dimension
            result = (probability * _plus_xy(local, displacement)).sum(2)
    if state.root is None:
        return result
    keep = torch.ones(result.shape[1], 3, *[1] * (result.ndim - 3), dtype=torch.bool, device=result.device)
    keep[state.root, 2] = False
    return result.where(keep, 0.0)


def _plus_xy(offsets: Tensor, displacement: Tensor) -> Tensor:
    """(N, J, S, 3, *cells) + (d_x, d_y, 0)."""
    return offsets + torch.cat((displacement, torch.zeros_like(displacement[:, :, :, :1])), dim=3)


class _AtPoints:
    """Selects the four cells around each place of P points."""

    def __init__(self, points: FeaturePoints):
        self.points = points

    def here(self, maps: Tensor) -> Tensor:
        return maps[self.points.image, :, :, self.points.y, self.points.x]

    def at(self, displacement: Tensor, *maps: Tensor) -> list[Tensor]:
        joints, (height, width) = displacement.shape[1], maps[0].shape[-2:]
        x, weight_x = _neighbours(self.points.x[:, None, None] + displacement[:, :, :, 0], width)  # (2, P, J, S)
        y, weight_y = _neighbours(self.points.y[:, None, None] + displacement[:, :, :, 1], height)
        cell = (x + width * y[:, None]).flatten(0, 1)  # (4, P, J, S)
        weight = (weight_x * weight_y[:, None]).flatten(0, 1).unsqueeze(-1)
        image = self.points.image[:, None, None] * (height * width)
        index = (image + cell) * joints + torch.arange(joints, device=cell.device)[:, None]
        found = []
        for values in maps:
            # One selection of rows with all channels: fast both ways, and only its index is kept for the backward pass.
            rows = values.permute(0, 3, 4, 1, 2).flatten(0, 3)
            found.append((rows.index_select(0, index.flatten()).unflatten(0, index.shape) * weight).sum(0))
        return found  # (P, J, S, C) each


def _neighbours(place: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two cells around places (...) of one axis and their bilinear weights, (2, ...) each; outside weighs 0."""
    first = place.detach().floor()
    fraction = place - first
    cells = torch.stack((first, first + 1)).long()
    weights = torch.stack((1 - fraction, fraction)) * ((cells >= 0) & (cells < size))
    # Clamped as integers: even a NaN place (a diverged model) reads some cell, and its weight keeps it NaN.
    return cells.clamp(0, size - 1), weights


class _Everywhere:
    """Reads at every cell of the level, by grid sampling."""

    def __init__(self, offsets: Tensor):
        height, width = offsets.shape[-2:]
        self.x = torch.arange(width, device=offsets.device, dtype=offsets.dtype)
        self.y = torch.arange(height, device=offsets.device, dtype=offsets.dtype)[:, None]

    def here(self, maps: Tensor) -> Tensor:
        return maps

    def at(self, displacement: Tensor, *maps: Tensor) -> list[Tensor]:
        batch, joints, samples, _, height, width = displacement.shape
        grid = sampling_grid(self.x + displacement[:, :, :, 0], self.y + displacement[:, :, :, 1], height, width)
        grid = grid.view(batch * joints, samples * height, width, 2)
        found = []
        for values in maps:
            read = F.grid_sample(values.flatten(0, 1), grid, padding_mode="zeros", align_corners=False)
            found.append(read.view(batch, joints, -1, samples, height, width).transpose(2, 3))
        return found


class SingleSourceLayer(nn.Module):
    """Eq. 6: the map is its own local prediction, nothing is learned here."""

    def forward(self, features: Tensor, offsets: Tensor) -> tuple[Tensor, UpdateState]:
        """Features (B, C, h, w), passed on, and offsets (B, J, 3, h, w) -> what the layer will read."""
        return features, UpdateState("single", offsets)


class MultiSourceLayer(nn.Module):
    """Eq. 7: after the shared reduction (together an MLP), S displacements and their probabilities."""

    def __init__(self, joints: int, samples: int, channels: int):
        super().__init__()
        self.joints, self.samples = joints, samples
        self.sampling_offset = nn.Conv2d(channels, joints * samples * 2, 1)
        self.sampling_conf = nn.Conv2d(channels, joints * samples, 1)
        init_small(self.sampling_offset)
        init_small(self.sampling_conf)
        # Samples start as a quarter-cell ring around t, equally probable: near Eq. 6, yet not all alike.
        angle = torch.arange(samples) * (2 * math.pi / samples)
        ring = 0.25 * torch.stack((angle.cos(), angle.sin()), dim=-1)  # (S, 2)
        assert self.sampling_offset.bias is not None
        with torch.no_grad():
            self.sampling_offset.bias.copy_(ring.flatten().repeat(joints))

    def forward(self, features: Tensor, offsets: Tensor) -> tuple[Tensor, UpdateState]:
        """Features (B, C, h, w), passed on, and offsets (B, J, 3, h, w) -> what the layer will read."""
        sampling = predict(self.sampling_offset, features).unflatten(1, (self.joints, self.samples, 2))
        confidence = predict(self.sampling_conf, features).unflatten(1, (self.joints, self.samples))
        return features, UpdateState("multi", offsets, sampling, confidence)


class ReleaseLayer(nn.Module):
    """The release's: refined features, a gate between old and fresh offsets, displacements, confidences."""

    def __init__(self, joints: int, samples: int, channels: int, norm: bool):
        super().__init__()
        self.joints, self.samples = joints, samples
        self.update_feat_conv = ConvBlock(channels, channels, norm=norm, deformable=True, bias=False)
        self.update_weight = nn.Conv2d(channels, joints * 3, 1)
        self.update_offset_value = nn.Conv2d(channels, joints * 3, 1)
        self.sampling_offset = nn.Conv2d(channels, joints * samples * 2, 1)
        self.sampling_conf = nn.Conv2d(channels, joints * 3, 1)
        for layer in (self.update_weight, self.update_offset_value, self.sampling_offset, self.sampling_conf):
            init_small(layer)

    def forward(self, features: Tensor, offsets: Tensor) -> tuple[Tensor, UpdateState]:
        """Features (B, C, h, w) and offsets (B, J, 3, h, w) -> refined features, what the layer will read."""
        features = features + self.update_feat_conv(features)
        gate = predict(self.update_weight, features).sigmoid().unflatten(1, (self.joints, 3))
        fresh = predict(self.update_offset_value, features).unflatten(1, (self.joints, 3))
        return features, UpdateState(
            kind="release",
            offsets=(1 - gate) * offsets + gate * fresh,
            sampling=predict(self.sampling_offset, features).unflatten(1, (self.joints, self.samples, 2)),
            confidence=predict(self.sampling_conf, features).unflatten(1, (self.joints, 3)),
        )


class RecursiveUpdate(nn.Module):
    """All update layers of one head, shared by all levels; forward returns the state of the last one."""

    def __init__(
        self,
        kind: Update,
        layers: int,
        samples: int,
        joints: int,
        in_channels: int,
        channels: int,
        norm: bool = True,
        root: int | None = None,
    ):
        """``samples`` is S, for multi and release; ``root`` as in ``UpdateState``; 0 layers are kind none."""
        super().__init__()
        self.root = root
        self.reduction: ConvBlock | None = None
        self.layers = nn.ModuleList()
        if kind in ("multi", "release") and layers > 0:
            self.reduction = ConvBlock(in_channels, channels, kernel=1, norm=norm, bias=False)
        for _ in range(layers):
            if kind == "single":
                self.layers.append(SingleSourceLayer())
            elif kind == "multi":
                self.layers.append(MultiSourceLayer(joints, samples, channels))
            elif kind == "release":
                self.layers.append(ReleaseLayer(joints, samples, channels, norm))

    def forward(self, features: Tensor, offsets: Tensor) -> UpdateState:
        """Pose-tower features (B, C, h, w), initial offsets (B, J, 3, h, w) of a level -> last layer's state.

        Layers before the last are applied to the whole map, because the next layer may read any cell of it.
        """
        if self.reduction is not None:
            features = self.reduction(features)
        state = UpdateState("none", offsets)
        for layer in self.layers:
            features, state = layer(features, update_dense(state))
        return replace(state, root=self.root)
