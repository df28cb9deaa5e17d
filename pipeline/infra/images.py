"""Reading, encoding and decoding of images; in memory they are (H, W, 3) uint8 RGB."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def read_photo(path: str | Path, stored_pixels: bool = False) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB.

    Args:
        path: of any format that OpenCV decodes.
        stored_pixels: ignore the EXIF orientation. Intrinsics refer to the pixels as stored.

    Raises:
        ValueError: no such file, or not an image.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    flags = cv2.IMREAD_COLOR_RGB | (cv2.IMREAD_IGNORE_ORIENTATION if stored_pixels else 0)
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, flags) if len(data) else None
    if image is None:
        raise ValueError(f"{path}: no image that OpenCV can read ({len(data)} bytes)")
    return image


def encode_image(image: np.ndarray, ending: str) -> bytes:
    """Encodes an RGB image (H, W, 3) uint8 as a file with this ending (.jpg of quality 92, .png)."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if ending == ".jpg" else []
    good, data = cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert good, ending
    return data.tobytes()


def decode_bytes(data: bytes) -> np.ndarray:
    """The bytes of an image file as (H, W, 3) uint8 RGB; ValueError if they are not an image."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        raise ValueError(f"{len(data)} bytes that are no image, wanted JPEG or PNG")
    return image
