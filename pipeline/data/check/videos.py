"""Videos whose frames are converted without cutting them into images first."""

from __future__ import annotations

import cv2

from pipeline.data.check.base import Film, Trouble, View
from pipeline.data.check.listing import Tree
from pipeline.data.sources.video_frames import jpeg_of


def add_film(view: View, tree: Tree, path: str, frames: list[int], size: tuple[int, int] | None) -> None:
    """Makes a video the images of a line of the report: opens it, and decodes its first frame.

    Args:
        view: the line, without pictures so far.
        tree: where the video is.
        path: of the video.
        frames: numbers of the wanted frames, counted from 0, in order.
        size: (height, width) pixels that the annotation refers to; None if it does not say.
    """
    capture = cv2.VideoCapture(str(tree.root / path), cv2.CAP_FFMPEG)
    try:
        length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        pixels = capture.read()[1] if length else None
    finally:
        capture.release()
    if pixels is None:
        view.blocked = f"{path} cannot be decoded"
        view.damaged.append(Trouble(path, "cannot be decoded"))
        return
    first = jpeg_of(pixels)
    if size is not None and first.size != size:
        wanted = f"its annotation says {size[1]}x{size[0]}"
        view.blocked = f"{path}: {first.size[1]}x{first.size[0]} pixels, {wanted}"
        return
    inside = [frame for frame in frames if frame < length]
    view.film = Film(path, length, len(inside), len(first.data))
    view.missing = [f"{path} (frame {frame})" for frame in frames[len(inside) :]]
