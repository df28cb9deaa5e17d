"""The pinhole camera with OpenCV distortion; its axes and units hold for the whole project.

Camera frame: x right, y down, z forward, millimetres. World to camera: ``X_cam = R X_world + t``. Pixels: u
right, v down, pixel (0, 0) is the centre of the top left pixel. ``K`` is any invertible 3x3 matrix whose last
row is (0, 0, 1): after an image rotation it is not triangular, after a flip its first entry is negative, so
nothing here reads fx and fy from it. ``distortion`` is (k1, k2, p1, p2, k3) in OpenCV's order, or these and
(k4, k5, k6, s1, s2, s3, s4), the rational and thin-prism terms; None means none.

Every function takes NumPy arrays or torch tensors (same code, same results; geometry is meant for float64)
and broadcasts over leading dimensions: points (..., M, D) go with K (..., 3, 3) and distortion (..., 5) or (..., 12).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")

ASSUMED_FOV_DEGREES = 60.0
"""Field of view of the longer side of an image of an unknown camera: between a phone's main lens and a webcam."""


@dataclass(frozen=True)
class CameraSource:
    """How the intrinsics of an image are known; all depths are proportional to the focal length.

    Attributes:
        kind: "given" by the user, computed from the photo's "exif" data, or "assumed".
        numbers: what they were computed from, by name; ``fov_degrees`` along the longer side of an assumed camera,
            ``focal_length_35mm``, or ``focal_length_mm`` and ``pixels_per_mm`` of EXIF data. Empty for a given one.
        remark: why a better source was not used; "" where there is nothing to say.
    """

    kind: Literal["given", "exif", "assumed"]
    numbers: Mapping[str, float] = field(default_factory=dict)
    remark: str = ""

    def text(self, K: np.ndarray) -> str:
        """A few words with the numbers, for pictures and the terminal; K (3, 3) has the focal length."""
        n = self.numbers
        if self.kind == "assumed":
            known = f"camera assumed: {n['fov_degrees']:g} degrees along the longer side, "
        elif "focal_length_35mm" in n:
            known = f"camera from EXIF: {n['focal_length_35mm']:g} mm in 35 mm film, "
        elif self.kind == "exif":
            known = f"camera from EXIF: {n['focal_length_mm']:g} mm, {n['pixels_per_mm']:.1f} pixels per mm, "
        else:
            known = "camera given: "
        return f"{known}focal length {mean_focal(K):.0f} px"


# Newton steps for inverting the distortion: quadratic, so 10 reach float64 precision wherever it is
# invertible.
_UNDISTORT_STEPS = 10
_LONGEST_STEP = 0.5
# Radii (tangents of the angle to the axis) at which a lens is tried for where it stops being one-to-one.
_RADII = np.linspace(0.0, 4.0, 2049)[1:]
# The least growth of the distorted radius with the ideal one that still counts as growing. At 0 a pixel's error would
# become an infinite error of the ray.
_LEAST_GROWTH = 0.05


def _library(value: Any) -> Any:
    """NumPy or torch, whichever made the value; torch is imported for its own tensors only (it takes over a second)."""
    if isinstance(value, np.ndarray | np.generic):
        return np
    import torch

    return torch


def _stack(parts: Sequence[Any]) -> Any:
    return _library(parts[0]).stack(list(parts), -1)


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


