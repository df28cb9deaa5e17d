"""An untrained model, a calibration, turned photos and videos, and how tests read folders and refusals."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from das.config import small

CONFIG = replace(small(), backbone_width=8, fpn_channels=32, max_people=3)


def written(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def panoptic_calibration(folder: Path) -> Path:
    tilt = np.radians(20)
    R = [[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]]
    cameras = [
        {"name": name, "K": [[f, 0, 80], [0, f, 45], [0, 0, 1]], "distCoef": [-0.2, 0.1, 0, 0, 0.0],
         "resolution": [160, 90], "R": R, "t": [[0], [0], [0]]}
        for name, f in (("00_1", 100.0), ("00_16", 116.0), ("00_30", 130.0))
    ]  # fmt: skip
    path = folder / "calibration.json"
    path.write_text(json.dumps({"calibDataSource": "x", "cameras": cameras}))
    return path


def jpeg_with_orientation(image: np.ndarray, orientation: int) -> bytes:
    """A JPEG file of BGR pixels with an EXIF orientation tag; 6 is displayed turned a quarter clockwise."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + data[2:]


def write_video(path: Path, frames: int = 4, size: tuple[int, int] = (90, 160), rate: float = 12.0) -> Path:
    """An MP4 video of grey frames, each brighter than the one before."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size[::-1])
    for i in range(frames):
        writer.write(np.full((*size, 3), 10 + 200 * i // frames, np.uint8))
    writer.release()
    return path


def turned_video(path: Path, frames: int = 4) -> Path:
    """As ``write_video``, with the rotation tag of a phone held upright: the matrix of the track header is a turn."""
    data = bytearray(write_video(path, frames).read_bytes())
    place = data.index(b"tkhd") + 4
    matrix = place + (40 if data[place] == 0 else 52)
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 90 << 16, 0, 1 << 30)
    path.write_bytes(data)
    return path
