"""Pictures embedded in a page as JPEG data of bounded size."""

from __future__ import annotations

import base64

import cv2
import numpy as np

WIDTH = 1100
"""Largest width of a picture, pixels; wider ones are scaled down."""
MOST_BYTES = 160_000
"""Largest size of one JPEG file, bytes; base64 adds a third to it."""
# Tried in this order before the size is reduced.
_QUALITIES = (84, 72, 60, 45, 30)


def data_uri(jpeg: bytes, most_bytes: int = MOST_BYTES) -> str:
    """A picture as a data: URI, at most WIDTH pixels wide and ``most_bytes`` large.

    Lowers the JPEG quality first and then, if that is not enough, the size.
    """
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, "not a picture that this program has encoded"
    width = min(WIDTH, image.shape[1])
    while True:
        size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
        small = image if width == image.shape[1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        for quality in _QUALITIES:
            good, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
            assert good
            if len(data) <= most_bytes:
                return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
        width = width * 3 // 4
