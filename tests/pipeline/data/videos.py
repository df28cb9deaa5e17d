"""Videos whose frames show their number."""

from __future__ import annotations

import cv2
import numpy as np

from tests.pipeline.data.original_layouts import HEIGHT, WIDTH

_BITS = 8


def write_video(path, count, codec="mp4v", height=HEIGHT, width=WIDTH):
    """A video whose n-th frame shows n in binary: white and black columns over the whole height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 29.97, (width, height))
    assert writer.isOpened()
    for n in range(count):
        bits = [255 * (n >> bit & 1) for bit in range(_BITS)]
        row = np.repeat(np.array(bits, np.uint8), width // _BITS)
        writer.write(np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2))
    writer.release()
    return path


def number_of(pixels):
    """Inverse of ``write_video``: the number that an image (H, W, 3) shows."""
    columns = pixels.mean(axis=(0, 2)).reshape(_BITS, -1).mean(axis=1)
    assert (np.abs(columns - 127.5) > 80).all(), "no clean columns"
    return sum(int(value > 127) << bit for bit, value in enumerate(columns))
