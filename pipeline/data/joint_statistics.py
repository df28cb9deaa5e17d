"""What a training has to know of all annotations at once, in a few numbers for each joint set.

Mean pose, labelled joints and the number of people depend on the joints that a model predicts and on the recipe, which
are not known when data are prepared. But every target joint is either read from one native joint or is a weighted mean
of some (``das.skeleton.SYNTHESIS``). So it is enough to count, for each native joint and each group of joints that is
averaged, the people of whom all joints of the group are labelled, and to add up their positions. From that the numbers
follow for every target joint set and recipe.

The tasks of `das prepare` gather the statistics of their shards; the manifest holds the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from das.skeleton import SYNTHESIS, Skeleton, skeleton_named
from das.transforms import inside
from pipeline.data.record import UNLABELLED, Record

# Records that are gathered before their people are counted together: NumPy calls on single people take longer.
_TOGETHER = 64

Group = tuple[str, ...]
"""Names of native joints, in the order of the joint set."""


@dataclass
class GroupStatistics:
    """People of whom all joints of a group are labelled.

    Attributes:
        people: usable people (not ignored, valid, with a root), in 2D or 3D.
        people_3d: usable people in 3D.
        scored: people in 3D, not ignored and valid, of whom all joints of the group are also inside the image: the
            strict protocol scores these joints.
        total: (joints of the group, 3) mm, sum over ``people_3d`` of joint - root in camera axes.
    """

    people: int
    people_3d: int
    scored: int
    total: np.ndarray

    @classmethod
    def empty(cls, joints: int) -> GroupStatistics:
        """Of no people."""
        return cls(0, 0, 0, np.zeros((joints, 3)))

    def add(self, other: GroupStatistics) -> None:
        """Adds other people."""
        self.people += other.people
        self.people_3d += other.people_3d
        self.scored += other.scored
        self.total += other.total


@dataclass
class SkeletonStatistics:
    """Rows of one native joint set.

    Attributes:
        images: number of rows. images_3d: of those, annotated in 3D. people: number of usable people.
        groups: by joints.
    """

    images: int = 0
    images_3d: int = 0
    people: int = 0
    groups: dict[Group, GroupStatistics] = field(default_factory=dict)


class JointStatistics:
    """Statistics of rows, by native joint set; rows are added one by one, statistics of shards as a whole.

    Attributes:
        skeletons: by ``Skeleton.text``, as rows have it.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.skeletons: dict[str, SkeletonStatistics] = {}
        self._waiting: dict[str, list[Record]] = {}
        for record in records:
            self.add(record)
        self.flush()

    def add(self, record: Record) -> None:
        """Adds a row; its image is not looked at. Counted at the latest by ``flush``."""
        waiting = self._waiting.setdefault(record.skeleton, [])
        waiting.append(replace(record, image=b""))
        if len(waiting) == _TOGETHER:
            self._count(record.skeleton, waiting)
            waiting.clear()

    def flush(self) -> None:
        """Counts the rows that were added."""
        for text, waiting in self._waiting.items():
            self._count(text, waiting)
        self._waiting.clear()

    def merge(self, other: JointStatistics) -> None:
        """Adds the statistics of other rows."""
        for text, theirs in other.skeletons.items():
            ours = self.skeletons.setdefault(text, SkeletonStatistics())
            ours.images += theirs.images
            ours.images_3d += theirs.images_3d
            ours.people += theirs.people
            for group, found in theirs.groups.items():
                ours.groups.setdefault(group, GroupStatistics.empty(len(group))).add(found)

    @property
    def complete(self) -> bool:
        """Whether all groups are counted that this version of the code asks for."""
        wanted = {text: set(groups_of(skeleton_named(text))) for text in self.skeletons}
        return all(wanted[text] <= found.groups.keys() for text, found in self.skeletons.items())

    def to_json(self) -> dict[str, Any]:
        """A plain dict for reports and manifests; ``from_json`` inverts it exactly."""
        return {
            text: {
                "images": found.images,
                "images_3d": found.images_3d,
                "people": found.people,
                "groups": [
                    [*group, g.people, g.people_3d, g.scored, *g.total.ravel().tolist()]
                    for group, g in found.groups.items()
                ],
            }
            for text, found in sorted(self.skeletons.items())
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JointStatistics:
        """Inverse of ``to_json``."""
        made = cls()
        for text, found in value.items():
            groups = {}
            for entry in found["groups"]:
                group = tuple(name for name in entry if isinstance(name, str))
                people, people_3d, scored, *total = entry[len(group) :]
                groups[group] = GroupStatistics(people, people_3d, scored, np.reshape(total, (len(group), 3)))
            made.skeletons[text] = SkeletonStatistics(found["images"], found["images_3d"], found["people"], groups)
        return made

    def _count(self, text: str, records: Sequence[Record]) -> None:
        """Adds rows of one joint set."""
        if not records:
            return
        skeleton = skeleton_named(text)
        found = self.skeletons.setdefault(text, SkeletonStatistics())
        root = list(skeleton.root_indices)
        known = np.concatenate([record.state > UNLABELLED for record in records])  # (N, J)
        meant = np.concatenate([record.valid & ~record.ignore for record in records])
        in_3d = np.concatenate([np.full(len(record), record.joints_cam is not None) for record in records])
        seen = np.concatenate([inside(record.joints_uv, record.height, record.width) for record in records])
        usable = meant & known[:, root].all(axis=1)
        joints = np.concatenate([_joints(record) for record in records])
        aligned = joints - joints[:, root].mean(axis=1, keepdims=True)
        found.images += len(records)
        found.images_3d += sum(record.joints_cam is not None for record in records)
        found.people += int(usable.sum())
        for group in groups_of(skeleton):
            columns = [skeleton.index(joint) for joint in group]
            whole = known[:, columns].all(axis=1)
            summed = usable & in_3d & whole
            found.groups.setdefault(group, GroupStatistics.empty(len(group))).add(
                GroupStatistics(
                    int((usable & whole).sum()),
                    int(summed.sum()),
                    int((meant & in_3d & whole & seen[:, columns].all(axis=1)).sum()),
                    aligned[summed][:, columns].sum(axis=0),
                )
            )


def _joints(record: Record) -> np.ndarray:
    """(N, J, 3) float64 mm; zero in 2D."""
    flat = np.zeros((*record.state.shape, 3))
    return flat if record.joints_cam is None else record.joints_cam.astype(np.float64)


def groups_of(skeleton: Skeleton) -> Iterator[Group]:
    """The groups of joints that are counted: each joint, the root, and the joints of each mean that it has."""
    together = [weights for targets in SYNTHESIS.values() for _, weights in targets.values()]
    groups: list[Group] = [(joint,) for joint in skeleton.joints]
    for joints in (skeleton.root, *together):
        if set(joints) <= set(skeleton.joints):
            groups.append(group_of(skeleton, joints))
    yield from dict.fromkeys(groups)


def group_of(skeleton: Skeleton, joints: Iterable[str]) -> Group:
    """The group of these joints of a joint set."""
    return tuple(sorted(joints, key=skeleton.index))
