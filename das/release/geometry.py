"""The official release's projection and its converter of CMU Panoptic, reproduced to the last digit.

Only comparisons with the release need this file; the method uses das/camera.py, and data enter through the pipeline's
sources. The projection adds a constant to the depth and overwrites two values too early; the converter decided which
people and joints the released model was trained on.

Units here are the release's: centimetres, except where a name says mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from das.camera import inverse_transform
from das.skeleton import COCO19, MPI15, Skeleton

# Added to every depth before dividing by it.
DEPTH_EPSILON = 1e-5
# The converter turns Panoptic's world (y down) so that z points up; rows are points, ``X' = X M``.
WORLD_ROTATION = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
# Confidence above which a joint is annotated, and how many of them make a person.
MIN_CONFIDENCE = 0.1
MIN_JOINTS = 3
# The converter's images, pixels.
WIDTH, HEIGHT = 1920, 1080
# A person's box grows beyond the joints by these parts of its width (either side) and height (above, below).
# Where joint 1 is the nose, the head above it has to be guessed.
BOX_SIDES = 0.15
BOX_ABOVE_BELOW = {COCO19.name: (0.30, 0.15), MPI15.name: (0.02, 0.07)}


def world_to_pixel(
    points: np.ndarray, K: np.ndarray, R: np.ndarray, t: np.ndarray, distortion: np.ndarray | None = None
) -> np.ndarray:
    """World points (n, 3) to (u, v, depth) rows (n, 3), as the release and its converter project.

    Three things differ from das/camera.py: depth + 1e-5 divides; the distortion of y uses the already distorted
    x in its tangential term; a skew in the second row of K multiplies the finished u. With the HD cameras of
    Panoptic the first moves a pixel by up to 1e-4, the second by up to 0.03; the third needs a skew.

    Args:
        points: (n, 3) world, the unit of t.
        K: (3, 3) pixels.
        R: (3, 3) and t: (3,) or (3, 1), ``X_cam = R X + t``.
        t: see R.
        distortion: (5,) k1 k2 p1 p2 k3, or None.
    """
    camera = points @ R.T + t.reshape(3)
    x, y = (camera[:, i] / (camera[:, 2] + DEPTH_EPSILON) for i in (0, 1))
    if distortion is not None:
        k1, k2, p1, p2, k3 = distortion
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        y = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    u = K[0, 0] * x + K[0, 1] * y + K[0, 2]
    v = K[1, 0] * u + K[1, 1] * y + K[1, 2]
    return np.stack([u, v, camera[:, 2]], axis=1)


def pixel_to_world(
    pixels: np.ndarray, K: np.ndarray, R: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(u, v, depth) rows (n, 3) back to the world, without the 1e-5 and without undistorting.

    Not quite the inverse of ``world_to_pixel``, therefore. The release's ground truth on Panoptic is made
    this way from distorted pixels, so the lens distortion stays in it.

    Returns:
        (x, y, depth) on the plane z = 1, camera space and world space, (n, 3) each.
    """
    uv = (pixels[:, :2] - K[:2, 2]) @ np.linalg.inv(K[:2, :2]).T
    depth = pixels[:, 2:]
    camera = np.hstack([uv * depth, depth])
    return np.hstack([uv, depth]), camera, inverse_transform(camera, R, t.reshape(3))


@dataclass(frozen=True)
class ConvertedPerson:
    """One person of one image as the converter writes it.

    Attributes:
        joints_img: (15, 3) u, v pixels with distortion and depth in cm.
        joints_world_mm: (15, 3) in the turned world.
        annotated: (15,) bool, confidence above 0.1; never the nose of coco19 files.
        visible: (15,) bool, annotated and inside the image.
        bbox: (4,) x, y, width, height in pixels, inside the image.
    """

    joints_img: np.ndarray
    joints_world_mm: np.ndarray
    annotated: np.ndarray
    visible: np.ndarray
    bbox: np.ndarray


def convert_person(
    joints: np.ndarray,
    skeleton: Skeleton,
    K: np.ndarray,
    R: np.ndarray,
    t: np.ndarray,
    distortion: np.ndarray,
) -> ConvertedPerson | None:
    """One body of a Panoptic pose file as the converter writes it, or None where it rejects the body.

    Args:
        joints: (19, 4) or (15, 4) x, y, z in cm and confidence, world axes of the file.
        skeleton: COCO19 or MPI15; either way the first 15 joints are kept.
        K: (3, 3) pixels.
        R: (3, 3) and t: (3,) or (3, 1) cm.
        t: see R.
        distortion: (5,).
    """
    points, confidence = joints[:15, :3], joints[:15, 3]
    pixels = world_to_pixel(points, K, R, t, distortion)
    annotated = confidence > MIN_CONFIDENCE
    if skeleton == COCO19:
        annotated[COCO19.index("nose")] = False
    bbox = converter_box(pixels[annotated, :2], skeleton)
    if bbox is None:
        return None
    last = np.array([WIDTH - 1, HEIGHT - 1])
    within = ((pixels[:, :2] >= 0) & (pixels[:, :2] <= last)).all(axis=1)
    return ConvertedPerson(pixels, points @ WORLD_ROTATION * 10, annotated, annotated & within, bbox)


def converter_box(uv: np.ndarray, skeleton: Skeleton) -> np.ndarray | None:
    """x, y, width, height of a person with annotated joints (n, 2), pixels; None where too little is left.

    Joints outside the image count; the grown box is then clipped to the image, and both of its ends belong to
    it, so width = last - first + 1.
    """
    if len(uv) < MIN_JOINTS:
        return None
    low, high = uv.min(axis=0), uv.max(axis=0)
    width, height = high - low
    above, below = BOX_ABOVE_BELOW[skeleton.name]
    last = np.array([WIDTH - 1, HEIGHT - 1])
    low = np.clip(low - [BOX_SIDES * width, above * height], 0, last)
    high = np.clip(high + [BOX_SIDES * width, below * height], 0, last)
    size = high - low + 1
    if (size <= 1).any() or size.prod() <= 64:
        return None
    return np.hstack([low, size])


def convert_train_image(
    bodies: Sequence[np.ndarray],
    skeleton: Skeleton,
    K: np.ndarray,
    R: np.ndarray,
    t: np.ndarray,
    distortion: np.ndarray,
) -> list[ConvertedPerson] | None:
    """All people of one training image, or None: one rejected body drops the whole image.

    In test images only that body is left out.
    """
    people = [convert_person(joints, skeleton, K, R, t, distortion) for joints in bodies]
    kept = [person for person in people if person is not None]
    return kept if len(kept) == len(people) else None
