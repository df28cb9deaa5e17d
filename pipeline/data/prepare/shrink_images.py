"""Resizes a record to a smaller image: pixels, intrinsics K, 2D joints and boxes together, as in das.transforms.

3D joints do not change: an image at half its size shows the same people with half the focal length. Lens distortion
acts on normalised coordinates, before K, so its coefficients do not change either.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import cv2
import numpy as np

from das.camera import transform_intrinsics
from das.recipe import InputSize
from das.transforms import resize_matrix, warp
from pipeline.data.record import Record, decode_image

# JPEG quality (OpenCV, 0 to 100): visually lossless, so only the resolution is lost.
_QUALITY = 95


def shrink(record: Record, long_side: int) -> Record:
    """The record with its image resized and encoded again as JPEG; the same object if the image is not larger.

    Args:
        record: any record with its image.
        long_side: wanted length of the longer side, pixels.

    Raises:
        ValueError: the image cannot be decoded.
    """
    if max(record.height, record.width) <= long_side:
        return record
    A, (height, width) = resize_matrix(record.height, record.width, InputSize(long_side, long_side))
    image = warp(decode_image(record), A, height, width, cv2.BORDER_REPLICATE)
    good, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert good, record.key
    data = encoded.tobytes()
    scale = np.array([A[0, 0], A[1, 1]])
    return replace(
        record,
        image=data,
        image_sha256=hashlib.sha256(data).hexdigest(),
        height=height,
        width=width,
        K=None if record.K is None else transform_intrinsics(A, record.K),
        joints_uv=(record.joints_uv * scale).astype(np.float32),
        bbox=(record.bbox * np.tile(scale, 2)).astype(np.float32),
    )
