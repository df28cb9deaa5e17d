"""People on the frames of videos and live sources: a line for each frame as it comes, and a drawn video."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from das.draw.montage import side_by_side
from pipeline.predict.camera_file import PhotoCamera
from pipeline.predict.cameras import find_camera
from pipeline.predict.collectors import Collectors
from pipeline.predict.config import LIVE, Settings
from pipeline.predict.live import live_frames, stop_at_interrupt
from pipeline.predict.own_files import refuse_foreign, writing
from pipeline.predict.pictures import Picture, is_stored_size, predicted
from pipeline.predict.results import VideoResult, draw_prediction, result_files, result_json
from pipeline.predict.videos import PacedVideo, VideoFile, read_frames, read_times

if TYPE_CHECKING:
    from das.predictor import Predictor

_DEFAULT = Settings()


def predict_video(
    predictor: Predictor,
    video: str | Path,
    out: str | Path,
    settings: Settings = _DEFAULT,
    camera: PhotoCamera | None = None,
    collectors: Collectors | None = None,
) -> VideoResult:
    """Predicts every frame independently and writes NAME.jsonl and NAME_overlay.mp4 (overlay beside top view).

    A video that is cut is read to its last good frame, which the result's ``shortfall`` says. The overlay has a
    constant rate; where the video has not, frames are repeated, so that both last as long.

    Args:
        predictor: the model.
        video: video file.
        out: folder of the results, created if needed.
        settings: how frames are read, and what is written.
        camera: the video's calibration.
        collectors: tables and page of the whole run.

    Raises:
        ValueError: the file is no video, its frames are too large, or their size is not the calibration's.
        OutputError: a result cannot be written, or exists and was not written by `das predict`.
    """
    video, out = Path(video), Path(out)
    files = _Files(video, out, settings)
    times = read_times(video, settings.max_pixels)
    stored = False
    if camera is not None and camera.size not in (None, times.size):
        stored = is_stored_size(video, camera, times.size, times.stored_size)
    found = find_camera(times.stored_size if stored else times.size, settings.fov, camera)
    about = {"pixels": "stored" if stored else "displayed"}

    def pictures() -> Iterator[Picture]:
        with closing(read_frames(video, times, stored)) as frames:
            for frame, image in enumerate(frames):
                named = {"video": video.name, "frame": frame, "time_ms": times.times[frame], **about}
                yield Picture(video, image, found, named, stored)

    drawn = VideoFile(files.drawn, times.rate) if files.drawn else None

    def show(image: np.ndarray, about: dict[str, Any]) -> None:
        assert drawn is not None
        drawn.write(image, times.repeats(about["frame"]))

    count, finished = files.write(predictor, pictures(), drawn, show, collectors, settings.batch_size)
    assert count == len(times.times)
    faults = []
    if times.missing:
        faults.append(f"{count} of {times.announced} frames could be read, the rest is cut or damaged")
    if not finished:
        faults.append(f"OpenCV could not write {files.drawn}; the other results are complete")
    shortfall = f"{video}: {'; '.join(faults)}" if faults else None
    return VideoResult(count, found.source.text(found.K), files.written(finished), stored, shortfall)


def predict_live(
    predictor: Predictor,
    capture: cv2.VideoCapture,
    source: str,
    out: Path,
    settings: Settings = _DEFAULT,
    camera: PhotoCamera | None = None,
    collectors: Collectors | None = None,
    seconds: float | None = None,
) -> VideoResult:
    """As ``predict_video``, of a camera or stream until its end, a time or the first Ctrl-C; all results are complete.

    Each frame is predicted when it comes, and named live.

    Args:
        predictor: the model.
        capture: of ``opened_source``.
        source: its name for messages.
        out: folder of the results, created if needed.
        settings: as ``predict_video``.
        camera: its calibration.
        collectors: tables and page of the whole run.
        seconds: as ``live_frames``.

    Raises:
        ValueError: it gave no frame, or frames of another size than the calibration's.
        OutputError: a result cannot be written, or exists and was not written by `das predict`.
    """
    with stop_at_interrupt() as stopped:
        frames = live_frames(capture, seconds, stopped)
        first = next(frames, None)
        if first is None:
            raise ValueError(f"source {source}: it gave no frame")
        size = first[0].shape[0], first[0].shape[1]
        if camera is not None and camera.size not in (None, size):
            is_stored_size(Path(f"source {source}"), camera, size, size)
        found = find_camera(size, settings.fov, camera)
        files = _Files(Path(f"{LIVE}.mp4"), out, settings)

        def pictures() -> Iterator[Picture]:
            for frame, (image, time_ms) in enumerate(chain([first], frames)):
                about = {"video": LIVE, "frame": frame, "time_ms": time_ms, "pixels": "displayed"}
                yield Picture(Path(LIVE), image, found, about)

        drawn = PacedVideo(files.drawn) if files.drawn else None

        def show(image: np.ndarray, about: dict[str, Any]) -> None:
            assert drawn is not None
            drawn.write_at(image, about["time_ms"])

        count, finished = files.write(predictor, pictures(), drawn, show, collectors, batch_size=1)
    shortfall = None if finished else f"source {source}: OpenCV could not write {files.drawn}"
    return VideoResult(count, found.source.text(found.K), files.written(finished), False, shortfall)


class _Files:
    """The results of one video: NAME.jsonl and a drawn video, each if asked for."""

    def __init__(self, video: Path, out: Path, settings: Settings) -> None:
        paths = result_files(video, out, settings.formats)
        refuse_foreign(paths)
        self.jsonl = next((path for path in paths if path.suffix == ".jsonl"), None)
        self.drawn = next((path for path in paths if path.suffix == ".mp4"), None)
        self._settings = settings
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)

    def write(
        self,
        predictor: Predictor,
        pictures: Iterable[Picture],
        drawn: VideoFile | None,
        show: Callable[[np.ndarray, dict[str, Any]], None],
        collectors: Collectors | None,
        batch_size: int,
    ) -> tuple[int, bool]:
        """Predicts and writes frame by frame; the number of frames, and whether the drawn video could be written."""
        count = 0
        with ExitStack() as stack:
            lines = None
            if drawn is not None:
                stack.callback(drawn.discard)
            if self.jsonl is not None:
                stack.enter_context(writing(self.jsonl))
                lines = stack.enter_context(self.jsonl.open("w"))
            for picture, prediction in predicted(predictor, pictures, batch_size):
                value = result_json(picture, prediction)
                if lines is not None:
                    lines.write(json.dumps(value) + "\n")
                    lines.flush()
                if drawn is not None:
                    show(side_by_side(*draw_prediction(picture, prediction, self._settings.formats)), picture.about)
                if collectors is not None:
                    collectors.add(picture, prediction, value)
                count += 1
            finished = drawn is None or drawn.finish()
        return count, finished

    def written(self, finished: bool) -> tuple[Path, ...]:
        """The files that are there."""
        return tuple(path for path in (self.jsonl, self.drawn if finished else None) if path is not None)
