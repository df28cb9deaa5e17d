"""Videos whose frames are converted directly, without extracting images first."""

from __future__ import annotations

import cv2

from pipeline.data.check.base import CameraInventory, Problem, VideoFile
from pipeline.data.check.listing import Tree
from pipeline.data.sources.video_frames import decodable_frames, jpeg_of, open_video


def add_video(
    line: CameraInventory,
    tree: Tree,
    path: str,
    frames: list[int],
    size: tuple[int, int] | None,
    thorough: bool = False,
) -> None:
    """Adds a video to the inventory of its camera, after decoding its first frame, or all of it.

    A video that cannot be decoded, or of another size than its annotation, sets ``line.blocked``.

    Args:
        line: the inventory, without image files so far; it is changed.
        tree: folder of the data set.
        path: of the video.
        frames: numbers of the wanted frames, counted from 0, in order.
        size: (height, width) pixels that the annotation refers to; None if it is unknown.
        thorough: decode the video up to the last wanted frame. Those after the first damage cannot be used.
    """
    # The same decoder as the conversion's, so that both see the same number of frames.
    capture = open_video(tree.root / path)
    try:
        length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        pixels = capture.read()[1] if length else None
    finally:
        capture.release()
    if pixels is None:
        line.blocked = f"{path} cannot be decoded"
        line.damaged.append(Problem(path, "cannot be decoded"))
        return
    first = jpeg_of(pixels)
    if size is not None and first.size != size:
        line.blocked = f"{path}: {first.size[1]}x{first.size[0]} pixels, its annotation says {size[1]}x{size[0]}"
        return
    inside = [frame for frame in frames if frame < length]
    good = inside
    if thorough and inside:
        decoded = decodable_frames(tree.root / path, inside[-1] + 1)
        good = [frame for frame in inside if frame < decoded]
        if lost := inside[len(good) :]:
            what = f"{len(lost)} wanted frames: nothing after frame {decoded - 1} of {length} can be decoded"
            line.damaged.append(Problem(path, what))
    line.video = VideoFile(path, length, len(good), len(first.data))
    line.missing = [f"{path} (frame {frame})" for frame in frames[len(inside) :]]
