"""What is counted of prepared data, record by record, in bounded memory and without images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from das.skeleton import Skeleton, skeleton_named
from das.transforms import inside
from pipeline.data.browse.assignment import Network, targets_of
from pipeline.data.manifest import SplitInfo
from pipeline.data.record import OCCLUDED, UNLABELLED, Record, left_out
from pipeline.infra.html.histogram import Histogram


@dataclass
class JointStatistics:
    """Joints and bones of one joint set.

    Attributes:
        skeleton: the set of the J joints.
        people: how many there are, ignore areas and invalid people left out.
        labelled, occluded, visible: (J,) in how many each joint is labelled; of those occluded; and labelled and
            inside the image, which is what training calls visible.
        bones: lengths in mm of people in 3D, by bone.
    """

    skeleton: Skeleton
    people: int = 0
    labelled: np.ndarray = field(init=False)
    occluded: np.ndarray = field(init=False)
    visible: np.ndarray = field(init=False)
    bones: list[Histogram] = field(init=False)

    def __post_init__(self) -> None:
        self.labelled, self.occluded, self.visible = (np.zeros(len(self.skeleton), np.int64) for _ in range(3))
        self.bones = [Histogram(2.0, 2000.0) for _ in self.skeleton.bones]

    def add(self, record: Record) -> None:
        """Counts the people of a record of this joint set."""
        people = ~record.ignore & record.valid
        state = record.state[people]
        known = state > UNLABELLED
        self.people += len(state)
        self.labelled += known.sum(axis=0)
        self.occluded += (state == OCCLUDED).sum(axis=0)
        self.visible += (known & inside(record.joints_uv[people], record.height, record.width)).sum(axis=0)
        if record.joints_cam is not None:
            joints = record.joints_cam[people].astype(np.float64)
            for (a, b), lengths in zip(self.skeleton.bone_indices, self.bones, strict=True):
                both = known[:, a] & known[:, b]
                lengths.add(np.linalg.norm(joints[both, a] - joints[both, b], axis=-1))


@dataclass
class LevelStatistics:
    """People on the pyramid levels of one model, of some images.

    Attributes:
        seen_by: model and recipe.
        images: how many were looked at. people: in them that could be taught.
        on_level: (L,) people by level. points: feature points of all of them by level.
        r_max: px of the network input, center to farthest visible joint.
        unanswered: people whom no feature point answers for, by reason.
    """

    seen_by: Network
    images: int = 0
    people: int = 0
    on_level: np.ndarray = field(init=False)
    points: np.ndarray = field(init=False)
    r_max: Histogram = field(default_factory=lambda: Histogram(4.0, 1200.0))
    unanswered: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.on_level, self.points = (np.zeros(len(self.seen_by.model.strides), np.int64) for _ in range(2))

    def add(self, record: Record) -> None:
        """Assigns the people of one record."""
        targets = targets_of(record, self.seen_by, with_image=False)
        self.images += 1
        self.people += len(targets.people)
        there = targets.level >= 0
        np.add.at(self.on_level, targets.level[there], 1)
        np.add.at(self.points, targets.level[there], targets.points[there])
        self.r_max.add(targets.r_max)
        self.unanswered.update(targets.why[targets.people[~there]].tolist())


@dataclass
class SplitStatistics:
    """One split of a prepared folder.

    Attributes:
        info: what the manifest says of it.
        people_per_image: usable people. depth: of their roots, m. left_out: the others, by reason.
        joints: by joint set. levels: None when nothing is assigned.
    """

    info: SplitInfo
    people_per_image: Histogram = field(default_factory=lambda: Histogram(1, 100))
    depth: Histogram = field(default_factory=lambda: Histogram(0.1, 50.0))
    left_out: Counter[str] = field(default_factory=Counter)
    joints: dict[str, JointStatistics] = field(default_factory=dict)
    levels: LevelStatistics | None = None

    def add(self, record: Record) -> None:
        """Counts one record, its levels apart."""
        reasons = left_out(record)
        usable = reasons == ""
        self.people_per_image.add(usable.sum(keepdims=True))
        self.left_out.update(reasons[~usable].tolist())
        skeleton = skeleton_named(record.skeleton)
        if record.joints_cam is not None:
            roots = record.joints_cam[usable][:, list(skeleton.root_indices), 2].astype(np.float64)
            self.depth.add(roots.mean(axis=1) / 1000)
        self.joints.setdefault(skeleton.name, JointStatistics(skeleton)).add(record)
