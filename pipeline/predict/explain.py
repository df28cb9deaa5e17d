"""A model from within, on one photo: where every level finds people, and where its points believe a joint to lie.

What no score tells: a person missed on all levels, found on the wrong one, offsets that point past the joint, and what
the recursive update does to them.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from das.assign import feature_points
from das.checkpoint import load_criterion
from das.codec import PoseCodec
from das.criterion import Criterion
from das.decode import level_scores
from das.draw.method import distribution_grid, draw_distribution, draw_map, draw_offsets
from das.draw.montage import above_each_other, captioned, side_by_side
from das.predictor import Predictor
from das.recursive_update import update_dense

_WIDTH = 640  # pixels that a network input is at least enlarged to, by a whole factor


def draw_inside(predictor: Predictor, image: np.ndarray, joint: str) -> np.ndarray:
    """A row for each pyramid level, finest first: its scores, its initial offsets, and those after the updates.

    Args:
        predictor: the model.
        image: (H, W, 3) uint8 RGB.
        joint: whose offsets are drawn (Eq. 3, then Eq. 6 or 7); they mean something near people alone.

    Returns:
        (h, w, 3) uint8 RGB; every picture is the network's input, enlarged where it is small.

    Raises:
        ValueError: a joint that the model does not predict.
    """
    names = predictor.skeleton.joints
    if joint not in names:
        raise ValueError(f"joint = {joint!r}, wanted one of {', '.join(names)}")
    inputs = predictor.prepare([image], [np.eye(3)], [np.zeros(5)])
    output = predictor.network(inputs)
    height, width = inputs.sizes[0].tolist()
    photo = inputs.images[0, :, :height, :width].permute(1, 2, 0).cpu().numpy()
    factor = max(1, math.ceil(_WIDTH / width))
    photo = cv2.resize(photo, (factor * width, factor * height), interpolation=cv2.INTER_LINEAR)

    rows = []
    for level, state, stride in zip(output.levels, output.updates, predictor.model.config.strides, strict=True):
        score = level_scores(level)[1][0].cpu().numpy()
        picture = draw_map(photo, score, factor * stride)
        tiles = [captioned(picture, f"stride {stride}: score, at most {score.max():.2f}")]
        for told, offsets in (("initial", level.joints), ("updated", update_dense(state))):
            arrows = _from_points(predictor, level.root[0], offsets[0], stride)[names.index(joint)]
            picture = draw_offsets(photo, factor * arrows, factor * stride)
            tiles.append(captioned(picture, f"{told} offsets of {joint}"))
        rows.append(side_by_side(*tiles))
    return above_each_other(*rows)


def _from_points(predictor: Predictor, root: Tensor, joints: Tensor, stride: int) -> np.ndarray:
    """Maps root (3, h, w), joints (J, 3, h, w) in network units -> (J, 2, h, w) px from each point to each joint."""
    rows, columns = joints.shape[-2:]
    points = feature_points(rows, columns, stride).double()
    each = torch.ones(len(points), dtype=torch.float64)
    flat = joints.double().cpu().permute(2, 3, 0, 1).flatten(0, 1)  # (h w, J, 3)
    codec = PoseCodec(predictor.model.config)
    uv, *_ = codec.decode(root.double().cpu().flatten(1).T, flat, points, stride * each, each)
    return (uv - points[:, None]).permute(1, 2, 0).unflatten(-1, (rows, columns)).numpy()


def draw_residuals(folder: str | Path, predictor: Predictor) -> np.ndarray | None:
    """What training learned of the errors in the image: the density Q x G of Eq. 9, in units of sigma.

    Args:
        folder: the checkpoint folder that the predictor is from.
        predictor: the model.

    Returns:
        (480, 480, 3) uint8 RGB; None where the model was trained without a likelihood.

    Raises:
        ValueError: a folder without the flows.
    """
    criterion = Criterion(predictor.model.config)
    if not criterion.flows:
        return None
    load_criterion(folder, criterion)
    extent = 4.0
    z = torch.from_numpy(distribution_grid(extent)).float()
    # The release gives its flow the negative error, and its Q is wider.
    sign, width = (-1.0, math.sqrt(2)) if predictor.model.config.pose_likelihood == "rle_release" else (1.0, 1.0)
    with torch.no_grad():
        log_g = criterion.flow(criterion.predictions[0], 2).log_prob(sign * z.flatten(0, 1)).view(z.shape[:2])
    log_density = log_g - z.abs().sum(-1) / width
    return draw_distribution(log_density.numpy(), extent, title="error / sigma, 2D: Q x G (Eq. 9)")
