"""The cameras: two of the dome's HD cameras, calibrated as CMU Panoptic calibrates its own, and those of other data.

00_16 and 00_30 hang at the edge of the stage like two cameras of the dome, about 100 degrees apart; each sequence's
calibration differs by a little, so no other sequence's calibration fits. MuCo's and MuPoTS's annotations know no
distortion: their pictures are a pinhole's. A photo like COCO's is taken from anywhere, with any lens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from pipeline.studio.config import FULL_HEIGHT, FULL_WIDTH, StudioConfig
from pipeline.studio.geometry import to_world

CAMERAS = ("00_16", "00_30")

# Azimuth in degrees, distance from the middle in cm, height in cm, height of the point looked at.
_PLACES = {"00_16": (38.0, 338.0, 196.0, 84.0), "00_30": (141.0, 329.0, 152.0, 92.0)}


@dataclass(frozen=True)
class StudioCamera:
    """World (cm, Y down) to pixels: X_cam = R X + t; K (3, 3) and distortion (5,) of the rendered size."""

    name: str
    width: int
    height: int
    K: ndarray
    distortion: ndarray
    R: ndarray
    t: ndarray

    @property
    def centre(self) -> ndarray:
        """Where the camera is, world, (3,) cm."""
        return -self.R.T @ self.t


def sequence_cameras(config: StudioConfig, sequence: str) -> list[StudioCamera]:
    """Both cameras of a sequence, rounded as the calibration file rounds them: files and pictures agree."""
    rng = config.rng(sequence, 1 << 20)
    scale = config.width / FULL_WIDTH
    cameras = []
    for name in CAMERAS:
        azimuth, distance, height, aim = np.array(_PLACES[name]) + rng.normal(0, 1, 4) * (1.0, 3.0, 2.0, 2.0)
        a = np.radians(azimuth)
        eye = to_world(np.array([distance * np.sin(a), height, distance * np.cos(a)]))
        target = to_world(np.array([rng.normal(0, 4), aim, rng.normal(0, 4)]))
        R = _look_at(eye, target, rng.normal(0, 0.012))
        fx = rng.normal(1400, 8)
        # K of the full size; pixel centres lie on integers, hence the halves when it shrinks.
        K = np.array(
            [
                [fx, 0, FULL_WIDTH / 2 + rng.normal(0, 8)],
                [0, fx * rng.normal(0.9975, 0.0005), FULL_HEIGHT / 2 + rng.normal(0, 8)],
                [0, 0, 1],
            ]
        )
        K[:2] *= scale
        K[:2, 2] += 0.5 * scale - 0.5
        # As the recorded 00_16 and 00_30: undistorting moves a corner of 1920 x 1080 pixels by about 160.
        distortion = rng.normal((-0.2826, 0.1921, -3.7e-4, 5.3e-4, -0.0540), (0.004, 0.004, 1e-4, 1e-4, 0.004))
        cameras.append(StudioCamera(name, config.width, config.height, np.round(K, 5), np.round(distortion, 8),
                                    np.round(R, 10), np.round(-R @ eye, 8)))  # fmt: skip
    return cameras


def undistorted(camera: StudioCamera) -> StudioCamera:
    """The same camera with a perfect lens."""
    return replace(camera, distortion=np.zeros(5))


def film_camera(config: StudioConfig, sequence: str) -> StudioCamera:
    """The one camera of a sequence like MuPoTS-3D's: at eye level, wide, without distortion."""
    rng = config.rng(sequence, 1 << 22)
    place = rng.uniform(0, 360), rng.uniform(320, 390), rng.uniform(120, 185), rng.uniform(80, 105)
    return _pinhole("0", config.width, config.height, rng, place, rng.uniform(0.575, 0.62), rng.normal(0, 0.01))


def photo_camera(config: StudioConfig, sequence: str, take: int) -> StudioCamera:
    """Somebody's camera, another one in every take: landscape or portrait, near or far, wide or long."""
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
    """A camera that looks at the stage's axis.

    Args:
        name: of the camera.
        width: of the picture, pixels.
        height: of the picture, pixels.
        rng: of small deviations.
        place: azimuth in degrees; distance, height and height looked at, in cm.
        focal: focal length, as a share of the picture's longer side.
        roll: radians about the optical axis.
    """
    azimuth, distance, high, aim = place
    a = np.radians(azimuth)
    eye = to_world(np.array([distance * np.sin(a), high, distance * np.cos(a)]))
    R = _look_at(eye, to_world(np.array([rng.normal(0, 15), aim, rng.normal(0, 15)])), roll)
    f = focal * max(width, height)
    cx, cy = (width - 1) / 2 + 0.01 * width * rng.normal(), (height - 1) / 2 + 0.01 * height * rng.normal()
    K = np.array([[f, 0, cx], [0, f * rng.normal(1, 0.001), cy], [0, 0, 1]])
    return StudioCamera(name, width, height, np.round(K, 5), np.zeros(5), R, -R @ eye)


def _look_at(eye: ndarray, target: ndarray, roll: float) -> ndarray:
    """Rotation (3, 3) of a camera at ``eye`` that looks at ``target`` (world), turned by ``roll`` radians."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)  # the world's y axis points down
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    return np.stack([np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, forward])
