"""Reading a video frame by frame, and writing one that is complete or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

_ENDINGS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
_DEFAULT_RATE = 25.0
"""Frames per second where the container states none."""


def is_video(file: Path) -> bool:
    """Whether the file name has the ending of a video."""
    return file.suffix.lower() in _ENDINGS


def read_frames(video: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yields every frame as (H, W, 3) uint8 RGB with the video's frames per second; none if OpenCV cannot read it."""
    capture = cv2.VideoCapture(str(video))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS) or _DEFAULT_RATE
        count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        with tqdm(total=count or None, unit="frame", leave=False) as bar:
            while True:
                good, frame = capture.read()
                if not good:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), rate
                bar.update()
    finally:
        capture.release()


class VideoFile:
    """An MP4 file under construction, written under a hidden name until ``finish`` renames it.

    OpenCV writes to local paths only, so ``infra.files.staged`` cannot be used here.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # OpenCV takes the container from the ending, so the hidden name keeps it.
        self._hidden = path.with_name(f".{os.getpid()}-{path.name}")
        self._writer: cv2.VideoWriter | None = None

    def write(self, image: np.ndarray, rate: float) -> None:
        """Appends a frame.

        Args:
            image: (H, W, 3) uint8 RGB, of the same size for all frames; an odd last row or column is cut off.
            rate: frames per second; the first frame decides.
        """
        # MPEG-4 subsamples colour by 2 in both directions and refuses odd sides.
        image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        if self._writer is None:
            size = (image.shape[1], image.shape[0])
            self._writer = cv2.VideoWriter(str(self._hidden), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def finish(self) -> None:
        """Closes the file and gives it its name; at least one frame must have been written."""
        assert self._writer is not None, self._path
        self._writer.release()
        self._hidden.replace(self._path)

    def discard(self) -> None:
        """Closes and removes the unfinished file; after ``finish`` it does nothing."""
        if self._writer is not None:
            self._writer.release()
        self._hidden.unlink(missing_ok=True)
