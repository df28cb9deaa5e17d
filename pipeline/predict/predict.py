"""People on photos and videos (`das predict`), and on prepared rows by the million (Ray Data).

Both ends use das.Predictor. ``predict`` writes, beside each other and each whole or not at all: NAME.json (camera
space in mm, pixels, scores, the camera used and whether it was assumed), NAME_overlay.jpg and NAME_top.png; for a
video NAME.jsonl with one such object a frame and NAME_overlay.mp4.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import tyro
from tqdm import tqdm

from das.camera import ASSUMED_FOV_DEGREES
from das.draw.montage import side_by_side
from das.draw.people import draw_people
from das.draw.top_view import top_view
from das.fields import check_threshold, check_values
from das.predictor import Prediction, Predictor
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.files import write_bytes, write_json
from pipeline.infra.images import encode_image, read_photo
from pipeline.infra.mlflow_client import absolute_tracking_uri
from pipeline.models import resolve_model
from pipeline.predict.camera_file import PhotoCamera, read_camera_file
from pipeline.predict.explain import draw_inside, draw_residuals

_VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}


@dataclass(frozen=True)
class PredictConfig:
    """Photos and videos to find people on, and the model that does it."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO [PHOTO ...]")]
    """Photos (anything that OpenCV reads) or videos."""
    model: str
    """Checkpoint folder, or a registered model such as models:/das-demo@champion."""
    out: str = "predictions"
    """Folder for the results."""
    fov: float = ASSUMED_FOV_DEGREES
    """Horizontal field of view in degrees, used where no camera file is given."""
    camera: str | None = None
    """Camera file: {"K": ..., "distortion": ...} or a CMU Panoptic calibration (pipeline/predict/camera_file.py)."""
    camera_name: str | None = None
    """Which camera of a calibration; by default the one that the photo's name begins with."""
    threshold: float | None = None
    """Least score of a person; by default the model's own, chosen on its val split."""
    inside: str | None = None
    """A joint: NAME_inside.png then shows each level's scores and its offsets to that joint, before and after the
    updates; residuals.png shows the density that training learned of the errors."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the network runs."""
    storage: str | None = None
    """Folder of runs, whose mlflow.db knows registered models; default $DAS_STORAGE, else ./runs."""
    tracking_uri: str | None = None
    """MLflow store, if it is elsewhere; default $MLFLOW_TRACKING_URI."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files is empty, wanted at least one photo or video")
        check_values(self, ("fov", 0 < self.fov < 180, "between 0 and 180 degrees"))
        check_threshold(self)
        if self.inside and any(_is_video(Path(file)) for file in self.files):
            raise ValueError("inside is for photos, wanted no videos")
        stems: dict[str, str] = {}
        for file in self.files:
            if not Path(file).is_file():
                raise ValueError(f"{file}: no such file")
            if stems.setdefault(Path(file).stem, file) != file:
                raise ValueError(f"{stems[Path(file).stem]} and {file} would write the same results; name them apart")


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in _VIDEOS


@dataclass(frozen=True)
class PhotoResult:
    """What was found on one photo, and the files that show it."""

    prediction: Prediction
    json: Path
    overlay: Path
    top: Path
    inside: Path | None

    def summary(self) -> str:
        """One line for the terminal."""
        note = f", camera assumed: {self.prediction.assumed_fov:g} degrees" if self.prediction.assumed_camera else ""
        files = (self.json, self.overlay, self.top, *([self.inside] if self.inside else []))
        return f"{len(self.prediction.people)} people{note}: {', '.join(map(str, files))}"


def predict(config: PredictConfig) -> None:
    """Runs `das predict`; one line per file on standard output.

    Raises:
        ValueError: a model, file, camera or setting that cannot be used, in one line.
    """
    storage = absolute_storage(config.storage or os.environ.get("DAS_STORAGE") or "runs")
    tracking_uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    folder = resolve_model(config.model, absolute_tracking_uri(tracking_uri, storage))
    predictor = Predictor.from_folder(folder, config.device, threshold=config.threshold)
    learned = draw_residuals(folder, predictor) if config.inside else None
    for file in map(Path, tqdm(config.files, disable=len(config.files) < 2, unit="file")):
        camera = read_camera_file(config.camera, file, config.camera_name) if config.camera else None
        if _is_video(file):
            frames, overlay = predict_video(predictor, file, config.out, config.fov, camera)
            line = f"{frames} frames: {overlay}"
        else:
            line = predict_photo(predictor, file, config.out, config.fov, camera, config.inside).summary()
        tqdm.write(f"{file}: {line}")
    if learned is not None:
        write_bytes(Path(config.out) / "residuals.png", encode_image(learned, ".png"))
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
    """Finds the people on one photo and writes NAME.json, NAME_overlay.jpg and NAME_top.png into ``out``.

    Args:
        predictor: the model.
        photo: image file.
        out: folder, made if needed.
        fov_degrees: horizontal field of view, used without a camera.
        camera: its calibration.
        inside: a joint, for NAME_inside.png (see ``draw_inside``).

    Raises:
        ValueError: the file is no image, or not of the size that the calibration is for; or there is no such joint.
    """
    photo, out = Path(photo), Path(out)
    image = read_photo(photo, stored_pixels=camera is not None)
    prediction = _predict(predictor, image, fov_degrees, camera, photo)
    overlay, above = draw_prediction(image, prediction, camera)
    within = (out / f"{photo.stem}_inside.png", draw_inside(predictor, image, inside)) if inside else None
    result = PhotoResult(
        prediction,
        json=out / f"{photo.stem}.json",
        overlay=out / f"{photo.stem}_overlay.jpg",
        top=out / f"{photo.stem}_top.png",
        inside=within[0] if within else None,
    )
    write_json(result.json, {"photo": photo.name, **prediction.to_json()})
    write_bytes(result.overlay, encode_image(overlay, ".jpg"))
    write_bytes(result.top, encode_image(above, ".png"))
    if within:
        write_bytes(within[0], encode_image(within[1], ".png"))
    return result


def predict_video(
    predictor: Predictor,
    video: str | Path,
    out: str | Path,
    fov_degrees: float = ASSUMED_FOV_DEGREES,
    camera: PhotoCamera | None = None,
) -> tuple[int, Path]:
    """Finds the people on every frame by itself and writes NAME.jsonl and NAME_overlay.mp4 (photo and top view).

    Arguments and errors as in ``predict_photo``.

    Returns:
        number of frames, and the overlay's path.
    """
    video, out = Path(video), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    overlay = out / f"{video.stem}_overlay.mp4"
    lines: list[str] = []
    # OpenCV writes to paths alone: stage by hand. The hidden name keeps its ending, which chooses the container.
    staged = overlay.with_name(f".{os.getpid()}-{overlay.name}")
    writer = None
    try:
        for image, rate in _frames(video):
            prediction = _predict(predictor, image, fov_degrees, camera, video)
            picture = side_by_side(*draw_prediction(image, prediction, camera))
            # The codec wants even sides.
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = cv2.VideoWriter(str(staged), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            lines.append(json.dumps({"video": video.name, "frame": len(lines), **prediction.to_json()}))
        if writer is None:
            raise ValueError(f"{video}: no video that OpenCV can read")
        writer.release()
        staged.replace(overlay)
    finally:
        staged.unlink(missing_ok=True)
    write_bytes(out / f"{video.stem}.jsonl", ("\n".join(lines) + "\n").encode())
    return len(lines), overlay


def draw_prediction(
    image: np.ndarray, prediction: Prediction, camera: PhotoCamera | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The overlay, people labelled with score and distance, and the top view; both uint8 RGB."""
    people, skeleton, valid = prediction.people, prediction.skeleton, prediction.valid
    distances = people.root_cam[:, 2] / 1000
    labels = [f"{score:.2f}  {metres:.1f} m" for score, metres in zip(people.scores, distances, strict=True)]
    overlay = draw_people(image, people.joints_uv, skeleton, valid, labels)
    down = camera.down if camera else None
    size = prediction.image_size
    above = top_view(people.joints_cam, skeleton, valid, K=prediction.K, image_size=size, down=down,
                     size=max(480, image.shape[0]))  # fmt: skip
    return overlay, above


def _predict(
    predictor: Predictor, image: np.ndarray, fov_degrees: float, camera: PhotoCamera | None, path: Path
) -> Prediction:
    if camera is None:
        return predictor.predict(image, fov_degrees=fov_degrees)
    if camera.size not in (None, image.shape[:2]):
        height, width = camera.size or (0, 0)
        found = f"{image.shape[1]}x{image.shape[0]}"
        raise ValueError(f"{path} has {found} pixels, but its camera is calibrated for {width}x{height}")
    return predictor.predict(image, camera.K, camera.distortion)


def _frames(video: Path) -> Iterator[tuple[np.ndarray, float]]:
    """RGB frames of a video, with its frames per second."""
    capture = cv2.VideoCapture(str(video))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
        count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        with tqdm(total=count or None, unit="frame", leave=False) as bar:
            while True:
                good, frame = capture.read()
                if not good:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), rate
                bar.update()
    finally:
        capture.release()
