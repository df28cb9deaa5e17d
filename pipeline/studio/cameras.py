"""The two HD cameras of every sequence, calibrated as CMU Panoptic calibrates its own: 00_16 and 00_30.

They hang at the edge of the stage like two cameras of the dome, about 100 degrees apart; each sequence's
calibration differs by a little, so no other sequence's calibration fits.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(np.array([0.0, 1.0, 0.0]), forward)  # the world's y axis points down
        right /= np.linalg.norm(right)
        roll = rng.normal(0, 0.012)
        down = np.cross(forward, right)
        R = np.stack([np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, forward])
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
        distortion = rng.normal((-0.262, 0.182, -2e-4, 4e-4, -0.035), (0.012, 0.008, 2e-4, 2e-4, 0.008))
        cameras.append(StudioCamera(name, config.width, config.height, np.round(K, 5), np.round(distortion, 8),
                                    np.round(R, 10), np.round(-R @ eye, 8)))  # fmt: skip
    return cameras
