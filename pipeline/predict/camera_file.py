"""Reads the calibrated camera of a photo from a JSON file.

Two forms are accepted. One camera, the last three fields optional:

    {"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "distortion": [k1, k2, p1, p2, k3], "width": 1920, "height": 1080}

Or a CMU Panoptic calibration, {"cameras": [{"name", "K", "distCoef", "resolution", "R", ...}, ...]}, with
several cameras. The camera is the one named by --camera-name; without it, the one whose name is the name of the
photo's folder or begins the photo's name (00_16/00_16_00000123.jpg).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.infra.files import read_json


@dataclass(frozen=True)
class PhotoCamera:
    """One calibrated camera.

    Attributes:
        K: (3, 3) intrinsics, pixels.
        distortion: (5,) k1, k2, p1, p2, k3, the order of OpenCV.
        size: (height, width) of its images in pixels; None if the file has no size.
        down: (3,) unit vector of gravity in the camera frame; None if unknown.
    """

    K: np.ndarray
    distortion: np.ndarray
    size: tuple[int, int] | None = None
    down: np.ndarray | None = None


def read_camera_file(path: str | Path, photo: Path, name: str | None = None) -> PhotoCamera:
    """Reads the camera of a photo.

    Args:
        path: JSON file of either form above.
        photo: path of the photo; selects among several cameras by its name and its folder's name.
        name: name of the camera; replaces the selection by the photo.

    Raises:
        ValueError: the file does not exist or is no JSON, a field is missing or has a wrong shape, or no camera of
            the file has the name.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not ("K" in value or "cameras" in value):
        raise ValueError(f"{path}: wanted a JSON object with K, or with cameras (CMU Panoptic)")
    if "K" in value:
        size = (int(value["height"]), int(value["width"])) if {"height", "width"} <= set(value) else None
        distortion = value.get("distortion") or [0.0] * 5
        return PhotoCamera(
            _array(path, value, "K", (3, 3)), _array(path, {"distortion": distortion}, "distortion", (5,)), size
        )

    cameras = {str(camera.get("name")): camera for camera in value["cameras"]}
    if name is None:
        # The longest name: 00_16_0001.jpg begins with 00_1 too.
        named = sorted((n for n in cameras if photo.name.startswith(n) or photo.parent.name == n), key=len)
        name = named[-1] if named else None
    if name not in cameras:
        few = ", ".join(list(cameras)[:8]) + (", ..." if len(cameras) > 8 else "")
        wanted = f"camera {name!r}" if name else f"a camera that the name of {photo} begins with"
        raise ValueError(f"{path}: {wanted} is not among {few}")
    camera = cameras[name]
    width, height = _array(path, camera, "resolution", (2,)).astype(int)
    R = _array(path, camera, "R", (3, 3))
    # The y axis of the world points down in CMU Panoptic; R's second column is that axis in the camera frame.
    return PhotoCamera(
        _array(path, camera, "K", (3, 3)), _array(path, camera, "distCoef", (5,)), (int(height), int(width)), R[:, 1]
    )


def _array(path: str | Path, value: Mapping[str, Any], field: str, shape: tuple[int, ...]) -> np.ndarray:
    """The field as a finite float64 array of that shape; ValueError naming file and field otherwise."""
    wanted = f"wanted {' x '.join(map(str, shape))} numbers"
    if field not in value:
        raise ValueError(f"{path}: {field} is missing, {wanted}")
    try:
        array = np.array(value[field], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {field} = {value[field]!r}, {wanted}") from error
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{path}: {field} has shape {array.shape}, {wanted}")
    return array
