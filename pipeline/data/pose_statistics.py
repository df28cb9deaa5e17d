"""Mean pose, labelled joints and people to validate on, from the statistics of prepared data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from das.recipe import RecipeConfig
from das.skeleton import Skeleton, conversion, skeleton_named
from das.transforms import recipe_conversion
from pipeline.data.joint_statistics import JointStatistics, group_of


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


def pose_statistics(statistics: JointStatistics, skeleton: Skeleton, recipe: RecipeConfig) -> PoseStatistics:
    """The statistics in the joints that a model predicts, converted by name.

    Args:
        statistics: of rows of any joint sets.
        skeleton: target joint set.
        recipe: decides, as in training, which conversions count as labels.
    """
    people = 0
    labelled, in_3d = np.zeros(len(skeleton), np.int64), np.zeros(len(skeleton), np.int64)
    total = np.zeros((len(skeleton), 3))
    for text, found in statistics.skeletons.items():
        native = skeleton_named(text)
        table = recipe_conversion(native, skeleton, recipe)
        people += found.people
        parts = {k: ((i, 1.0),) for k, i in enumerate(table.index) if i >= 0} | dict(table.mixtures)
        for k, weights in parts.items():
            group = group_of(native, [native.joints[i] for i, _ in weights])
            of_group = found.groups[group]
            labelled[k] += of_group.people
            in_3d[k] += of_group.people_3d
            total[k] += sum(weight * of_group.total[group.index(native.joints[i])] for i, weight in weights)
    return PoseStatistics(skeleton, people, labelled, total / np.maximum(in_3d, 1)[:, None])


def scorable(statistics: JointStatistics, skeleton: Skeleton) -> int:
    """Number of people whose root the strict protocol scores, for a model of this joint set.

    It is an upper bound where that root is several joints of which no native joint set makes a root or a mean.
    """
    total = 0
    for text, found in statistics.skeletons.items():
        native = skeleton_named(text)
        index = [conversion(native, skeleton).index[i] for i in skeleton.root_indices]
        if min(index) >= 0:
            root = group_of(native, {native.joints[i] for i in index})
            counted = [root] if root in found.groups else [(joint,) for joint in root]
            total += min(found.groups[group].scored for group in counted)
    return total
