"""The camera of an image, by the best that is known: a calibration, the photo's EXIF data, or an assumed field of view.

Depths are proportional to the focal length, so every result says which of the three it was (``CameraSource``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from das.camera import CameraSource, intrinsics_from_fov
from das.camera_check import check_intrinsics, intrinsics_fault
from pipeline.infra.exif import ExifFocal
from pipeline.predict.camera_file import PhotoCamera


@dataclass(frozen=True)
class FoundCamera:
    """The camera that an image is predicted with.

    Attributes:
        K: (3, 3) intrinsics, pixels.
        distortion: (5,) or (12,), OpenCV's order.
        source: how it is known.
        down: (3,) unit vector of gravity in the camera frame; None if unknown.
    """

    K: np.ndarray
    distortion: np.ndarray
    source: CameraSource
    down: np.ndarray | None = None


def find_camera(
    size: tuple[int, int], fov_degrees: float, given: PhotoCamera | None = None, exif: ExifFocal | None = None
) -> FoundCamera:
    """The first that is known of: ``given``, ``exif``, a camera of the assumed field of view.

    Args:
        size: (height, width) of the image, pixels.
        fov_degrees: assumed, along the longer side.
        given: a calibration.
        exif: what the photo's EXIF data say of its focal length; None where they are not to be used.

    Raises:
        ValueError: a calibration whose focal length no image of this size has.
    """
    if given is not None:
        check_intrinsics(given.K, size)
        return FoundCamera(given.K, given.distortion, CameraSource("given"), given.down)
    height, width = size
    remark = "" if exif is None else exif.fault
    if exif is not None and exif.focal_px is not None:
        focal = exif.focal_px
        K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        if (fault := intrinsics_fault(K, size)) is None:
            return FoundCamera(K, np.zeros(5), CameraSource("exif", exif.numbers))
        remark = f"EXIF not used: {fault[0]}, wanted {fault[1]}"
    source = CameraSource("assumed", {"fov_degrees": fov_degrees}, remark)
    return FoundCamera(intrinsics_from_fov(width, height, fov_degrees), np.zeros(5), source)
