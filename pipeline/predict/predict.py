"""People on photos and videos: `das predict`.

Writes into one folder, each file complete or absent. For a photo: NAME.json (joints in mm in the camera frame and in
pixels, scores, the camera and whether it was assumed), NAME_overlay.jpg and NAME_top.png. For a video: NAME.jsonl with
one such object per frame, and NAME_overlay.mp4.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from das.camera import ASSUMED_FOV_DEGREES
from das.draw.montage import side_by_side
from das.predictor import Prediction, Predictor
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.files import write_bytes
from pipeline.infra.images import encode_image, read_photo
from pipeline.infra.mlflow_client import absolute_tracking_uri
from pipeline.models import resolve_model
from pipeline.predict.camera_file import PhotoCamera, read_camera_file
from pipeline.predict.config import PredictConfig
from pipeline.predict.explain import draw_levels, draw_residual_density
from pipeline.predict.results import PhotoResult, draw_prediction, write_photo_result
from pipeline.predict.videos import VideoFile, is_video, read_frames


def predict(config: PredictConfig) -> None:
    """Runs `das predict`; prints one line per file.

    Raises:
        ValueError: a model, file, camera or setting that cannot be used, in one line.
    """
    storage = absolute_storage(config.storage or os.environ.get("DAS_STORAGE") or "runs")
    tracking_uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    folder = resolve_model(config.model, absolute_tracking_uri(tracking_uri, storage))
    predictor = Predictor.from_folder(folder, config.device, threshold=config.threshold)
    # Drawn before the first photo: a checkpoint without its flows is refused before anything is written.
    residuals = draw_residual_density(folder, predictor) if config.inside else None
    for file in map(Path, tqdm(config.files, disable=len(config.files) < 2, unit="file")):
        camera = read_camera_file(config.camera, file, config.camera_name) if config.camera else None
        if is_video(file):
            frames, overlay = predict_video(predictor, file, config.out, config.fov, camera)
            line = f"{frames} frames: {overlay}"
        else:
            line = predict_photo(predictor, file, config.out, config.fov, camera, config.inside).summary()
        tqdm.write(f"{file}: {line}")
    if residuals is not None:
        write_bytes(Path(config.out) / "residuals.png", encode_image(residuals, ".png"))
    for terms in dict.fromkeys(predictor.info.data["terms"]):
        print(f"terms of the model's training data: {terms}")


def predict_photo(
    predictor: Predictor,
    photo: str | Path,
    out: str | Path,
    fov_degrees: float = ASSUMED_FOV_DEGREES,
    camera: PhotoCamera | None = None,
    inside: str | None = None,
) -> PhotoResult:
    """Predicts the people on one photo and writes NAME.json, NAME_overlay.jpg and NAME_top.png.

    Args:
        predictor: the model.
        photo: image file.
        out: folder of the results, created if needed.
        fov_degrees: field of view of the longer side in degrees, used without a camera.
        camera: the photo's calibration.
        inside: name of a joint: also writes NAME_inside.png (see ``draw_levels``).

    Raises:
        ValueError: the file is no image, its size is not the calibration's, or the model has no joint ``inside``.
    """
    photo = Path(photo)
    # OpenCV would rotate by the orientation tag, but K and distortion belong to the pixels as stored.
    image = read_photo(photo, stored_pixels=camera is not None)
    prediction = _predict_image(predictor, image, fov_degrees, camera, photo)
    maps = draw_levels(predictor, image, inside) if inside else None
    return write_photo_result(photo, Path(out), image, prediction, camera, maps)


def predict_video(
    predictor: Predictor,
    video: str | Path,
    out: str | Path,
    fov_degrees: float = ASSUMED_FOV_DEGREES,
    camera: PhotoCamera | None = None,
) -> tuple[int, Path]:
    """Predicts every frame independently and writes NAME.jsonl and NAME_overlay.mp4 (overlay beside top view).

    Args:
        predictor: the model.
        video: video file.
        out: folder of the results, created if needed.
        fov_degrees: field of view of the longer side in degrees, used without a camera.
        camera: the video's calibration.

    Returns:
        Number of frames, and the overlay's path.

    Raises:
        ValueError: the file is no video, or its size is not the calibration's.
    """
    video, out = Path(video), Path(out)
    overlay = out / f"{video.stem}_overlay.mp4"
    lines: list[str] = []
    drawn = VideoFile(overlay)
    try:
        for image, rate in read_frames(video):
            prediction = _predict_image(predictor, image, fov_degrees, camera, video)
            drawn.write(side_by_side(*draw_prediction(image, prediction, camera)), rate)
            lines.append(json.dumps({"video": video.name, "frame": len(lines), **prediction.to_json()}))
        if not lines:
            raise ValueError(f"{video}: no video that OpenCV can read")
        drawn.finish()
    finally:
        drawn.discard()
    write_bytes(out / f"{video.stem}.jsonl", ("\n".join(lines) + "\n").encode())
    return len(lines), overlay


def _predict_image(
    predictor: Predictor, image: np.ndarray, fov_degrees: float, camera: PhotoCamera | None, path: Path
) -> Prediction:
    """The prediction with the calibrated camera, or with one of the assumed field of view.

    Raises:
        ValueError: the image does not have the size that the calibration is for; names ``path``.
    """
    if camera is None:
        return predictor.predict(image, fov_degrees=fov_degrees)
    if camera.size is not None and camera.size != image.shape[:2]:
        height, width = camera.size
        found = f"{image.shape[1]}x{image.shape[0]}"
        raise ValueError(f"{path} has {found} pixels, but its camera is calibrated for {width}x{height}")
    return predictor.predict(image, camera.K, camera.distortion)
