"""A model for photos in Python: from a model's URI to people in camera space.

    from pipeline.predict import load_predictor

    predictor = load_predictor("models:/das-panoptic@champion")
    prediction = predictor("photo.jpg")

``das.Predictor`` below it takes arrays and intrinsics, and imports nothing of pipeline.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from das.camera import ASSUMED_FOV_DEGREES
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.mlflow_client import absolute_tracking_uri
from pipeline.models import resolve_model
from pipeline.predict.camera_file import PhotoCamera, read_camera_file
from pipeline.predict.cameras import find_camera
from pipeline.predict.config import Settings
from pipeline.predict.pictures import Picture, is_stored_size, predicted, read_picture

if TYPE_CHECKING:
    from das.predictor import Prediction, Predictor

Photo = str | Path | np.ndarray
Camera = str | Path | PhotoCamera | np.ndarray


def load_predictor(
    model: str | Path,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threshold: float | None = None,
    fov_degrees: float = ASSUMED_FOV_DEGREES,
    exif: bool = True,
    storage: str | None = None,
    tracking_uri: str | None = None,
) -> PhotoPredictor:
    """A model that is ready for photos.

    Args:
        model: checkpoint folder or URI, or a registered model such as models:/das-panoptic@champion.
        device: auto is the GPU where there is one.
        threshold: smallest score of a person; None takes the model's.
        fov_degrees: field of view of the longer side, where the camera is unknown.
        exif: whether a photo's EXIF focal length is used before it.
        storage: folder of runs with the mlflow.db of registered models; default $DAS_STORAGE, else ./runs.
        tracking_uri: address of an MLflow server or store outside that folder; default $MLFLOW_TRACKING_URI.

    Raises:
        ValueError: no such model, or no GPU for cuda.
    """
    folder = model_folder(str(model), storage, tracking_uri)
    from das.predictor import Predictor  # here: it imports torch, and an unknown model is refused without it

    predictor = Predictor.from_folder(folder, device_of(device), threshold=threshold)
    return PhotoPredictor(predictor, Settings(fov=fov_degrees, exif=exif))


class PhotoPredictor:
    """Finds people on photos, files or arrays; calling it is ``predict``.

    Attributes:
        predictor: the model, for arrays and intrinsics.
    """

    def __init__(self, predictor: Predictor, settings: Settings | None = None) -> None:
        self.predictor = predictor
        self._settings = settings or Settings()

    def predict(self, photo: Photo, camera: Camera | None = None) -> Prediction:
        """People of one photo; arguments as ``predict_batch``."""
        return self.predict_batch([photo], [camera])[0]

    __call__ = predict

    def predict_batch(
        self, photos: Sequence[Photo], cameras: Sequence[Camera | None] | None = None, batch_size: int = 4
    ) -> list[Prediction]:
        """People of several photos.

        Args:
            photos: image files, or (H, W, 3) uint8 RGB arrays.
            cameras: for each a camera file, a ``PhotoCamera``, (3, 3) intrinsics in pixels, or None: then EXIF data,
                or an assumed field of view.
            batch_size: most photos that pass through the network together.

        Returns:
            The people of each, in order; ``Prediction.source`` says how its camera is known.

        Raises:
            ValueError: a file that is no image, a camera that does not fit, or an array of another type or shape.
        """
        given = [None] * len(photos) if cameras is None else cameras
        pictures = (self._picture(photo, camera) for photo, camera in zip(photos, given, strict=True))
        return [prediction for _, prediction in predicted(self.predictor, pictures, batch_size)]

    def _picture(self, photo: Photo, camera: Camera | None) -> Picture:
        path = Path("image") if isinstance(photo, np.ndarray) else Path(photo)
        if isinstance(camera, str | Path):
            camera = read_camera_file(camera, path)
        elif isinstance(camera, np.ndarray):
            camera = PhotoCamera(camera, np.zeros(5))
        if not isinstance(photo, np.ndarray):
            return read_picture(path, self._settings, camera)
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
            raise ValueError(f"image is {photo.dtype} {photo.shape}, wanted uint8 (H, W, 3)")
        size = photo.shape[0], photo.shape[1]
        if camera is not None and camera.size not in (None, size):
            is_stored_size(path, camera, size, size)
        return Picture(path, photo, find_camera(size, self._settings.fov, camera))


def model_folder(model: str, storage: str | None, tracking_uri: str | None) -> Path:
    """The checkpoint folder of a model; arguments and ValueError as ``load_predictor``."""
    place = absolute_storage(storage or os.environ.get("DAS_STORAGE") or "runs")
    return resolve_model(model, absolute_tracking_uri(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"), place))


def device_of(name: str) -> str:
    """The device itself: auto is the GPU where there is one."""
    import torch

    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
