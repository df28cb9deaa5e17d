"""Statistics of prepared data, added record by record in bounded memory and without images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from das.skeleton import Skeleton, skeleton_named
from das.transforms import inside
from pipeline.data.browse.assignment import Preset, assign_record
from pipeline.data.manifest import SplitInfo
from pipeline.data.record import OCCLUDED, UNLABELLED, Record, left_out
from pipeline.infra.html.histogram import Histogram


@dataclass
class JointStatistics:
    """Joints and bones of one joint set.

    Attributes:
        skeleton: the set of the J joints.
        people: number of people without ignore areas and invalid people.
        labelled: (J,) number of people in whom each joint is labelled.
        occluded: (J,) of those, joints labelled as occluded.
        visible: (J,) labelled joints inside the image, which training calls visible.
        bones: lengths in mm of each bone, of people with 3D joints.
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
    """People and positives on the pyramid levels of one model, of some of a split's images.

    Attributes:
        preset: model and recipe.
        images: number of assigned images.
        people: number of people in them who can be used for training.
        on_level: (L,) people by level.
        points: (L,) positives of all these people by level.
        r_max: px of the network input, distance from the center to the farthest visible joint.
        without_positives: number of people without a positive feature point, by reason.
    """

    preset: Preset
    images: int = 0
    people: int = 0
    on_level: np.ndarray = field(init=False)
    points: np.ndarray = field(init=False)
    r_max: Histogram = field(default_factory=lambda: Histogram(4.0, 1200.0))
    without_positives: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.on_level, self.points = (np.zeros(len(self.preset.model.strides), np.int64) for _ in range(2))

    def add(self, record: Record) -> None:
        """Assigns the people of one record and counts them."""
        found = assign_record(record, self.preset, with_image=False)
        self.images += 1
        self.people += len(found.people)
        assigned = found.level >= 0
        np.add.at(self.on_level, found.level[assigned], 1)
        np.add.at(self.points, found.level[assigned], found.points[assigned])
        self.r_max.add(found.r_max)
        self.without_positives.update(found.reasons[found.people[~assigned]].tolist())


@dataclass
class SplitStatistics:
    """Statistics of one split of a prepared folder. Usable people are those for training or scoring.

    Attributes:
        info: the split's entry in the manifest.
        people_per_image: number of usable people in an image.
        depth: z of their roots, m.
        left_out: number of the other people, by reason.
        joints: by the name of the joint set.
        levels: of the assigned images; None when none is assigned.
    """

    info: SplitInfo
    people_per_image: Histogram = field(default_factory=lambda: Histogram(1, 100))
    depth: Histogram = field(default_factory=lambda: Histogram(0.1, 50.0))
    left_out: Counter[str] = field(default_factory=Counter)
    joints: dict[str, JointStatistics] = field(default_factory=dict)
    levels: LevelStatistics | None = None

    def add(self, record: Record) -> None:
        """Adds one record to all fields but ``levels``, which takes fewer images."""
        reasons = left_out(record)
        usable = reasons == ""
        self.people_per_image.add(usable.sum(keepdims=True))
        self.left_out.update(reasons[~usable].tolist())
        skeleton = skeleton_named(record.skeleton)
        if record.joints_cam is not None:
            # Two root joints where the root is the middle of both hips, as in COCO.
            roots = record.joints_cam[usable][:, list(skeleton.root_indices), 2].astype(np.float64)
            self.depth.add(roots.mean(axis=1) / 1000)
        self.joints.setdefault(skeleton.name, JointStatistics(skeleton)).add(record)
