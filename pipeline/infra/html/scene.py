"""Data of the interactive 3D view, which templates/scene.js draws: people in one upright space.

Positions are metres, with the camera at the origin: x right, y down along gravity, z forward. A scene is an object with

    bones    pairs of joints
    sides    of each joint: "l", "r" or ""
    root     joints whose mean is a person's root
    colors   of each person by number: middle, left, right
    frames   {people: [{joints, score, note}], view, ...}: what stands in one moment; ``time`` in ms within a clip
    clips    [first frame, one past the last] of each entry of the list; absent where every frame is an entry
    images   data: URIs of pictures, which frames name by ``image``; absent where the page has them
"""

from __future__ import annotations

from typing import Any

import numpy as np

from das.camera import back_project
from das.draw.people import person_color, side_color
from das.skeleton import Skeleton


def scene_skeleton(skeleton: Skeleton, people: int) -> dict[str, Any]:
    """The parts of a scene that are the same in all frames.

    Args:
        skeleton: the joint set.
        people: largest number of people in a frame.
    """
    sides = [joint[0] if joint.startswith(("l_", "r_")) else "" for joint in skeleton.joints]
    colors = [
        ["#{:02x}{:02x}{:02x}".format(*side_color(prefix, person_color(i))) for prefix in ("", "l_", "r_")]
        for i in range(people)
    ]
    return {"bones": skeleton.bone_indices, "sides": sides, "root": list(skeleton.root_indices), "colors": colors}


def upright_joints(joints_cam: np.ndarray, valid: np.ndarray, axes: np.ndarray) -> list[list[float] | None]:
    """Joints (J, 3) mm in metres in the upright space, to the millimetre; None for joints that are not shown.

    ``axes`` (3, 3) is of ``das.draw.top_view.level_axes``.
    """
    level = np.round(joints_cam @ axes.T / 1000, 3)
    shown = valid & np.isfinite(level).all(axis=1)
    return [point if ok else None for point, ok in zip(level.tolist(), shown, strict=True)]


def view_corners(K: np.ndarray, height: int, width: int, axes: np.ndarray) -> list[list[float]]:
    """The image's four corners 500 mm in front of the camera, without lens distortion; (4, 3) metres."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
    rays = back_project(corners, np.full(4, 500.0), np.asarray(K, float))
    points: list[list[float]] = np.round(rays @ axes.T / 1000, 3).tolist()
    return points
