"""Mean pose and labelled joints of the training data, in one pass over the annotations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from das.recipe import RecipeConfig, ours
from das.skeleton import Skeleton, skeleton_named
from das.transforms import convert_labels, convert_values, recipe_conversion
from pipeline.data.record import UNLABELLED, Record


@dataclass(frozen=True)
class PoseStatistics:
    """How often each joint is labelled, and the mean pose, in a target joint set.

    Attributes:
        skeleton: the target joint set of the J joints.
        people: usable people (not ignored, valid, with a root), in 2D or 3D.
        labelled: (J,) number of these people with the joint labelled.
        mean_pose: (J, 3) mm, mean of joint - root in camera axes, over people in 3D with the joint labelled; zero
            for joints without labels. It is the baseline of the strict protocol.
    """

    skeleton: Skeleton
    people: int
    labelled: np.ndarray
    mean_pose: np.ndarray

    @property
    def unsupervised_joints(self) -> tuple[str, ...]:
        """Joints that no record labels; what a model predicts for them is meaningless."""
        return tuple(j for j, n in zip(self.skeleton.joints, self.labelled, strict=True) if n == 0)


def pose_statistics(
    records: Iterable[Record], skeleton: Skeleton, recipe: RecipeConfig | None = None
) -> PoseStatistics:
    """Statistics of records of any joint sets, converted by name to ``skeleton``; needs no images.

    Args:
        records: annotations.
        skeleton: target joint set.
        recipe: decides, as in training, which conversions count as labels; None means ours.
    """
    recipe = recipe or ours()
    people = 0
    labelled = np.zeros(len(skeleton), np.int64)
    in_3d = np.zeros(len(skeleton), np.int64)
    total = np.zeros((len(skeleton), 3))
    for record in records:
        native = skeleton_named(record.skeleton)
        table = recipe_conversion(native, skeleton, recipe)
        root = list(native.root_indices)
        known = record.state > UNLABELLED
        usable = record.valid & ~record.ignore & known[:, root].all(axis=1)
        known = convert_labels(known[usable], table)  # (N, J)
        people += int(usable.sum())
        labelled += known.sum(axis=0)
        if record.joints_cam is not None:
            joints = record.joints_cam[usable].astype(np.float64)
            aligned = joints - joints[:, root].mean(axis=1, keepdims=True)
            total += np.where(known[..., None], convert_values(aligned, table), 0.0).sum(axis=0)
            in_3d += known.sum(axis=0)
    return PoseStatistics(skeleton, people, labelled, total / np.maximum(in_3d, 1)[:, None])
