"""From the network's maps to people: threshold, decode, back-project, suppress (Section 3.4, "Inference").

Only the network's own maps are read on the device. The candidates that pass the threshold are few; all geometry on
them, and the suppression, is float64 on the CPU.

Frames: ``K`` and ``distortion`` belong to the network input, the picture after the image transform. Camera space does
not depend on that transform; pixels are mapped back, so everything in ``People`` refers to the original image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor

from das.assign import points_of
from das.camera import back_project, mean_focal
from das.codec import PoseCodec
from das.config import DASConfig
from das.head import LevelOutput
from das.model import HeadOutput
from das.oks import SUPPRESSION_SIGMA, Array, oks_matrix, pose_area
from das.recursive_update import FeaturePoints, update_at


@dataclass
class People(Generic[Array]):
    """The n people of one image, best first; float64 tensors, or arrays after ``numpy()``.

    Attributes:
        joints_uv: (n, J, 2) px of the original image. root_uv: (n, 2).
        joints_cam: (n, J, 3) mm, camera frame. root_cam: (n, 3).
        scores: (n,) confidence x centerness, in (0, 1).
        sigma_mm: (n, J, 3) mm along the camera's axes, the likelihood's scale of each joint relative to the root; None
            where the network was not asked for it.
    """

    joints_uv: Array
    joints_cam: Array
    root_uv: Array
    root_cam: Array
    scores: Array
    sigma_mm: Array | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def numpy(self: People[Tensor]) -> People[np.ndarray]:
        """The same people as NumPy arrays."""
        return People(**{name: value.numpy() for name, value in self._arrays().items()})

    def select(self, index: Array) -> People[Array]:
        """The people at these indices, in their order."""
        return People(**{name: value[index] for name, value in self._arrays().items()})

    def _arrays(self) -> dict[str, Any]:
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


@dataclass
class Candidates:
    """P feature points of all images and levels that passed the threshold; raw network values, float64 on the CPU.

    Attributes:
        image: (P,) index in the batch. points: (P, 2) px of the network input. stride: (P,) px. score: (P,).
        root: (P, 3) and joints: (P, J, 3) in network units; the joints are those after the last update.
        sigma: (P, J, 3) scales of the joints in network units, above 0; None where the network was not asked for them.
    """

    image: Tensor
    points: Tensor
    stride: Tensor
    score: Tensor
    root: Tensor
    joints: Tensor
    sigma: Tensor | None = None


def decode(
    output: HeadOutput,
    config: DASConfig,
    K: Tensor,
    distortion: Tensor,
    image_transform: Tensor | None = None,
    sizes: Tensor | None = None,
    score_threshold: float | None = None,
    valid: Tensor | None = None,
) -> list[People[Tensor]]:
    """People of every image of a batch.

    Args:
        output: what the model returned for B images.
        config: the model's configuration: units, threshold and suppression.
        K: (B, 3, 3) intrinsics of the network input, px.
        distortion: (B, 5) or (B, 12) of the network input, OpenCV order.
        image_transform: (B, 2, 3) original px to network-input px; None where they are the same.
        sizes: (B, 2) height and width of each network input before padding: points in the padding are no
            candidates. None for no padding.
        score_threshold: replaces the configuration's.
        valid: (J,) bool, joints that suppression compares; joints that were never supervised are left out. None: all.

    Returns:
        B ``People``, best score first; under soft suppression, best decayed score first. An image without candidates
        has arrays of length 0.
    """
    everything = (output, config, K, distortion, image_transform, sizes, score_threshold, valid)
    return decode_at([config.oks_threshold], *everything)[0]


@torch.no_grad()
def decode_at(
    oks_thresholds: Sequence[float],
    output: HeadOutput,
    config: DASConfig,
    K: Tensor,
    distortion: Tensor,
    image_transform: Tensor | None = None,
    sizes: Tensor | None = None,
    score_threshold: float | None = None,
    valid: Tensor | None = None,
) -> list[list[People[Tensor]]]:
    """What ``decode`` gives with each of several ``oks_threshold``; the other arguments as there."""
    threshold = config.score_threshold if score_threshold is None else score_threshold
    found = find_candidates(output, config, threshold, sizes)
    shown = slice(None) if valid is None else valid.cpu()
    placed = place_candidates(found, config, K, distortion, image_transform)
    return [
        [people.select(suppress(people.joints_uv[:, shown], people.scores, with_oks)) for people in placed]
        for with_oks in (replace(config, oks_threshold=oks) for oks in oks_thresholds)
    ]


def place_candidates(
    found: Candidates, config: DASConfig, K: Tensor, distortion: Tensor, image_transform: Tensor | None = None
) -> list[People[Tensor]]:
    """All candidates of every image in camera space, best score first, before suppression; arguments as ``decode``."""
    K, distortion = K.double().cpu(), distortion.double().cpu()
    if image_transform is None:
        image_transform = torch.eye(2, 3).expand(len(K), 2, 3)
    image_transform = image_transform.double().cpu()

    codec, focal = PoseCodec(config), mean_focal(K)[found.image]
    uv, depth, root_uv, root_depth = codec.decode(found.root, found.joints, found.points, found.stride, focal)
    sigma_mm = None if found.sigma is None else codec.decode_sigma(found.sigma, depth, found.stride, focal)
    # The root goes through the camera as one more joint.
    uv = torch.cat([uv, root_uv[:, None]], dim=1)  # (P, J + 1, 2)
    depth = torch.cat([depth, root_depth[:, None]], dim=1)
    cam = back_project(uv, depth, K[found.image], distortion[found.image])
    uv = _to_original(uv, image_transform[found.image])
    everyone = People(uv[:, :-1], cam[:, :-1], uv[:, -1], cam[:, -1], found.score, sigma_mm)

    people = []
    for image in range(len(K)):
        these = everyone.select((found.image == image).nonzero()[:, 0])
        people.append(these.select(these.scores.argsort(descending=True, stable=True)))
    return people


def level_scores(level: LevelOutput) -> tuple[Tensor, Tensor]:
    """Confidence, and the score confidence x centerness, of every cell of a level: (B, h, w) each, 0 to 1."""
    confidence = level.confidence[:, 0].float().sigmoid()
    return confidence, confidence * level.centerness[:, 0].float().sigmoid()


def find_candidates(output: HeadOutput, config: DASConfig, threshold: float, sizes: Tensor | None = None) -> Candidates:
    """The best ``candidates_per_level`` points of every image and level strictly above the threshold.

    Points are ranked by confidence x centerness; ``config.threshold_on`` selects which number the threshold
    applies to. Arguments as for ``decode``.
    """
    parts = []
    for level, state, stride in zip(output.levels, output.updates, config.strides, strict=True):
        confidence, score = level_scores(level)
        passed = (confidence if config.threshold_on == "confidence" else score) > threshold
        rows, columns = score.shape[1:]
        if sizes is not None:
            y = torch.arange(rows, device=score.device)[:, None].expand(rows, columns)
            x = torch.arange(columns, device=score.device).expand(rows, columns)
            passed &= (points_of(y, x, stride) < sizes.to(score.device).flip(-1)[:, None, None]).all(-1)
        ranked = score.masked_fill(~passed, -1.0).flatten(1)
        best = ranked.topk(min(config.candidates_per_level, ranked.shape[1]), dim=1)  # (B, k)
        image, rank = torch.nonzero(best.values >= 0, as_tuple=True)
        index = best.indices[image, rank]
        cells = FeaturePoints(image, index // columns, index % columns)
        parts.append(
            Candidates(
                image=image,
                points=points_of(cells.y, cells.x, stride),
                stride=torch.full_like(index, stride),
                score=best.values[image, rank],
                root=level.root[image, :, cells.y, cells.x],
                joints=update_at(state, cells),
                sigma=None if level.raw_sigma is None else sigma_at(level.raw_sigma, cells, config.sigma_floor),
            )
        )

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts]).cpu()

    asked = () if any(part.sigma is None for part in parts) else ("sigma",)
    geometry = {name: joined(name).double() for name in ("points", "stride", "score", "root", "joints", *asked)}
    return Candidates(image=joined("image"), **geometry)


def sigma_at(raw_sigma: Tensor, cells: FeaturePoints, floor: float) -> Tensor:
    """Scales (P, J, 3) in network units of P cells, from the map (B, J, 3, h, w) before its sigmoid."""
    return raw_sigma[cells.image, :, :, cells.y, cells.x].sigmoid() + floor


def suppress(joints_uv: Tensor, scores: Tensor, config: DASConfig) -> Tensor:
    """Indices of the people to keep, at most ``max_people``, given all of them best first.

    Hard: greedily, a candidate whose OKS with a better kept one is above ``oks_threshold`` is removed. Soft: none is
    removed, but every person taken multiplies the remaining scores by exp(-OKS^2 / oks_threshold), which changes only
    the order. The OKS uses one spread for all joints and the mean area of the two people's boxes, as the release does.

    Args:
        joints_uv: (n, J, 2) px of the original image.
        scores: (n,), falling.
        config: ``suppression``, ``oks_threshold`` and ``max_people``.
    """
    if config.suppression == "none":
        return torch.arange(len(scores))[: config.max_people]
    area = pose_area(joints_uv)
    sigmas = joints_uv.new_full((joints_uv.shape[1],), SUPPRESSION_SIGMA)
    rest, scores = torch.arange(len(scores)), scores.clone()
    kept: list[Tensor] = []
    # One row of OKS per kept person: the full matrix of several thousand candidates would not fit in memory.
    while len(rest) and len(kept) < config.max_people:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        mean_area = (area[best] + area[rest]) / 2
        similarity = oks_matrix(joints_uv[best][None], joints_uv[rest], mean_area[None], sigmas)[0]
        if config.suppression == "hard":
            rest = rest[similarity <= config.oks_threshold]
        else:
            scores[rest] *= torch.exp(-(similarity**2) / config.oks_threshold)
            rest = rest[scores[rest].argsort(descending=True, stable=True)]
    return torch.stack(kept) if kept else rest


def _to_original(uv: Tensor, image_transform: Tensor) -> Tensor:
    """Network-input px (P, M, 2) to original px, by the inverse of (P, 2, 3)."""
    inverse = torch.linalg.inv(image_transform[..., :2])
    return (uv - image_transform[:, None, :, 2]) @ inverse.transpose(-1, -2)
