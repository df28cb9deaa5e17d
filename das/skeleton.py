"""Joint sets, and how one becomes another.

A joint set is data: names, bones and the root. Everything else (indices, left/right pairs, flip permutations,
conversions) is derived from the names, so a table typed by hand cannot drift from another one.

Names follow one grammar: ``l_`` and ``r_`` mark the person's own left and right. Two joint sets share a joint
when they share its name; the few deliberate exceptions are the aliases below, each printed by ``Conversion``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Skeleton:
    """One joint set.

    Attributes:
        name: identity of the set, as written in rows and checkpoints.
        joints: J joint names in storage order.
        bones: (parent, child) joint names.
        root: names of the joints whose mean is the person's root (one name, or both hips for COCO).
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[str, str], ...]
    root: tuple[str, ...]

    def __post_init__(self) -> None:
        known = set(self.joints)
        if not self.root or not known or len(known) != len(self.joints):
            raise ValueError(f"skeleton {self.name!r}: wanted a root and joints, each once, found {self.joints}")
        for joint in (*self.root, *(joint for bone in self.bones for joint in bone)):
            if joint not in known:
                raise ValueError(f"skeleton {self.name!r}: bones or root name {joint!r}, which is no joint of it")
        for joint in self.joints:
            if _mirror(joint) not in known:
                raise ValueError(f"skeleton {self.name!r}: joint {joint!r} has no partner {_mirror(joint)!r}")

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Position of a joint name; ValueError if the set has no such joint."""
        if joint not in self.joints:
            raise ValueError(f"skeleton {self.name!r} has no joint {joint!r}, only {', '.join(self.joints)}")
        return self.joints.index(joint)

    @cached_property
    def root_indices(self) -> tuple[int, ...]:
        """Indices of the joints whose mean is the root."""
        return tuple(self.index(j) for j in self.root)

    @property
    def root_index(self) -> int:
        """Index of the root joint; ValueError for a set whose root is not itself a joint (COCO17)."""
        if len(self.root) != 1:
            raise ValueError(f"skeleton {self.name!r} has no root joint: its root is the mean of {self.root}")
        return self.root_indices[0]

    @cached_property
    def bone_indices(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) indices of every bone."""
        return tuple((self.index(a), self.index(b)) for a, b in self.bones)

    @cached_property
    def flip_permutation(self) -> tuple[int, ...]:
        """``flipped[k] = original[flip_permutation[k]]`` swaps left and right; an involution."""
        return tuple(self.index(_mirror(j)) for j in self.joints)

    def to_json(self) -> dict[str, object]:
        """A plain dict for config.json; ``from_json`` inverts it."""
        return {"name": self.name, "joints": list(self.joints), "bones": [list(b) for b in self.bones],
                "root": list(self.root)}  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Skeleton:
        """Inverse of ``to_json``; ValueError when a field is missing or malformed."""
        try:
            return cls(
                name=str(value["name"]),
                joints=tuple(str(joint) for joint in value["joints"]),
                bones=tuple((str(parent), str(child)) for parent, child in value["bones"]),
                root=tuple(str(joint) for joint in value["root"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"skeleton needs name, joints, bones and root, found {value!r}") from error


def _mirror(joint: str) -> str:
    """Name of the joint on the other side; the joint itself when it lies in the middle."""
    swap = {"l_": "r_", "r_": "l_"}
    return swap.get(joint[:2], joint[:2]) + joint[2:]


def _limbs(side: str) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"))


def _limb_bones(neck: str, pelvis: str) -> tuple[tuple[str, str], ...]:
    arms_and_legs = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
    bones = []
    for s in "lr":
        bones += [(neck, f"{s}_shoulder"), (pelvis, f"{s}_hip")]
        bones += [(f"{s}_{a}", f"{s}_{b}") for a, b in arms_and_legs]
    return tuple(bones)


_PANOPTIC_BODY = _limbs("l") + _limbs("r")
_PANOPTIC_BONES = (("mid_hip", "neck"), *_limb_bones("neck", "mid_hip"))
_FACE = ("l_eye", "l_ear", "r_eye", "r_ear")

# The 15 joints the model predicts on Panoptic. Slot 1 holds whatever the annotation offers for the head.
PANOPTIC15 = Skeleton(
    "panoptic15",
    ("neck", "head", "mid_hip", *_PANOPTIC_BODY),
    (("neck", "head"), *_PANOPTIC_BONES),
    ("mid_hip",),
)
# hdPose3d_stage1_coco19 files: slot 1 is the nose.
COCO19 = Skeleton(
    "coco19",
    ("neck", "nose", "mid_hip", *_PANOPTIC_BODY, *_FACE),
    (
        ("neck", "nose"),
        *_PANOPTIC_BONES,
        ("nose", "l_eye"),
        ("l_eye", "l_ear"),
        ("nose", "r_eye"),
        ("r_eye", "r_ear"),
    ),
    ("mid_hip",),
)
# hdPose3d_stage1 files of older sequences: slot 1 is the head top.
MPI15 = Skeleton(
    "mpi15",
    ("neck", "head_top", "mid_hip", *_PANOPTIC_BODY),
    (("neck", "head_top"), *_PANOPTIC_BONES),
    ("mid_hip",),
)
COCO17 = Skeleton(
    "coco17",
    (
        "nose",
        "l_eye",
        "r_eye",
        "l_ear",
        "r_ear",
        *(f"{s}_{p}" for p in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for s in "lr"),
    ),
    (
        ("nose", "l_eye"),
        ("nose", "r_eye"),
        ("l_eye", "l_ear"),
        ("r_eye", "r_ear"),
        ("l_shoulder", "r_shoulder"),
        ("l_hip", "r_hip"),
        *((f"{s}_{a}", f"{s}_{b}") for s in "lr"
          for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("shoulder", "hip"),
                       ("hip", "knee"), ("knee", "ankle"))),
    ),
    ("l_hip", "r_hip"),
)  # fmt: skip
_MUPOTS_JOINTS = (
    "head_top",
    "neck",
    *(f"{s}_{p}" for s in "rl" for p in ("shoulder", "elbow", "wrist")),
    *(f"{s}_{p}" for s in "rl" for p in ("hip", "knee", "ankle")),
    "pelvis",
    "spine",
    "head",
)
_MUPOTS_BONES = (
    ("pelvis", "spine"),
    ("spine", "neck"),
    ("neck", "head"),
    ("head", "head_top"),
    *_limb_bones("neck", "pelvis"),
)
MUPOTS17 = Skeleton("mupots17", _MUPOTS_JOINTS, _MUPOTS_BONES, ("pelvis",))
MUCO21 = Skeleton(
    "muco21",
    (*_MUPOTS_JOINTS, "r_hand", "l_hand", "r_toe", "l_toe"),
    (
        *_MUPOTS_BONES,
        ("r_wrist", "r_hand"),
        ("l_wrist", "l_hand"),
        ("r_ankle", "r_toe"),
        ("l_ankle", "l_toe"),
    ),
    ("pelvis",),
)

SKELETONS = {s.name: s for s in (PANOPTIC15, COCO19, MPI15, COCO17, MUPOTS17, MUCO21)}


def skeleton_named(name: str) -> Skeleton:
    """The joint set of that name; ValueError lists the known ones."""
    if name not in SKELETONS:
        raise ValueError(f"unknown joint set {name!r}; known: {', '.join(SKELETONS)}")
    return SKELETONS[name]


# (source set, source joint, target set, target joint): joints whose names differ though one may stand for the
# other. The head of PANOPTIC15 is whatever the annotation offers; pelvis and mid-hip are one point.
ALIASES = (
    ("mpi15", "head_top", "panoptic15", "head"),
    ("coco19", "nose", "panoptic15", "head"),
    ("coco17", "nose", "panoptic15", "head"),
    ("mupots17", "pelvis", "panoptic15", "mid_hip"),
    ("muco21", "pelvis", "panoptic15", "mid_hip"),
)


@dataclass(frozen=True)
class Conversion:
    """How every joint of ``target`` is read from ``source``.

    Attributes:
        index: for target joint k, the source joint it is read from, or -1 when the source has none.
    """

    source: Skeleton
    target: Skeleton
    index: tuple[int, ...]

    def __str__(self) -> str:
        reads = (self.source.joints[i] if i >= 0 else "-" for i in self.index)
        rows = (f"  {t} <- {s}" for t, s in zip(self.target.joints, reads, strict=True))
        return "\n".join((f"{self.source.name} -> {self.target.name}", *rows))


def conversion(source: Skeleton, target: Skeleton) -> Conversion:
    """Conversion by name, with the explicit aliases; nothing is synthesised."""
    alias = {t: j for s, j, name, t in ALIASES if (s, name) == (source.name, target.name)}

    def read(joint: str) -> int:
        # An alias wins over an equal name: it is the deliberate choice.
        name = alias.get(joint, joint)
        return source.joints.index(name) if name in source.joints else -1

    return Conversion(source, target, tuple(read(j) for j in target.joints))
