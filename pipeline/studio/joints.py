"""The joints of every joint set on the studio's one body: by anatomical name, whatever the set calls them.

Where MPI-INF-3DHP's names are ambiguous, its real annotations decide: over MuPoTS-3D the spine lies 0.47 of the way
from pelvis to neck and the head 0.33 of the way from neck to head top, which is where the skull sits on the neck.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from das.skeleton import Skeleton
from pipeline.studio.motion import Pose
from pipeline.studio.person import Person

# How far the body's surface may lie in front of a joint that it does not hide, cm, for a girth of 1.
DEPTH = {
    "head_top": 5.0, "nose": 4.0, "eye": 4.0, "ear": 5.0, "head": 14.0, "neck": 13.0, "shoulder": 12.0, "elbow": 8.0,
    "wrist": 6.0, "hand": 6.0, "spine": 18.0, "pelvis": 18.0, "mid_hip": 18.0, "hip": 17.0, "knee": 11.0, "ankle": 9.0,
    "toe": 7.0,
}  # fmt: skip


def joint_points(person: Person, pose: Pose, skeleton: Skeleton) -> ndarray:
    """(T, J, 3) cm, the stage's frame, in the order of ``skeleton``.

    Raises:
        ValueError: the set has a joint that this body does not know.
    """
    return np.stack([_point(person, pose, name, skeleton) for name in skeleton.joints], 1)


def joint_depths(person: Person, skeleton: Skeleton) -> ndarray:
    """(J,) cm: how deep below the body's surface each joint may lie and still be seen."""
    kinds = (name[2:] if name[:2] in ("l_", "r_") else name for name in skeleton.joints)
    return np.array([DEPTH[kind] for kind in kinds]) * max(person.girth, 1.0) + 2.0


def _point(person: Person, pose: Pose, name: str, skeleton: Skeleton) -> ndarray:
    p, a = pose.points, pose.axes
    if name == "pelvis":
        return p["mid_hip"]
    if name == "spine":
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
