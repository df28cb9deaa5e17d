"""Positions of every joint set's joints on the studio's body.

The names "spine" and "head" of MPI-INF-3DHP are ambiguous. They are placed as in the annotations of MuPoTS-3D: the
spine at 0.47 of the way from pelvis to neck, the head at 0.33 of the way from neck to head top, where the skull meets
the neck.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from das.skeleton import Skeleton
from pipeline.studio.motion import Pose
from pipeline.studio.person import Person

# Largest depth of each joint below the body's own surface, cm, for a girth of 1. A surface that is further in front
# of a joint than this is another body or another limb, and hides it.
SURFACE_DEPTH = {
    "head_top": 5.0, "nose": 4.0, "eye": 4.0, "ear": 5.0, "head": 14.0, "neck": 13.0, "shoulder": 12.0, "elbow": 8.0,
    "wrist": 6.0, "hand": 6.0, "spine": 18.0, "pelvis": 18.0, "mid_hip": 18.0, "hip": 17.0, "knee": 11.0, "ankle": 9.0,
    "toe": 7.0,
}  # fmt: skip


def joint_points(person: Person, pose: Pose, skeleton: Skeleton) -> ndarray:
    """(T, J, 3) cm, stage frame, in the order of ``skeleton``.

    Raises:
        ValueError: the body has no joint of that name.
    """
    return np.stack([_point(person, pose, name, skeleton) for name in skeleton.joints], 1)


def joint_depths(person: Person, skeleton: Skeleton) -> ndarray:
    """(J,) cm: largest depth of each joint below the body's own surface."""
    kinds = (name[2:] if name[:2] in ("l_", "r_") else name for name in skeleton.joints)
    return np.array([SURFACE_DEPTH[kind] for kind in kinds]) * max(person.girth, 1.0) + 2.0  # 2 cm of tolerance


def _point(person: Person, pose: Pose, name: str, skeleton: Skeleton) -> ndarray:
    p, a = pose.points, pose.axes
    if name == "pelvis":
        return p["mid_hip"]
    if name == "spine":
        # 0.19 of the way from waist to neck is 0.47 from pelvis to neck at mean proportions.
        return p["waist"] + 0.19 * (p["neck"] - p["waist"])
    if name == "head":
        return p["skull"]
    if name == "head_top":
        return p["head"] + person.head * (0.96 * a["head_up"] - 0.05 * a["head_forward"])
    if name in ("l_hand", "r_hand"):  # the knuckles
        return 0.5 * (p[f"{name[0]}_wrist"] + p[f"{name[0]}_fingers"])
    if name not in p:
        raise ValueError(f"joint set {skeleton.name!r}: the studio's people have no joint {name!r}")
    return p[name]
