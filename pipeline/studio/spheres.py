"""Bodies and furniture approximated by spheres, for collisions, shadows and the visibility of joints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy import ndarray

from pipeline.studio.motion import Pose


@dataclass(frozen=True)
class Box:
    """A block of furniture: ``centre`` (3,) and half sizes ``half`` (3,) in cm, turned by ``yaw`` radians; RGB 0..1."""

    centre: ndarray
    half: ndarray
    yaw: float
    colour: ndarray


@dataclass(frozen=True)
class Spheres:
    """Spheres over T moments: ``centres`` (T, M, 3) and ``radii`` (M,), cm."""

    centres: ndarray
    radii: ndarray

    @cached_property
    def reach(self) -> float:
        """Largest distance of any sphere's surface from the centre of the first sphere, cm."""
        return float((np.linalg.norm(self.centres - self.centres[:, :1], axis=-1) + self.radii).max())


# Bones with the body's radii in cm at both ends, for a girth of 1. The hand and the foot count as bones.
_BONES = [("mid_hip", "waist", 14.0, 13.0), ("waist", "neck", 13.5, 11.5), ("neck", "head", 7.0, 12.0)]
for _s in "lr":
    _BONES += [
        (f"{_s}_shoulder", f"{_s}_elbow", 7.0, 5.0),
        (f"{_s}_elbow", f"{_s}_wrist", 5.0, 4.0),
        (f"{_s}_wrist", f"{_s}_fingers", 4.5, 4.0),
        (f"{_s}_hip", f"{_s}_knee", 10.5, 7.5),
        (f"{_s}_knee", f"{_s}_ankle", 7.5, 5.5),
        (f"{_s}_heel", f"{_s}_toe", 5.0, 5.0),
        ("neck", f"{_s}_shoulder", 9.0, 8.0),
    ]
SPHERES_PER_BONE = 4
"""Spheres of a body are ordered bone by bone, this many per bone, from one end to the other."""


def body_spheres(pose: Pose, girth: float) -> Spheres:
    """The spheres of a body, ``SPHERES_PER_BONE`` per bone; radii are never below those of girth 1, as clearance."""
    starts = np.stack([pose.points[a] for a, _, _, _ in _BONES], 1)[:, :, None]
    ends = np.stack([pose.points[b] for _, b, _, _ in _BONES], 1)[:, :, None]
    first, last = np.array([(a, b) for _, _, a, b in _BONES]).T[..., None]
    u = np.linspace(0, 1, SPHERES_PER_BONE)
    centres = (1 - u[:, None]) * starts + u[:, None] * ends  # (T, bones, SPHERES_PER_BONE, 3)
    radii = ((1 - u) * first + u * last) * max(girth, 1.0)
    return Spheres(centres.reshape(len(centres), -1, 3), radii.ravel())


def box_spheres(box: Box, moments: int) -> Spheres:
    """The spheres of a box at ``moments`` moments: a grid that fills it."""
    # Radius 0.8 r at distances of up to about 1.4 r: neighbours overlap.
    r = max(6.0, float(box.half.min()))
    steps = [np.linspace(-1, 1, max(2, int(np.ceil(h / (0.7 * r))))) * max(h - 0.75 * r, 0) for h in box.half]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    centres = turned_about_vertical(grid, box.yaw) + box.centre
    return Spheres(np.broadcast_to(centres, (moments, *centres.shape)), np.full(len(grid), 0.8 * r))


def turned_about_vertical(points: ndarray, yaw: float) -> ndarray:
    """Points (..., 3) turned by ``yaw`` radians about the vertical axis."""
    c, s = np.cos(yaw), np.sin(yaw)
    return points @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def overlap(a: Spheres, b: Spheres) -> bool:
    """Whether a sphere of one intersects a sphere of the other at any moment."""
    if np.linalg.norm(a.centres[:, 0] - b.centres[:, 0], axis=-1).min() > a.reach + b.reach:
        return False
    gap = a.centres[:, :, None] - b.centres[:, None]
    near = (a.radii[:, None] + b.radii) ** 2
    return bool((np.einsum("tijk,tijk->tij", gap, gap) < near).any())
