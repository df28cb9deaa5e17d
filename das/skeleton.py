"""Joint sets, and how one becomes another.

A joint set consists of names, bones and the root. Everything else (indices, left/right pairs, flip permutations,
conversions) is derived from the names, so two tables cannot disagree.

Names follow one grammar: ``l_`` and ``r_`` mark the person's own left and right. Two joint sets share a joint
when they share its name; the few deliberate exceptions are the aliases below, each printed by ``Conversion``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal


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
        if not self.name.strip():
            raise ValueError("skeleton without a name, wanted one that no other joint set has")
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

    @property
    def text(self) -> str:
        """What a row's ``skeleton`` column holds: a known set's name, of any other set its whole definition as JSON.

        So a row can be read without the file that defined its joint set; ``skeleton_named`` inverts it.
        """
        return self.name if SKELETONS.get(self.name) == self else json.dumps(self.to_json())

    def to_json(self) -> dict[str, object]:
        """A plain dict for config.json; ``from_json`` inverts it."""
        return {"name": self.name, "joints": list(self.joints), "bones": [list(b) for b in self.bones],
                "root": list(self.root)}  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Skeleton:
        """Inverse of ``to_json``; ValueError when a field is missing or malformed."""

        def names(of: object, field: str) -> tuple[str, ...]:
            if not isinstance(of, list) or not all(isinstance(name, str) for name in of):
                wanted = f"{field} as a list of joint names"
                raise ValueError(f"skeleton needs name, joints, bones and root; found {of!r}, wanted {wanted}")
            return tuple(of)

        try:
            name, bones = value["name"], [names(bone, "bones") for bone in value["bones"]]
            if not isinstance(name, str) or any(len(bone) != 2 for bone in bones):
                raise ValueError("skeleton needs name, joints, bones and root; wanted a text, and two joints a bone")
            return cls(
                name=name,
                joints=names(value["joints"], "joints"),
                bones=tuple((parent, child) for parent, child in bones),
                root=names(value["root"], "root"),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"skeleton needs name, joints, bones and root, found {value!r}") from error


def _mirror(joint: str) -> str:
    """Name of the joint on the other side; a joint in the middle of the body keeps its name."""
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


@lru_cache(maxsize=64)  # rows carry texts, and there are many rows
def skeleton_named(text: str) -> Skeleton:
    """The joint set of that name, or the one that the text defines (``Skeleton.text``).

    Raises:
        ValueError: an unknown name (lists the known ones), a malformed definition, or one that takes the name of a
            known set.
    """
    if not text.lstrip().startswith("{"):
        if text not in SKELETONS:
            raise ValueError(f"unknown joint set {text!r}; known: {', '.join(SKELETONS)}, or a skeleton as JSON")
        return SKELETONS[text]
    try:
        skeleton = Skeleton.from_json(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"skeleton: not JSON ({error})") from error
    if SKELETONS.get(skeleton.name, skeleton) != skeleton:
        raise ValueError(f"skeleton: {skeleton.name!r} is a known set of other joints: choose another name")
    return skeleton


def read_skeleton(path: str | Path) -> Skeleton:
    """A joint set from a JSON file with name, joints, bones and root; ValueError names the file and what is wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read ({reason}), wanted a skeleton as JSON") from error
    if not text.lstrip().startswith("{"):
        raise ValueError(f"{path}: wanted a JSON object with name, joints, bones and root")
    try:
        return skeleton_named(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


# (source joint, target joint) by pairs of sets: joints of different names of which one may be used for the other.
# The head of PANOPTIC15 is whatever the annotation offers. Pelvis and mid-hip are both the middle of the hips.
ALIASES = (
    ("mpi15", "head_top", "panoptic15", "head"),
    ("coco19", "nose", "panoptic15", "head"),
    ("coco17", "nose", "panoptic15", "head"),
    *((mpi, "pelvis", cmu, "mid_hip") for mpi in ("mupots17", "muco21") for cmu in ("panoptic15", "coco19", "mpi15")),
    *((cmu, "mid_hip", mpi, "pelvis") for mpi in ("mupots17", "muco21") for cmu in ("panoptic15", "coco19", "mpi15")),
)

Synthesised = Literal["neck", "mid_hip"]

_MIDDLE_OF_SHOULDERS = {"l_shoulder": 0.5, "r_shoulder": 0.5}
_MIDDLE_OF_HIPS = {"l_hip": 0.5, "r_hip": 0.5}
# MPI's neck is an eighth of the trunk's length above the middle of the shoulders.
_ABOVE_SHOULDERS = {"l_shoulder": 0.5625, "r_shoulder": 0.5625, "l_hip": -0.0625, "r_hip": -0.0625}
# Joints that may be computed from others, by target set: weights of source joints, which sum to 1. Mean distance
# of the real joint from it, measured on real labels: Panoptic's neck 9 mm and mid-hip 26 mm (160906_band1),
# MuPoTS' neck 30 mm and pelvis 0 mm (TS1-10).
SYNTHESIS: dict[Synthesised, dict[str, tuple[str, Mapping[str, float]]]] = {
    "neck": {
        **{name: ("neck", _MIDDLE_OF_SHOULDERS) for name in ("panoptic15", "coco19")},
        **{name: ("neck", _ABOVE_SHOULDERS) for name in ("mupots17", "muco21")},
    },
    "mid_hip": {
        **{name: ("mid_hip", _MIDDLE_OF_HIPS) for name in ("panoptic15", "coco19", "mpi15")},
        **{name: ("pelvis", _MIDDLE_OF_HIPS) for name in ("mupots17", "muco21")},
    },
}


@dataclass(frozen=True)
class Conversion:
    """How every joint of ``target`` is read from ``source``.

    Attributes:
        index: for target joint k, the source joint it is read from, or -1 when the source has none.
        mixtures: (target joint, (source joint, weight), ...) for joints computed from others; their index is -1.
    """

    source: Skeleton
    target: Skeleton
    index: tuple[int, ...]
    mixtures: tuple[tuple[int, tuple[tuple[int, float], ...]], ...] = ()

    def __str__(self) -> str:
        made = {
            k: " + ".join(f"{weight:g} {self.source.joints[i]}" for i, weight in parts) for k, parts in self.mixtures
        }
        reads = (self.source.joints[i] if i >= 0 else made.get(k, "-") for k, i in enumerate(self.index))
        rows = (f"  {t} <- {s}" for t, s in zip(self.target.joints, reads, strict=True))
        return "\n".join((f"{self.source.name} -> {self.target.name}", *rows))


def conversion(source: Skeleton, target: Skeleton, synthesise: Collection[Synthesised] = ()) -> Conversion:
    """Conversion by name, with the explicit aliases.

    Args:
        source: the joints that there are.
        target: the joints that are wanted.
        synthesise: joints that are computed from others (``SYNTHESIS``) where the source lacks them; none by default,
            as in the release.
    """
    alias = {t: j for s, j, name, t in ALIASES if (s, name) == (source.name, target.name)}

    def read(joint: str) -> int:
        # An alias wins over an equal name: it is the deliberate choice.
        name = alias.get(joint, joint)
        return source.joints.index(name) if name in source.joints else -1

    index = tuple(read(j) for j in target.joints)
    mixtures = []
    for kind in sorted(synthesise):
        joint, weights = SYNTHESIS[kind].get(target.name, ("", {}))
        if joint and index[target.index(joint)] < 0 and set(weights) <= set(source.joints):
            mixtures.append((target.index(joint), tuple((source.index(j), w) for j, w in weights.items())))
    return Conversion(source, target, index, tuple(mixtures))
