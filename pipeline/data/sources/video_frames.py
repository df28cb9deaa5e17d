"""Single frames of videos as JPEGs, with exact frame numbers and in bounded memory.

Seeking in a compressed video depends on its index and time stamps; it may return a neighbouring frame, and differs
between decoder versions. So frames are counted instead: a video is decoded from its start, frame after frame. The last
video stays open between calls, so reading its frames in ascending order, also over several chunks in one process,
decodes it once. Reading an earlier frame starts again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from pipeline.data.sources.base import (
    IMAGE_DAMAGED,
    IMAGE_MISSING,
    IMAGE_UNREADABLE,
    EncodedImage,
    NoImage,
)
from pipeline.infra.images import quiet_decoders
from pipeline.infra.regular_files import regular_file

JPEG_QUALITY = 95
"""Quality of the JPEGs made from video frames, 0 to 100 (libjpeg): adds little to the losses of the video."""

MAX_VIDEO_BYTES = 1 << 38
"""Largest video that is opened, bytes: it is read piece by piece, so this only stops files without an end."""


_RATE_TOLERANCE = 0.1
"""Frames per second: some tools write 30 for 29.97 without touching a frame."""


@dataclass
class _OpenVideo:
    """A video being decoded; ``next`` is the number of the frame that is decoded next.

    After a damaged part the decoder may resume, but the numbers of its frames are then unknown: the video ends there.
    """

    capture: cv2.VideoCapture
    next: int = 0
    ended: bool = False

    def take(self, frame: int) -> np.ndarray | None:
        """Pixels (H, W, 3) uint8 BGR of frame number ``frame`` >= ``next``; None when the video ends before it."""
        pixels = None
        while self.next <= frame and not self.ended:
            good, pixels = self.capture.read() if self.next == frame else (self.capture.grab(), None)
            self.ended = not good
            self.next += good
        return pixels


def video_frame(path: Path, frame: int) -> EncodedImage | NoImage:
    """One frame of a video, counted from 0, as a JPEG; or the reason why there is none.

    Reading frames in ascending order decodes a video once. The reasons: the video ends before that frame, cannot be
    decoded up to it, or the file is missing or unreadable.
    """
    try:
        changed = regular_file(path, MAX_VIDEO_BYTES).stat().st_mtime_ns
    except FileNotFoundError:
        return NoImage(IMAGE_MISSING, path, "no such video")
    except OSError as error:
        return NoImage(IMAGE_UNREADABLE, path, error.strerror or str(error))
    video = _opened(path, changed)
    if video.next > frame:
        _opened.cache_clear()
        video = _opened(path, changed)
    pixels = video.take(frame)
    return _failure(path, frame, video) if pixels is None else jpeg_of(pixels)


def check_rate(path: Path, wanted: float) -> None:
    """Refuses a video of another rate than its owners': it was encoded again, and its frames have other numbers.

    Args:
        path: of the video.
        wanted: frames per second. A rate that the header does not state, as in a damaged file, passes.

    Raises:
        ValueError: another rate; names the file.
        OSError: it cannot be opened.
    """
    capture = open_video(regular_file(path, MAX_VIDEO_BYTES))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    if rate > 0 and abs(rate - wanted) > _RATE_TOLERANCE:
        raise ValueError(
            f"{path}: found {rate:.6g} frames per second, wanted {wanted:g}: encoded again, so that every annotation "
            "would be paired with another frame"
        )


def decodable_frames(path: Path, limit: int) -> int:
    """How many of the first ``limit`` frames of a video can be decoded: to its end, or to the first damaged frame."""
    video = _OpenVideo(open_video(path))
    try:
        while video.next < limit and not video.ended:
            video.take(video.next)
        return video.next
    finally:
        video.capture.release()


def _failure(path: Path, frame: int, video: _OpenVideo) -> NoImage:
    """Why a frame was not decoded: the video is shorter, or damaged where decoding ended."""
    counted = int(video.capture.get(cv2.CAP_PROP_FRAME_COUNT))  # from the header
    if video.next and frame >= counted:
        ends = f"the video ends before frame {video.next}"
        return NoImage(IMAGE_MISSING, path, f"{ends}: unless only its end was cut, frames are paired wrongly")
    part = f"nothing after frame {video.next - 1} of {counted}" if video.next else "no frame"
    return NoImage(IMAGE_DAMAGED, path, f"{part} can be decoded")


@lru_cache(maxsize=1)  # one decoder a process: each holds a few uncompressed frames
def _opened(path: Path, changed: int) -> _OpenVideo:
    return _OpenVideo(open_video(path))


def open_video(path: Path) -> cv2.VideoCapture:
    """A video at its first frame, in the pixels as they are stored."""
    with quiet_decoders():
        # One thread: every CPU already runs a reading process.
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, (cv2.CAP_PROP_N_THREADS, 1))
    # Annotations refer to the stored pixels, so a rotation tag is not applied.
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture


def jpeg_of(pixels: np.ndarray) -> EncodedImage:
    """An image (H, W, 3) uint8 BGR as a JPEG of ``JPEG_QUALITY``."""
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, pixels.shape
    return EncodedImage(data.tobytes(), (pixels.shape[0], pixels.shape[1]))
