"""The camera of a photo, from a file that a user gives.

Two forms are read. One camera as plain JSON, the last three fields optional; distortion in any of OpenCV's forms:

    {"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "distortion": [k1, k2, p1, p2, k3], "width": 1920, "height": 1080}

Or a CMU Panoptic calibration, {"cameras": [{"name", "K", "distCoef", "resolution", "R", ...}, ...]}; one camera cut out
of it is read too. Its cameras are selected by name: the one named in --camera-name, or the one that the names of the
photo and its folder begin with (00_16/00_16_00000123.jpg).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from das.camera import lens_coefficients
from das.camera_check import check_intrinsics, outside_remark
from das.fields import check_fields, json_kind
from pipeline.infra.files import read_json


@dataclass(frozen=True)
class PhotoCamera:
    """One calibrated camera.

    Attributes:
        K: (3, 3) intrinsics, pixels.
        distortion: (5,) or (12,), the order of OpenCV (``das.camera.lens_coefficients``).
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
    if isinstance(value, dict) and "cameras" in value:
        return _panoptic_camera(_select(value["cameras"], path, photo, name), path)
    if not isinstance(value, dict) or "K" not in value:
        raise ValueError(f"{path}: wanted a JSON object with K, or with cameras (CMU Panoptic)")
    if "distCoef" in value:
        return _panoptic_camera(value, path)
    check_fields(value, ("K",), str(path), ("distortion", "width", "height", "name"))
    size = None
    if {"height", "width"} & set(value):
        size = _side(path, value, "height"), _side(path, value, "width")
    return PhotoCamera(_intrinsics(path, value, size), _distortion(path, value, "distortion"), size)


def _select(cameras: Any, path: str | Path, photo: Path, name: str | None) -> Mapping[str, Any]:
    """The entry of a calibration that has the name, or else the one that fits the photo."""
    if not isinstance(cameras, list) or not all(isinstance(camera, dict) for camera in cameras):
        raise ValueError(f"{path}: cameras is {json_kind(cameras)}, wanted a list of objects (CMU Panoptic)")
    named = {str(camera.get("name")): camera for camera in cameras}
    if name is None:
        # The longest name: 00_16_0001.jpg begins with 00_1 too.
        fitting = sorted((n for n in named if photo.name.startswith(n) or photo.parent.name == n), key=len)
        name = fitting[-1] if fitting else None
    if name not in named:
        few = ", ".join(list(named)[:8]) + (", ..." if len(named) > 8 else "")
        wanted = f"camera {name!r}" if name else f"a camera that the name of {photo} begins with"
        raise ValueError(f"{path}: {wanted} is not among {few}")
    return named[name]


def _panoptic_camera(camera: Mapping[str, Any], path: str | Path) -> PhotoCamera:
    width, height = _array(path, camera, "resolution", (2,)).astype(int)
    size = int(height), int(width)
    # The y axis of the world points down in CMU Panoptic; R's second column is that axis in the camera frame.
    down = _array(path, camera, "R", (3, 3))[:, 1] if "R" in camera else None
    return PhotoCamera(_intrinsics(path, camera, size), _distortion(path, camera, "distCoef"), size, down)


def _intrinsics(path: str | Path, camera: Mapping[str, Any], size: tuple[int, int] | None) -> np.ndarray:
    K = _array(path, camera, "K", (3, 3))
    check_intrinsics(K, size, str(path))
    if size is not None and (remark := outside_remark(K, size)):
        print(f"{path}: {remark}", file=sys.stderr)
    return K


def _distortion(path: str | Path, camera: Mapping[str, Any], field: str) -> np.ndarray:
    value = camera.get(field)
    if value is None:
        return np.zeros(5)
    try:
        return lens_coefficients(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _side(path: str | Path, value: Mapping[str, Any], field: str) -> int:
    """A side of the image in pixels; both must be there."""
    side = value.get(field)
    if not isinstance(side, int) or isinstance(side, bool) or side < 1:
        raise ValueError(f"{path}: {field} = {side!r}, wanted a whole number of pixels, as width and height both")
    return side


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
