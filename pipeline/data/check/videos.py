"""Videos whose frames are converted directly, without extracting images first."""

from __future__ import annotations

import cv2

from pipeline.data.check.base import CameraInventory, Problem, VideoFile, message_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources.video_frames import MAX_VIDEO_BYTES, check_rate, decodable_frames, jpeg_of, open_video
from pipeline.infra.regular_files import inside, regular_file


def add_video(
    line: CameraInventory,
    tree: Tree,
    path: str,
    frames: list[int],
    last: int,
    size: tuple[int, int] | None,
    thorough: bool = False,
    rate: float | None = None,
) -> None:
    """Adds a video to the inventory of its camera, after decoding its first frame, or all of it.

    A video that cannot be decoded, of another rate, or of another size than its annotation, sets ``line.blocked``.

    Args:
        line: the inventory, without image files so far; it is changed.
        tree: folder of the data set.
        path: of the video.
        frames: numbers of the wanted frames, counted from 0, in order.
        last: number of the last annotated frame. A shorter video sets ``line.doubt``.
        size: (height, width) pixels that the annotation refers to; None if it is unknown.
        rate: frames per second that the owners' videos have; None if it is unknown.
        thorough: decode the video up to the last wanted frame. Those after the first damage cannot be used.
    """
    try:
        video = regular_file(inside(tree.root, path), MAX_VIDEO_BYTES)
        if rate is not None:
            check_rate(video, rate)
    except (ValueError, OSError) as error:
        what = error.strerror if isinstance(error, OSError) else message_of(tree, error).removeprefix(f"{path}: ")
        line.blocked = f"{path}: {what}"
        line.damaged.append(Problem(path, str(what)))
        return
    # The same decoder as the conversion's, so that both see the same number of frames.
    capture = open_video(video)
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
    there = [frame for frame in frames if frame < length]
    good = there
    if thorough and there:
        decoded = decodable_frames(video, there[-1] + 1)
        good = [frame for frame in there if frame < decoded]
        if lost := there[len(good) :]:
            what = f"{len(lost)} wanted frames: nothing after frame {decoded - 1} of {length} can be decoded"
            line.damaged.append(Problem(path, what))
    line.video = VideoFile(path, length, len(good), len(first.data))
    if length <= last:
        line.doubt = (
            f"{path} has {length} frames, its annotations go to frame {last}: if only its end was cut, the frames from "
            f"{length} on are left out and all others are right; if frames before its end are missing, every later "
            "annotation is paired with another frame. Get the whole video, or take away the annotations from frame "
            f"{length} on if you know that its end was cut"
        )
    line.missing = [f"{path} (frame {frame})" for frame in frames[len(there) :]]
