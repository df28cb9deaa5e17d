"""Single frames out of videos, exact and in bounded memory, as JPEGs.

Seeking in a compressed video lands where its index and its time stamps say, which is not always the frame that was
asked for, and differs between versions of the decoder. So frames are only ever counted: a video is decoded from its
start, frame after frame. One open video stays at its place between calls; a reader that walks through a sequence
decodes it once, and shards that one process reads in turn share the walk. Going back starts again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from pipeline.data.sources.base import IMAGE_DAMAGED, IMAGE_MISSING, IMAGE_UNREADABLE, EncodedImage, NoImage

JPEG_QUALITY = 95
"""Of the JPEGs made from video frames (libjpeg's scale): close to the video's own losses."""


@dataclass
class _OpenVideo:
    """A video being decoded; ``next`` is the number of the frame that the next step gives.

    Behind a broken place the decoder may find its way again, but nobody knows to which frame: the video ends there.
    """

    capture: cv2.VideoCapture
    next: int = 0
    ended: bool = False

    def take(self, frame: int) -> np.ndarray | None:
        """The pixels (H, W, 3) uint8 BGR of a frame that is not passed yet; None when the video ends before it."""
        pixels = None
        while self.next <= frame and not self.ended:
            good, pixels = self.capture.read() if self.next == frame else (self.capture.grab(), None)
            self.ended = not good
            self.next += good
        return pixels


def video_frame(path: Path, frame: int) -> EncodedImage | NoImage:
    """One frame of a video, counted from 0, as a JPEG; or the reason why there is none.

    Reading frames in ascending order decodes a video once. The reasons: the video ends before that frame, cannot be
    decoded up to it, or is not there or not readable (any more).
    """
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return NoImage(IMAGE_MISSING, path, "no such video")
    except OSError as error:
        return NoImage(IMAGE_UNREADABLE, path, error.strerror or str(error))
    video = _opened(path, changed)
    if video.next > frame:
        _opened.cache_clear()
        video = _opened(path, changed)
    pixels = video.take(frame)
    return _why_not(path, frame, video) if pixels is None else jpeg_of(pixels)


def _why_not(path: Path, frame: int, video: _OpenVideo) -> NoImage:
    """Whether the video is shorter than that, or broken where decoding ends."""
    counted = int(video.capture.get(cv2.CAP_PROP_FRAME_COUNT))  # as the file says
    if video.next and frame >= counted:
        return NoImage(IMAGE_MISSING, path, f"the video ends before frame {video.next}")
    part = f"nothing after frame {video.next - 1} of {counted}" if video.next else "no frame"
    return NoImage(IMAGE_DAMAGED, path, f"{part} can be decoded")


@lru_cache(maxsize=1)  # one decoder a process: each holds a few uncompressed frames
def _opened(path: Path, changed: int) -> _OpenVideo:
    # Several threads in every reading process would only take turns, and decode in an order of their own.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, (cv2.CAP_PROP_N_THREADS, 1))
    # Frames as they are stored, whatever a rotation tag says: annotations refer to them.
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return _OpenVideo(capture)


def jpeg_of(pixels: np.ndarray) -> EncodedImage:
    """An image (H, W, 3) uint8 BGR as a JPEG of ``JPEG_QUALITY``."""
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, pixels.shape
    return EncodedImage(data.tobytes(), (pixels.shape[0], pixels.shape[1]))
