"""Rotations, smooth curves in time and two-bone inverse kinematics, all over T moments at once.

The stage frame: centimetres, x to the left of a person who faces along z, y UP, floor at y = 0. Panoptic's world has
Y down; ``to_world`` converts by half a turn about x, which is its own inverse.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

WORLD_FROM_STAGE = np.diag([1.0, -1.0, -1.0])


def to_world(points: ndarray) -> ndarray:
    """Stage frame to Panoptic world, and back, (..., 3)."""
    return points * np.diag(WORLD_FROM_STAGE)


def unit(v: ndarray) -> ndarray:
    """Scales vectors (..., 3) to length 1."""
    return v / np.sqrt(np.einsum("...i,...i->...", v, v))[..., None]


def rotation(axis: str, angle: ndarray) -> ndarray:
    """Rotation matrices (T, 3, 3) about x, y or z by ``angle`` (T,) radians."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    R = np.zeros((*np.shape(angle), 3, 3))
    k = 3 - i - j
    c, s = np.cos(angle), np.sin(angle)
    R[..., k, k] = 1.0
    R[..., i, i], R[..., i, j], R[..., j, i], R[..., j, j] = c, -s, s, c
    return R


def rotated(R: ndarray, v: ndarray) -> ndarray:
    """Rotates vectors: R (T, 3, 3), v (T, 3) or (3,), gives (T, 3)."""
    return np.einsum("tij,tj->ti", R, np.broadcast_to(v, (len(R), 3)))


def ease(x: ndarray) -> ndarray:
    """Smooth step (cubic Hermite) from 0 to 1 on [0, 1], with slope 0 at both ends."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def smooth_noise(rng: np.random.Generator, t: ndarray, dims: int, period: float) -> ndarray:
    """Smooth noise (T, dims) of about unit size at times ``t`` (T,) seconds.

    The sum of three sines of random phase, with periods of 0.6 to 2 times ``period`` seconds.
    """
    frequency = rng.uniform(0.5, 1.6, (3, dims)) / period
    phase = rng.uniform(0, 2 * np.pi, (3, dims))
    return np.sin(2 * np.pi * t[:, None, None] * frequency + phase).sum(1) / 1.7


def interpolate_keys(keys: ndarray, t: ndarray, hold: float, start: float) -> ndarray:
    """Cycles through ``keys`` (M, ...) at times ``t`` (T,), smoothed between them; gives (T, ...).

    Args:
        keys: the values to pass through.
        t: seconds.
        hold: seconds per key; the last 0.45 of them blend into the next key.
        start: seconds by which the cycle is advanced.
    """
    place = (t + start) / hold
    i = np.floor(place).astype(int)
    blend = ease((place - i - 0.55) / 0.45).reshape(-1, *[1] * (keys.ndim - 1))
    return keys[i % len(keys)] * (1 - blend) + keys[(i + 1) % len(keys)] * blend


def two_bone_ik(
    start: ndarray, target: ndarray, pole: ndarray, upper: float, lower: float, most_bent: float
) -> tuple[ndarray, ndarray, ndarray]:
    """A limb of two bones from ``start`` towards ``target``, bent to the side of ``pole``.

    A target out of reach gives a nearly straight limb that points at it; a target that would need more flexion than
    ``most_bent`` gives a limb flexed by ``most_bent``. So bone lengths and joint limits hold for any target.

    Args:
        start: (T, 3) shoulder or hip, cm.
        target: (T, 3) wanted position of wrist or ankle, cm.
        pole: (T, 3) direction in which the middle joint moves when the limb bends.
        upper: length of the first bone, cm.
        lower: length of the second bone, cm.
        most_bent: largest flexion, radians; 0 is a straight limb.

    Returns:
        Middle joint, end joint and hinge axis, each (T, 3).
    """
    # Law of cosines: the shortest distance at the largest flexion.
    least = np.sqrt(upper**2 + lower**2 + 2 * upper * lower * np.cos(most_bent))
    gap = target - start
    distance = np.linalg.norm(gap, axis=-1, keepdims=True)
    along = gap / np.maximum(distance, 1e-6)
    # Short of a fully straight limb: there the bend direction is undefined and the middle joint would jump.
    reach = np.clip(distance, least, 0.9985 * (upper + lower))
    side = unit(pole - np.einsum("ti,ti->t", pole, along)[:, None] * along)
    cosine = (upper**2 + reach**2 - lower**2) / (2 * upper * reach)
    middle = start + upper * (cosine * along + np.sqrt(1 - cosine**2) * side)
    return middle, start + reach * along, np.cross(along, side)
