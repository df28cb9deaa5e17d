"""Pictures inside a page: JPEG data of bounded size."""

from __future__ import annotations

import base64

import cv2
import numpy as np

WIDTH = 1100
"""Pixels that the widest picture keeps."""
MOST_BYTES = 160_000
"""Size of one JPEG file, before it grows by a third as text."""
_QUALITIES = (84, 72, 60, 45, 30)


def data_uri(jpeg: bytes) -> str:
    """A picture as an address that holds it: at most WIDTH pixels wide and MOST_BYTES large."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, "a picture that the evaluation has just drawn"
    width = min(WIDTH, image.shape[1])
    while True:
        size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
        small = image if width == image.shape[1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        for quality in _QUALITIES:
            good, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
            assert good
            if len(data) <= MOST_BYTES:
                return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
        width = width * 3 // 4
