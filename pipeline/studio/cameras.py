"""The studio's cameras: two like CMU Panoptic's HD cameras, and those of the other layouts.

00_16 and 00_30 are placed and calibrated like the two cameras of these names in CMU Panoptic's dome, about 100 degrees
apart. Every sequence has a slightly different calibration, so a reader that takes another sequence's is noticed. In
sequences of ultimatum they are nearer and look past the middle, so that people are cut by the picture's border.
MuCo-3DHP and MuPoTS-3D have no distortion in their annotations, so theirs are pinhole cameras. Cameras of the COCO
layout vary in place, format and focal length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from pipeline.studio.config import FULL_HEIGHT, FULL_WIDTH, StudioConfig, sequence_activity
from pipeline.studio.geometry import to_world

CAMERAS = ("00_16", "00_30")

# Azimuth in degrees, distance from the room's middle, height, height of the point looked at, and how far to the right
# of the middle it is, in cm.
_PLACES = {"00_16": (38.0, 338.0, 196.0, 84.0, 0.0), "00_30": (141.0, 329.0, 152.0, 92.0, 0.0)}
# In sequences of one activity, which every split has, both are nearer and do not look at the middle, so that the border
# cuts people at the edge of the group: 00_16 looks over the hips of near ones, 00_30 past those at the side.
_CLOSE_ACTIVITY = "ultimatum"
_CLOSE_PLACES = {"00_16": (38.0, 250.0, 160.0, 138.0, 0.0), "00_30": (141.0, 262.0, 152.0, 98.0, 135.0)}


@dataclass(frozen=True)
class StudioCamera:
    """World (cm, y down) to pixels of the rendered size.

    Attributes:
        K: (3, 3) intrinsics, pixels.
        distortion: (5,) k1, k2, p1, p2, k3, the order of OpenCV.
        R: (3, 3) with X_cam = R X + t.
        t: (3,) cm.
    """

    name: str
    width: int
    height: int
    K: ndarray
    distortion: ndarray
    R: ndarray
    t: ndarray

    @property
    def centre(self) -> ndarray:
        """(3,) position of the camera in the world, cm."""
        return -self.R.T @ self.t


def sequence_cameras(config: StudioConfig, sequence: str) -> list[StudioCamera]:
    """Both cameras of a sequence; values are rounded here so that rendering uses exactly what the file contains."""
    rng = config.rng(sequence, 1 << 20)
    scale = config.width / FULL_WIDTH
    places = _CLOSE_PLACES if sequence_activity(sequence) == _CLOSE_ACTIVITY else _PLACES
    cameras = []
    for name in CAMERAS:
        *place, aside = places[name]
        azimuth, distance, height, aim = np.array(place) + rng.normal(0, 1, 4) * (1.0, 3.0, 2.0, 2.0)
        a = np.radians(azimuth)
        position = to_world(np.array([distance * np.sin(a), height, distance * np.cos(a)]))
        target = to_world(np.array([rng.normal(0, 4) + aside * np.cos(a), aim, rng.normal(0, 4) - aside * np.sin(a)]))
        R = _look_at(position, target, rng.normal(0, 0.012))
        fx = rng.normal(1400, 8)  # pixels at 1920 x 1080, about that of the recorded cameras
        # K at the full size. Pixel centres have integer coordinates, so scaling the size shifts the principal point.
        K = np.array(
            [
                [fx, 0, FULL_WIDTH / 2 + rng.normal(0, 8)],
                [0, fx * rng.normal(0.9975, 0.0005), FULL_HEIGHT / 2 + rng.normal(0, 8)],
                [0, 0, 1],
            ]
        )
        K[:2] *= scale
        K[:2, 2] += 0.5 * scale - 0.5
        # Means of the recorded 00_16 and 00_30, whose undistortion moves a corner of 1920 x 1080 pixels by about 160.
        distortion = rng.normal((-0.2826, 0.1921, -3.7e-4, 5.3e-4, -0.0540), (0.004, 0.004, 1e-4, 1e-4, 0.004))
        cameras.append(StudioCamera(name, config.width, config.height, np.round(K, 5), np.round(distortion, 8),
                                    np.round(R, 10), np.round(-R @ position, 8)))  # fmt: skip
    return cameras


def undistorted(camera: StudioCamera) -> StudioCamera:
    """The same camera without distortion."""
    return replace(camera, distortion=np.zeros(5))


def film_camera(config: StudioConfig, sequence: str) -> StudioCamera:
    """The camera of a MuPoTS-3D sequence: at 1.2 to 1.85 m, a wide angle (77 to 82 degrees), no distortion."""
    rng = config.rng(sequence, 1 << 22)
    place = rng.uniform(0, 360), rng.uniform(320, 390), rng.uniform(120, 185), rng.uniform(80, 105)
    return _pinhole("0", config.width, config.height, rng, place, rng.uniform(0.575, 0.62), rng.normal(0, 0.01))


def photo_camera(config: StudioConfig, sequence: str, take: int) -> StudioCamera:
    """The camera of a take in the COCO layout: any side and format, 39 to 71 degrees along the longer side."""
    rng = config.rng(sequence, 1 << 22, take)
    shape = rng.choice([16 / 9, 4 / 3, 3 / 4], p=[0.2, 0.55, 0.25])
    place = rng.uniform(0, 360), rng.uniform(290, 430), rng.uniform(80, 205), rng.uniform(70, 115)
    width = round(config.height * shape)
    return _pinhole("unknown", width, config.height, rng, place, rng.uniform(0.7, 1.4), rng.normal(0, 0.04))


def _pinhole(
    name: str,
    width: int,
    height: int,
    rng: np.random.Generator,
    place: tuple[float, float, float, float],
    focal: float,
    roll: float,
) -> StudioCamera:
    """A pinhole camera that looks at the middle of the stage.

    Args:
        name: name of the camera.
        width: picture width, pixels.
        height: picture height, pixels.
        rng: for small deviations of K and of the point looked at.
        place: azimuth in degrees; distance, height and height looked at, in cm.
        focal: focal length, as a share of the picture's longer side.
        roll: radians about the optical axis.
    """
    azimuth, distance, height_cm, aim = place
    a = np.radians(azimuth)
    position = to_world(np.array([distance * np.sin(a), height_cm, distance * np.cos(a)]))
    R = _look_at(position, to_world(np.array([rng.normal(0, 15), aim, rng.normal(0, 15)])), roll)
    f = focal * max(width, height)
    cx, cy = (width - 1) / 2 + 0.01 * width * rng.normal(), (height - 1) / 2 + 0.01 * height * rng.normal()
    K = np.array([[f, 0, cx], [0, f * rng.normal(1, 0.001), cy], [0, 0, 1]])
    return StudioCamera(name, width, height, np.round(K, 5), np.zeros(5), R, -R @ position)


def _look_at(position: ndarray, target: ndarray, roll: float) -> ndarray:
    """Rotation (3, 3) of a camera at ``position`` that looks at ``target`` (world, cm), turned by ``roll`` radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)  # the world's y axis points down
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    return np.stack([np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, forward])
