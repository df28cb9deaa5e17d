"""Frames of a camera or stream: opening it, and reading it until its end, a time or Ctrl-C."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from pipeline.infra.images import quiet_decoders
from pipeline.infra.redaction import redacted
from pipeline.predict.videos import check_frame_size

_WAIT_MS = 10_000
"""Longest time that a stream may take to open, or to send a frame."""
_STREAM = re.compile(r"(https?|rtsps?)://\S+")


def check_source(source: str) -> None:
    """Raises ValueError unless the source is the number of a camera or the address of a stream."""
    if not (re.fullmatch(r"\d{1,3}", source) or _STREAM.fullmatch(source)):
        raise ValueError(f"source = {redacted(source)!r}, wanted the number of a camera, or an http or rtsp address")


@contextmanager
def opened_source(source: str, most_pixels: int) -> Iterator[cv2.VideoCapture]:
    """A camera or stream whose frames can be read.

    Args:
        source: as ``check_source`` takes it.
        most_pixels: of a frame.

    Raises:
        ValueError: it cannot be opened, or its frames are larger.
    """
    with quiet_decoders():
        if source.isdigit():
            capture = cv2.VideoCapture(int(source))
        else:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _WAIT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _WAIT_MS]
            capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
    try:
        if not capture.isOpened():
            what = "no camera of this number" if source.isdigit() else "no stream that can be opened at this address"
            raise ValueError(f"source {redacted(source)}: {what}")
        check_frame_size(capture, f"source {redacted(source)}", most_pixels)
        yield capture
    finally:
        capture.release()


def live_frames(
    capture: cv2.VideoCapture, seconds: float | None, stopped: Callable[[], bool]
) -> Iterator[tuple[np.ndarray, float]]:
    """Yields frames (H, W, 3) uint8 RGB and their times in ms from the first one, increasing.

    A recording, which states how many frames it has, is sent faster than it was taken: its own time stamps are used. A
    live source has the clock's, because many cameras send none and the decoder then counts 25 frames a second.

    Args:
        capture: opened at its first frame.
        seconds: ends after this time by the clock; None reads to the end.
        stopped: asked before each frame; True ends.
    """
    begin, last = time.monotonic(), -1.0
    recorded = capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
    while not stopped() and (seconds is None or time.monotonic() - begin < seconds):
        good, frame = capture.read()
        if not good:
            return
        clock = 1000 * (time.monotonic() - begin)
        now = capture.get(cv2.CAP_PROP_POS_MSEC) if recorded else clock
        if last < 0:
            first = now
        last = round(now - first, 3) if now - first > last else last + 1
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), last


@contextmanager
def stop_at_interrupt() -> Iterator[Callable[[], bool]]:
    """A block in which the first Ctrl-C only makes the yielded function return True; the second interrupts as ever."""
    stopped: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, _: object) -> None:
        stopped.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(stopped)
    finally:
        signal.signal(signal.SIGINT, before)
