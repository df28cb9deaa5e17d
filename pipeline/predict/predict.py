"""People on photos and videos: `das predict`.

Writes into one folder. For a photo: NAME.json (joints in mm in the camera frame and in pixels, scores, the camera and
whether it was assumed), NAME_overlay.jpg and NAME_top.png, each complete or absent. For a video: NAME.jsonl with one
such object per frame and its time, written as the frames come, and NAME_overlay.mp4.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from das.camera import ASSUMED_FOV_DEGREES
from das.draw.montage import side_by_side
from das.model_info import load_info
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.image_headers import MAX_IMAGE_BYTES, MAX_PIXELS
from pipeline.infra.images import read_photo_bits
from pipeline.infra.mlflow_client import absolute_tracking_uri
from pipeline.models import resolve_model
from pipeline.predict.camera_file import PhotoCamera, read_camera_file
from pipeline.predict.config import PredictConfig, check_joint
from pipeline.predict.own_files import OutputError, check_folder, refuse_foreign, signed, writing
from pipeline.predict.results import (
    PhotoResult,
    VideoResult,
    draw_prediction,
    result_files,
    write_photo_result,
    write_picture,
)
from pipeline.predict.videos import VideoFile, is_video, read_frames, read_times

if TYPE_CHECKING:
    from das.predictor import Prediction, Predictor


def predict(config: PredictConfig) -> int:
    """Runs `das predict`; prints one line per file, and at the end one on standard error per file that was not done.

    Returns:
        Number of files that were not done, or of which a part could not be read.

    Raises:
        ValueError: a model, camera file, setting or output that cannot be used, or no file at all that could be; in one
            line. Nothing is computed before models, cameras and outputs are checked.
    """
    out, files = Path(config.out), [Path(file) for file in config.files]
    check_folder(out)
    residuals_file = out / "residuals.png"
    results = [path for file in files for path in result_files(file, out, bool(config.inside))]
    refuse_foreign(results + ([residuals_file] if config.inside else []))
    cameras = [read_camera_file(config.camera, file, config.camera_name) if config.camera else None for file in files]
    storage = absolute_storage(config.storage or os.environ.get("DAS_STORAGE") or "runs")
    tracking_uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    folder = resolve_model(config.model, absolute_tracking_uri(tracking_uri, storage))
    if config.inside:
        check_joint(load_info(folder).model.skeleton, config.inside)
    from das.predictor import Predictor  # here: it imports torch, and what is refused above needs none of it

    predictor = Predictor.from_folder(folder, config.device, threshold=config.threshold)
    residuals = None
    if config.inside:
        from pipeline.predict.explain import draw_residual_density

        residuals = draw_residual_density(folder, predictor)
    faults: list[str] = []
    done = 0
    bar = tqdm(files, disable=len(files) < 2, unit="file")
    for file, camera in zip(bar, cameras, strict=True):
        try:
            if is_video(file):
                video = predict_video(predictor, file, out, config.fov, camera, config.max_pixels)
                faults += [video.shortfall] if video.shortfall else []
                line = video.summary()
            else:
                limits = config.max_pixels, config.max_bytes
                line = predict_photo(predictor, file, out, config.fov, camera, config.inside, *limits).summary()
        except OutputError:
            raise
        except (ValueError, OSError) as error:
            # Without a fault of its own in the middle of the bar: all of them are named together at the end.
            faults.append(str(error) if str(file) in str(error) else f"{file}: {error}")
        else:
            done += 1
            tqdm.write(f"{file}: {line}")
    if not done:
        raise ValueError("; ".join(faults))
    if residuals is not None:
        write_picture(residuals_file, residuals, ".png")
    for terms in dict.fromkeys(predictor.info.data["terms"]):
        print(f"terms of the model's training data: {terms}")
    sys.stdout.flush()
    for fault in faults:
        print(f"das: {' '.join(fault.split())}", file=sys.stderr)
    return len(faults)


def predict_photo(
    predictor: Predictor,
    photo: str | Path,
    out: str | Path,
    fov_degrees: float = ASSUMED_FOV_DEGREES,
    camera: PhotoCamera | None = None,
    inside: str | None = None,
    most_pixels: int = MAX_PIXELS,
    most_bytes: int = MAX_IMAGE_BYTES,
) -> PhotoResult:
    """Predicts the people on one photo and writes NAME.json, NAME_overlay.jpg and NAME_top.png.

    Args:
        predictor: the model.
        photo: image file.
        out: folder of the results, created if needed.
        fov_degrees: field of view of the longer side in degrees, used without a camera.
        camera: the photo's calibration.
        inside: name of a joint: also writes NAME_inside.png (see ``draw_levels``).
        most_pixels: of a photo that is decoded.
        most_bytes: of a file that is read.

    Raises:
        ValueError: the file is no image or too large, its size is not the calibration's, or the model has no joint
            ``inside``.
    """
    photo = Path(photo)
    image, bits = read_photo_bits(photo, False, most_pixels, most_bytes)
    size = image.shape[:2]
    stored = False
    if camera is not None and camera.size not in (None, size):
        turned = read_photo_bits(photo, True, most_pixels, most_bytes)[0]
        stored = _stored_pixels(photo, camera, size, turned.shape[:2])
        image = turned
    prediction = _predict_image(predictor, image, fov_degrees, camera)
    maps = None
    if inside:
        from pipeline.predict.explain import draw_levels

        maps = draw_levels(predictor, image, inside)
    return write_photo_result(photo, Path(out), image, prediction, camera, maps, stored, bits)


def predict_video(
    predictor: Predictor,
    video: str | Path,
    out: str | Path,
    fov_degrees: float = ASSUMED_FOV_DEGREES,
    camera: PhotoCamera | None = None,
    most_pixels: int = MAX_PIXELS,
) -> VideoResult:
    """Predicts every frame independently and writes NAME.jsonl and NAME_overlay.mp4 (overlay beside top view).

    A video that is cut is read to its last good frame, which the result's ``shortfall`` says. The overlay has a
    constant rate; where the video has not, frames are repeated, so that both last as long.

    Args:
        predictor: the model.
        video: video file.
        out: folder of the results, created if needed.
        fov_degrees: field of view of the longer side in degrees, used without a camera.
        camera: the video's calibration.
        most_pixels: of a frame.

    Raises:
        ValueError: the file is no video, its frames are too large, or their size is not the calibration's.
        OutputError: a result cannot be written, or exists and was not written by `das predict`.
    """
    video, out = Path(video), Path(out)
    jsonl, overlay = result_files(video, out)
    refuse_foreign((jsonl, overlay))
    times = read_times(video, most_pixels)
    stored = False
    if camera is not None and camera.size not in (None, times.size):
        stored = _stored_pixels(video, camera, times.size, times.stored_size)
    pixels = "stored" if stored else "displayed"
    with writing(jsonl):
        out.mkdir(parents=True, exist_ok=True)
    drawn = VideoFile(overlay, times.rate)
    try:
        with writing(jsonl), jsonl.open("w") as lines, closing(read_frames(video, times, stored)) as frames:
            for frame, image in enumerate(frames):
                prediction = _predict_image(predictor, image, fov_degrees, camera)
                about = {"video": video.name, "frame": frame, "time_ms": times.times[frame], "pixels": pixels}
                lines.write(json.dumps(signed({**about, **prediction.to_json()})) + "\n")
                lines.flush()
                picture = side_by_side(*draw_prediction(image, prediction, camera))
                drawn.write(picture, times.repeats(frame))
        finished = drawn.finish()
    finally:
        drawn.discard()
    faults = []
    if times.missing:
        faults.append(f"{len(times.times)} of {times.announced} frames could be read, the rest is cut or damaged")
    if not finished:
        faults.append(f"OpenCV could not write {overlay}; {jsonl} is complete")
    shortfall = f"{video}: {'; '.join(faults)}" if faults else None
    return VideoResult(len(times.times), jsonl, overlay if finished else None, stored, shortfall)


def _stored_pixels(path: Path, camera: PhotoCamera, displayed: tuple[int, int], stored: tuple[int, int]) -> bool:
    """True when a calibration does not have the displayed size but the one before the orientation tag is applied.

    Raises:
        ValueError: it has neither; names ``path`` and all sizes.
    """
    if camera.size == stored:
        return True
    assert camera.size is not None
    found = _size_text(displayed) + (f" (stored {_size_text(stored)})" if stored != displayed else "")
    raise ValueError(f"{path} has {found} pixels, but its camera is calibrated for {_size_text(camera.size)}")


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _predict_image(
    predictor: Predictor, image: np.ndarray, fov_degrees: float, camera: PhotoCamera | None
) -> Prediction:
    """The prediction with the calibrated camera, or with one of the assumed field of view."""
    if camera is None:
        return predictor.predict(image, fov_degrees=fov_degrees)
    return predictor.predict(image, camera.K, camera.distortion)
