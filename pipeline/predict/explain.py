"""Pictures of a model's outputs before decoding: score maps and joint offsets of every pyramid level, on one photo.

They show errors that a metric does not separate: a person missed on all levels, a person found on the wrong level,
offsets that miss the joint, and the effect of the recursive update on the offsets.
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
from pipeline.predict.config import check_joint

_MIN_WIDTH = 640
"""A narrower network input is enlarged by a whole factor to at least this width, pixels."""


def draw_levels(predictor: Predictor, image: np.ndarray, joint: str) -> np.ndarray:
    """One row per pyramid level, finest first: scores, initial offsets of one joint, and its offsets after the updates.

    Args:
        predictor: the model.
        image: (H, W, 3) uint8 RGB.
        joint: name of the joint whose offsets are drawn (Eq. 3, then Eq. 6 or 7). Offsets are supervised at positive
            points only: away from people they are meaningless.

    Returns:
        (h, w, 3) uint8 RGB; every tile shows the network's input, enlarged where it is small.

    Raises:
        ValueError: the model does not predict the joint.
    """
    check_joint(predictor.skeleton, joint)
    names = predictor.skeleton.joints
    # Scores and offsets in pixels do not depend on the camera: any K will do.
    inputs = predictor.prepare([image], [np.eye(3)], [np.zeros(5)])
    output = predictor.network(inputs)
    height, width = inputs.sizes[0].tolist()
    photo = inputs.images[0, :, :height, :width].permute(1, 2, 0).cpu().numpy()
    factor = max(1, math.ceil(_MIN_WIDTH / width))
    photo = cv2.resize(photo, (factor * width, factor * height), interpolation=cv2.INTER_LINEAR)

    rows = []
    for level, state, stride in zip(output.levels, output.updates, predictor.model.config.strides, strict=True):
        score = level_scores(level)[1][0].cpu().numpy()
        picture = draw_map(photo, score, factor * stride)
        tiles = [captioned(picture, f"stride {stride}: score, at most {score.max():.2f}")]
        for label, offsets in (("initial", level.joints), ("updated", update_dense(state))):
            arrows = _point_to_joint(predictor, level.root[0], offsets[0], stride)[names.index(joint)]
            picture = draw_offsets(photo, factor * arrows, factor * stride)
            tiles.append(captioned(picture, f"{label} offsets of {joint}"))
        rows.append(side_by_side(*tiles))
    return above_each_other(*rows)


def _point_to_joint(predictor: Predictor, root: Tensor, joints: Tensor, stride: int) -> np.ndarray:
    """Decodes maps to pixels.

    Args:
        predictor: the model.
        root: (3, h, w) root map in network units.
        joints: (J, 3, h, w) offset maps in network units.
        stride: of the level, pixels of the network input.

    Returns:
        (J, 2, h, w) pixels of the network input, from each feature point to its predicted joint.
    """
    rows, columns = joints.shape[-2:]
    points = feature_points(rows, columns, stride).double()
    ones = torch.ones(len(points), dtype=torch.float64)
    flat = joints.double().cpu().permute(2, 3, 0, 1).flatten(0, 1)  # (h w, J, 3)
    codec = PoseCodec(predictor.model.config)
    uv, *_ = codec.decode(
        root.double().cpu().flatten(1).T, flat, points, stride * ones, ones
    )  # the focal length 1 scales depths only
    return (uv - points[:, None]).permute(1, 2, 0).unflatten(-1, (rows, columns)).numpy()


def draw_residual_density(folder: str | Path, predictor: Predictor) -> np.ndarray | None:
    """The learned density of 2D errors, Q x G of Eq. 9, in units of sigma.

    Args:
        folder: the checkpoint folder of the predictor.
        predictor: the model.

    Returns:
        (480, 480, 3) uint8 RGB; None if the model was trained without a likelihood.

    Raises:
        ValueError: the folder has no file of the flows.
    """
    criterion = Criterion(predictor.model.config)
    if not criterion.flows:
        return None
    load_criterion(folder, criterion)
    extent = 4.0
    z = torch.from_numpy(distribution_grid(extent)).float()
    # The release's loss passes the negated error to its flow, and its Laplace Q has the scale sqrt(2) instead of 1.
    sign, width = (-1.0, math.sqrt(2)) if predictor.model.config.pose_likelihood == "rle_release" else (1.0, 1.0)
    with torch.no_grad():
        log_g = criterion.flow(criterion.predictions[0], 2).log_prob(sign * z.flatten(0, 1)).view(z.shape[:2])
    log_density = log_g - z.abs().sum(-1) / width
    return draw_distribution(log_density.numpy(), extent, title="error / sigma, 2D: Q x G (Eq. 9)")
