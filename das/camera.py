"""The pinhole camera with OpenCV distortion; its axes and units hold for the whole project.

Camera frame: x right, y down, z forward, millimetres. World to camera: ``X_cam = R X_world + t``. Pixels: u
right, v down, pixel (0, 0) is the centre of the top left pixel. ``K`` is any invertible 3x3 matrix whose last
row is (0, 0, 1): after an image rotation it is not triangular, after a flip its first entry is negative, so
nothing here reads fx and fy from it. ``distortion`` is (k1, k2, p1, p2, k3) in OpenCV's order; None means
none.

Every function takes NumPy arrays or torch tensors (same code, same results; geometry is meant for float64)
and broadcasts over leading dimensions: points (..., M, D) go with K (..., 3, 3) and distortion (..., 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")

ASSUMED_FOV_DEGREES = 60.0
"""Horizontal field of view taken for an unknown camera: between a phone's main lens and a webcam."""

# Newton steps for inverting the distortion: quadratic, so 10 reach float64 precision wherever it is
# invertible.
_UNDISTORT_STEPS = 10
_LONGEST_STEP = 0.5


def _library(value: Any) -> Any:
    """NumPy or torch, whichever made the value; torch is imported for its own tensors only (it takes over a second)."""
    if isinstance(value, np.ndarray | np.generic):
        return np
    import torch

    return torch


def _stack(parts: Sequence[Any]) -> Any:
    return _library(parts[0]).stack(list(parts), -1)


def _where(condition: Any, a: Any, b: Any) -> Any:
    return _library(condition).where(condition, a, b)


def transform(points: Array, R: Array, t: Array) -> Array:
    """World to camera, ``X_cam = R X + t``: points (..., M, 3), R (..., 3, 3), t (..., 3), same unit."""
    return points @ R.swapaxes(-1, -2) + t[..., None, :]


def inverse_transform(points: Array, R: Array, t: Array) -> Array:
    """Camera to world, the inverse of ``transform`` for a rotation R: points (..., M, 3)."""
    return (points - t[..., None, :]) @ R


def mean_focal(K: Array) -> Array:
    """One focal length in pixels, ``sqrt(|det K[:2, :2]|)``, shape (...).

    Equal to sqrt(fx fy) for an upright camera and, unlike it, unchanged by image rotations and flips.
    """
    det = K[..., 0, 0] * K[..., 1, 1] - K[..., 0, 1] * K[..., 1, 0]
    return abs(det) ** 0.5


def transform_intrinsics(A: Array, K: Array) -> Array:
    """Intrinsics after an image transform, ``K' = A K``; A is (..., 2, 3) or (..., 3, 3), pixels to pixels.

    Camera-space joints do not change: the image is another view of the same scene. After a flip K' has a
    negative determinant, and back-projection with it gives the un-mirrored scene.
    """
    top = A[..., :2, :] @ K
    return _stack([top[..., 0, :], top[..., 1, :], K[..., 2, :]]).swapaxes(-1, -2)


def distort(xy: Array, distortion: Array) -> Array:
    """Ideal to distorted normalised coordinates (z = 1), (..., M, 2), as OpenCV defines it."""
    k1, k2, p1, p2, k3 = (distortion[..., i, None] for i in range(5))
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return _stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ]
    )


def undistort(xy: Array, distortion: Array) -> Array:
    """Distorted to ideal normalised coordinates, (..., M, 2): the inverse of ``distort`` by Newton's method.

    Exact to rounding where the distortion is one-to-one, which a calibrated camera is inside its image. A
    point far outside may have no ideal counterpart; it is returned as it is, so that the result is always
    finite.
    """
    k1, k2, p1, p2, k3 = (distortion[..., i, None] for i in range(5))
    x, y = xy[..., 0], xy[..., 1]
    for _ in range(_UNDISTORT_STEPS):
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        slope = k1 + r2 * (2 * k2 + 3 * k3 * r2)  # d radial / d r2
        ex = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) - xy[..., 0]
        ey = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y - xy[..., 1]
        a = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x  # d ex / dx
        b = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y  # d ex / dy = d ey / dx
        d = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x  # d ey / dy
        det = a * d - b * b
        # Steps are clipped: where the distortion folds over, det is nearly 0 and a full step would diverge.
        x = x - ((d * ex - b * ey) / det).clip(-_LONGEST_STEP, _LONGEST_STEP)
        y = y - ((a * ey - b * ex) / det).clip(-_LONGEST_STEP, _LONGEST_STEP)
    ideal = _stack([x, y])
    miss = abs(distort(ideal, distortion) - xy)
    # Beyond the fold the equations have other, mirrored solutions, which are not the observed point.
    found = (miss[..., 0] < 1e-4) & (miss[..., 1] < 1e-4) & (det > 0) & (radial > 0)
    return _where(found[..., None], ideal, xy)


def project(points_cam: Array, K: Array, distortion: Array | None = None) -> Array:
    """Camera-space points (..., M, 3) mm to pixels (..., M, 2) of the (distorted) image; wants depth > 0."""
    xy = points_cam[..., :2] / points_cam[..., 2:]
    if distortion is not None:
        xy = distort(xy, distortion)
    return xy @ K[..., :2, :2].swapaxes(-1, -2) + K[..., None, :2, 2]


def back_project(uv: Array, depth: Array, K: Array, distortion: Array | None = None) -> Array:
    """Pixels (..., M, 2) of the (distorted) image and depth Z (..., M) mm to camera space (..., M, 3) mm."""
    k = K[..., :2, :2]
    det = k[..., 0, 0] * k[..., 1, 1] - k[..., 0, 1] * k[..., 1, 0]
    du, dv = (uv - K[..., None, :2, 2])[..., 0], (uv - K[..., None, :2, 2])[..., 1]
    x = (k[..., 1, 1, None] * du - k[..., 0, 1, None] * dv) / det[..., None]
    y = (k[..., 0, 0, None] * dv - k[..., 1, 0, None] * du) / det[..., None]
    xy = _stack([x, y])
    if distortion is not None:
        xy = undistort(xy, distortion)
    return _stack([xy[..., 0] * depth, xy[..., 1] * depth, depth])


def intrinsics_from_fov(width: int, height: int, fov_degrees: float) -> np.ndarray:
    """A guess for an unknown camera: K (3, 3) float64 with this horizontal field of view, centred.

    Raises:
        ValueError: if the angle is not strictly between 0 and 180 degrees.
    """
    if not 0 < fov_degrees < 180:
        raise ValueError(f"fov_degrees must be between 0 and 180, found {fov_degrees}")
    focal = 0.5 * width / np.tan(np.radians(fov_degrees) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], dtype=np.float64)
