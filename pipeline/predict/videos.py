"""Reading a video frame by frame with its time stamps, and writing one that is complete or absent."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pipeline.infra.image_headers import MAX_PIXELS, check_pixels
from pipeline.infra.images import kind_of, quiet_decoders
from pipeline.infra.regular_files import regular_file
from pipeline.predict.own_files import sign_video, writing

_ENDINGS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
_INDEXED = {".mp4", ".avi", ".mov", ".m4v"}
"""Containers whose header counts the frames; of others OpenCV multiplies duration and rate, which may be wrong."""
_STARTS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
"""First boxes of MP4 and MOV. FFmpeg takes the format from the content: a text may be a list of other files."""
MAX_VIDEO_BYTES = 1 << 38
"""Largest video that is opened, bytes: it is read piece by piece, so this only stops files without an end."""
_DEFAULT_RATE = 25.0
"""Frames per second of a video of one frame whose container states no rate."""
_RATES = (1.0, 240.0)
"""Frames per second that a rate in a header is believed within."""
_MAX_SIDE = 1920
"""Longest side of an overlay, pixels: MPEG-4 takes at most 8191, and time to write VP9 grows with the area."""
_MIN_SIDE = 16


def is_video(file: Path) -> bool:
    """Whether the file name has the ending of a video."""
    return file.suffix.lower() in _ENDINGS


@dataclass(frozen=True)
class VideoTimes:
    """What a first pass over a video finds, without an image in memory.

    Attributes:
        times: time stamps of all frames that can be read, ms, increasing.
        announced: number of frames that the container states; None if it states none.
        missing: whether the video ends before what the container announces.
        size: (height, width) of its frames as displayed, pixels.
        rotated: whether its stored pixels are displayed turned by a quarter.
        rate: frames per second of an overlay.
    """

    times: tuple[float, ...]
    announced: int | None
    missing: bool
    size: tuple[int, int]
    rotated: bool
    rate: float

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of its frames as stored, pixels."""
        return (self.size[1], self.size[0]) if self.rotated else self.size

    @property
    def interval(self) -> float:
        """The usual time from one frame to the next, ms; of a single frame 1000 / rate."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 1000 / self.rate

    def repeats(self, frame: int) -> int:
        """How often an overlay of constant rate repeats the frame, so that it is shown as long as in the video."""
        end = self.times[frame + 1] if frame + 1 < len(self.times) else self.times[-1] + self.interval
        begin = self.times[frame] - self.times[0]
        return round((end - self.times[0]) * self.rate / 1000) - round(begin * self.rate / 1000)


def check_container(video: Path) -> None:
    """Refuses a file that is no regular one, or whose first bytes are not those of a container of videos.

    Raises:
        ValueError: names the file.
    """
    try:
        with regular_file(video, MAX_VIDEO_BYTES).open("rb") as file:
            start = file.read(64)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{video}: no such file") from error
    except OSError as error:
        raise ValueError(f"{video}: {error.strerror}") from error
    avi, matroska = start[:4] == b"RIFF" and start[8:12] == b"AVI ", start[:4] == b"\x1a\x45\xdf\xa3"
    if not (avi or matroska or start[4:8] in _STARTS):
        raise no_video(video, kind_of(start))


@contextmanager
def opened_video(video: Path, most_pixels: int = MAX_PIXELS) -> Iterator[cv2.VideoCapture]:
    """A video at its first frame, of which nothing has been decoded yet.

    Args:
        video: a file.
        most_pixels: most pixels of a frame, as the container states them.

    Raises:
        ValueError: no regular file, no video, or larger frames.
    """
    check_container(video)
    with quiet_decoders():
        # FFmpeg alone: OpenCV's other readers take a name with digits for a series of pictures.
        capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    try:
        check_frame_size(capture, str(video), most_pixels)
        yield capture
    finally:
        capture.release()


def check_frame_size(capture: cv2.VideoCapture, name: str, most_pixels: int) -> None:
    """ValueError with the name of the video or source if its frames have too many pixels; none is decoded for it."""
    height, width = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
    try:
        check_pixels((height, width), most_pixels)
    except ValueError as error:
        raise ValueError(f"{name}: frames of {error}") from error


def no_video(video: Path, kind: str = "a video") -> ValueError:
    """The error of a file of which OpenCV reads no frame; ``kind`` is what it seems to be, see ``kind_of``."""
    found = "cut or damaged" if kind == "a video" else kind
    return ValueError(f"{video}: no video that OpenCV can read ({found}), wanted MP4, MOV, AVI, MKV or WebM")


def read_times(video: Path, most_pixels: int = MAX_PIXELS) -> VideoTimes:
    """Decodes a video once for its time stamps.

    Args:
        video: a file.
        most_pixels: most pixels of a frame.

    Raises:
        ValueError: as ``opened_video``, or OpenCV can read no frame of it.
    """
    times: list[float] = []
    with opened_video(video, most_pixels) as capture:
        stated = capture.get(cv2.CAP_PROP_FPS)
        step = 1000 / (stated if _RATES[0] <= stated <= _RATES[1] else _DEFAULT_RATE)
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        while capture.grab():
            time = capture.get(cv2.CAP_PROP_POS_MSEC)
            # Containers without time stamps (raw streams in AVI) give 0 for every frame.
            times.append(round(time if not times or time > times[-1] else times[-1] + step, 3))
        size = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        rotated = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90
    if not times:
        raise no_video(video)
    if announced <= 0:
        return VideoTimes(tuple(times), None, False, size, rotated, _overlay_rate(times, 1000 / step))
    missing = len(times) < announced
    if missing and not _counts_frames(video):
        usual = np.median(np.diff(times)) if len(times) > 1 else step
        duration = 1000 * announced / (stated or 1000 / step)
        missing = times[-1] + 1.5 * usual < duration
        announced = round(duration / usual) if missing else len(times)
    return VideoTimes(tuple(times), announced, missing, size, rotated, _overlay_rate(times, 1000 / step))


def read_frames(video: Path, times: VideoTimes, stored_pixels: bool = False) -> Generator[np.ndarray, None, None]:
    """Yields the frames that ``read_times`` found as (H, W, 3) uint8 RGB.

    Args:
        video: video file.
        times: of ``read_times``.
        stored_pixels: ignore the rotation tag.
    """
    with opened_video(video, sys.maxsize) as capture:  # ``read_times`` has checked the size
        if stored_pixels:
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        for _ in tqdm(times.times, unit="frame", leave=False):
            good, frame = capture.read()
            if not good:
                raise ValueError(f"{video}: it changed while it was read")
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _overlay_rate(times: list[float], stated: float) -> float:
    """Frames per second at which the frames keep their times; of variable rates that of the closest frames."""
    if len(times) < 2:
        return stated
    intervals = np.diff(times)
    even = intervals.max() < 1.5 * np.median(intervals) and intervals.min() > 0.5 * np.median(intervals)
    rate = 1000 / (intervals.mean() if even else np.percentile(intervals, 10))
    return float(np.clip(rate, _RATES[0], _RATES[1] if even else 60))


def _counts_frames(video: Path) -> bool:
    """Whether the container counts its frames: AVI does, MP4 does unless it is written in fragments (moof)."""
    if video.suffix.lower() not in _INDEXED:
        return False
    with video.open("rb") as file:
        while len(head := file.read(8)) == 8 and video.suffix.lower() != ".avi":
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"moof":
                return False
            skipped = 8
            if length == 1:
                length, skipped = int.from_bytes(file.read(8), "big"), 16
            if length < skipped:
                break
            file.seek(length - skipped, os.SEEK_CUR)
    return True


class VideoFile:
    """An MP4 file under construction, written under a hidden name until ``finish`` renames it.

    OpenCV writes to local paths only, so ``infra.files.staged`` cannot be used here.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path = path
        self._rate = rate
        # OpenCV takes the container from the ending, so the hidden name keeps it.
        self._hidden = path.with_name(f".{os.getpid()}-{path.name}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, image: np.ndarray, repeats: int = 1) -> None:
        """Appends a frame; the first one decides the size, which is at most ``_MAX_SIDE``.

        Args:
            image: (H, W, 3) uint8 RGB.
            repeats: how often it is appended.
        """
        if self._writer is None:
            scale = min(1.0, _MAX_SIDE / max(image.shape[:2]))
            # Both codecs subsample colour by 2 in both directions and refuse odd sides.
            height, width = (max(_MIN_SIDE, int(side * scale) // 2 * 2) for side in image.shape[:2])
            self._size = (width, height)
            code = cv2.VideoWriter.fourcc(*overlay_codec())
            self._writer = cv2.VideoWriter(str(self._hidden), code, self._rate, self._size)
        cut = image[: self._size[1], : self._size[0]]
        if (image.shape[0] - cut.shape[0] > 1) or (image.shape[1] - cut.shape[1] > 1):
            cut = image
        if cut.shape[1::-1] != self._size:
            cut = cv2.resize(cut, self._size, interpolation=cv2.INTER_AREA)
        frame = cv2.cvtColor(cut, cv2.COLOR_RGB2BGR)
        for _ in range(repeats):
            self._writer.write(frame)

    def finish(self) -> bool:
        """Closes the file and gives it its name; False, without a file, if OpenCV could not write it."""
        assert self._writer is not None, self._path
        good = self._writer.isOpened()
        self._writer.release()
        capture = cv2.VideoCapture(str(self._hidden))
        good = good and capture.grab()
        capture.release()
        if not good:
            return False
        with writing(self._path):
            sign_video(self._hidden)
            self._hidden.replace(self._path)
        return True

    def discard(self) -> None:
        """Closes and removes the unfinished file; after ``finish`` it does nothing."""
        if self._writer is not None:
            self._writer.release()
        self._hidden.unlink(missing_ok=True)


class PacedVideo(VideoFile):
    """One of frames whose times are known as they come: each is repeated until the next one's time."""

    def __init__(self, path: Path, rate: float = _DEFAULT_RATE) -> None:
        super().__init__(path, rate)
        self._pending: np.ndarray | None = None
        self._time = 0.0
        self._longest = 1000 / rate

    def write_at(self, image: np.ndarray, time_ms: float) -> None:
        """Appends the frame before, for as long as it was the last one."""
        if self._pending is not None:
            self._longest = max(1000 / self._rate, time_ms - self._time)
            self._write_until(time_ms)
        self._pending, self._time = image, time_ms

    def finish(self) -> bool:
        """As ``VideoFile.finish``, with the last frame for as long as the one before."""
        self._write_until(self._time + self._longest)
        return super().finish()

    def _write_until(self, time_ms: float) -> None:
        assert self._pending is not None
        shown = round(time_ms * self._rate / 1000) - round(self._time * self._rate / 1000)
        self.write(self._pending, shown)


@cache
def overlay_codec() -> str:
    """vp09, which browsers play, where this OpenCV can write it in MP4, else mp4v; tried once in a process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "try.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"vp09"), 25.0, (64, 64))
        good = writer.isOpened()
        writer.write(np.zeros((64, 64, 3), np.uint8))
        writer.release()
        return "vp09" if good and path.is_file() and path.stat().st_size else "mp4v"