def lens_coefficients(values: Any) -> np.ndarray:
    """A lens in one of OpenCV's forms, as (5,) float64, or (12,) where it has rational or thin-prism terms.

    Args:
        values: 4, 5, 8, 12 or 14 numbers in OpenCV's order, in any shape: cv2.calibrateCamera returns (1, 5).

    Raises:
        ValueError: another count, numbers that are not finite, or a tilted sensor (the last two of 14), which is not
            modelled.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size not in (4, 5, 8, 12, 14) or not np.isfinite(array).all():
        raise ValueError(f"distortion = {array.tolist()}, wanted 4, 5, 8, 12 or 14 finite numbers in OpenCV's order")
    if array[12:].any():
        raise ValueError(f"distortion: tau_x, tau_y = {array[12:].tolist()}, wanted 0 (no tilted sensor)")
    full = np.concatenate([array[:12], np.zeros(max(0, 12 - array.size))])
    return full if full[5:].any() else full[:5]


def _terms(distortion: Array) -> list[Any]:
    """The 12 coefficients, each (..., 1) to go with M points; 0 for those that are not given."""
    given: list[Any] = [distortion[..., i, None] for i in range(distortion.shape[-1])]
    return [*given, *([0.0] * (12 - len(given)))]


def _radial(r2: Any, terms: Sequence[Any]) -> tuple[Any, Any]:
    """The radial factor at squared radius r2, and its derivative by r2."""
    k1, k2, _, _, k3, k4, k5, k6 = terms[:8]
    upper = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    lower = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    upper_slope = k1 + r2 * (2 * k2 + 3 * k3 * r2)
    lower_slope = k4 + r2 * (2 * k5 + 3 * k6 * r2)
    return upper / lower, (upper_slope * lower - upper * lower_slope) / (lower * lower)


def distort(xy: Array, distortion: Array) -> Array:
    """Ideal to distorted normalised coordinates (z = 1), (..., M, 2), as OpenCV defines it."""
    terms = _terms(distortion)
    p1, p2, (s1, s2, s3, s4) = terms[2], terms[3], terms[8:]
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial, _ = _radial(r2, terms)
    return _stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4),
        ]
    )


def lens_radius(distortion: np.ndarray) -> np.ndarray:
    """Largest radius at z = 1, (...), up to which the radial distortion (..., 5) or (..., 12) is one-to-one.

    Beyond it the polynomial folds over: farther points of the scene would be seen nearer to the middle, which no lens
    does. 4 (76 degrees) for a lens without a fold up to there.
    """
    flat, inverse = np.unique(distortion.reshape(-1, distortion.shape[-1]), axis=0, return_inverse=True)
    r2 = _RADII**2
    radial, slope = _radial(r2, _terms(flat))
    growth = radial + 2 * r2 * slope  # d (r radial) / d r
    folded = (growth <= _LEAST_GROWTH) | ~np.isfinite(growth)
    first = np.where(folded.any(axis=-1), folded.argmax(axis=-1), len(_RADII))
    return np.concatenate([[0.0], _RADII])[first][inverse.reshape(distortion.shape[:-1])]


def undistort(xy: Array, distortion: Array) -> Array:
    """Distorted to ideal normalised coordinates, (..., M, 2): the inverse of ``distort`` by Newton's method.

    Exact to rounding where the distortion is one-to-one, which a calibrated camera is inside its image. A point
    farther out has no ideal counterpart. It becomes one at ``lens_radius``, in its direction, so that the result is
    finite and moves little when the point does.
    """
    terms = _terms(distortion)
    p1, p2, (s1, s2, s3, s4) = terms[2], terms[3], terms[8:]
    library = _library(xy)
    limit: Any = _lens_radius_like(xy, distortion)[..., None]

    def within(x: Any, y: Any) -> tuple[Any, Any]:
        shrink = limit / library.maximum((x * x + y * y) ** 0.5, limit)
        return x * shrink, y * shrink

    x, y = within(xy[..., 0], xy[..., 1])
    for _ in range(_UNDISTORT_STEPS):
        r2 = x * x + y * y
        radial, slope = _radial(r2, terms)
        ex = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2) - xy[..., 0]
        ey = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4) - xy[..., 1]
        prism_x, prism_y = s1 + 2 * s2 * r2, s3 + 2 * s4 * r2
        a = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x + 2 * x * prism_x  # d ex / dx
        b = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y + 2 * y * prism_x  # d ex / dy
        c = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y + 2 * x * prism_y  # d ey / dx
        d = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x + 2 * y * prism_y  # d ey / dy
        det = a * d - b * c
        # Steps are clipped: near the fold det is nearly 0 and a full step would lead far away.
        x, y = within(
            x - ((d * ex - b * ey) / det).clip(-_LONGEST_STEP, _LONGEST_STEP),
            y - ((a * ey - c * ex) / det).clip(-_LONGEST_STEP, _LONGEST_STEP),
        )
    miss = abs(distort(_stack([x, y]), distortion) - xy)
    solved = (miss[..., 0] < 1e-4) & (miss[..., 1] < 1e-4)
    edge = limit / ((xy[..., 0] ** 2 + xy[..., 1] ** 2) ** 0.5).clip(1e-12)
    # Where there is no solution Newton's last point has no meaning.
    return _stack([library.where(solved, x, edge * xy[..., 0]), library.where(solved, y, edge * xy[..., 1])])


def _lens_radius_like(xy: Any, distortion: Any) -> Any:
    """``lens_radius`` in the library, type and place of ``xy``."""
    if _library(xy) is np:
        return lens_radius(np.asarray(distortion))
    return _library(xy).as_tensor(lens_radius(distortion.detach().cpu().numpy())).to(xy)


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
    """A guess for an unknown camera: K (3, 3) float64, centred, with this field of view along the longer side.

    A camera held upright has the same focal length as one held flat.

    Raises:
        ValueError: if the angle is not strictly between 0 and 180 degrees.
    """
    if not 0 < fov_degrees < 180:
        raise ValueError(f"fov_degrees must be between 0 and 180, found {fov_degrees}")
    focal = 0.5 * max(width, height) / np.tan(np.radians(fov_degrees) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], dtype=np.float64)
