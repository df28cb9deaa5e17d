"""Images on their way through the network: read with their camera, and predicted several at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.infra.exif import exif_focal
from pipeline.infra.image_headers import MAX_PIXELS
from pipeline.infra.images import decode_photo, photo_bytes
from pipeline.predict.camera_file import PhotoCamera
from pipeline.predict.cameras import FoundCamera, find_camera
from pipeline.predict.config import Settings

if TYPE_CHECKING:
    from das.predictor import Prediction, Predictor


@dataclass(frozen=True)
class Picture:
    """An image and what is known about it.

    Attributes:
        path: photo or video that it is of; a name for a live source.
        image: (H, W, 3) uint8 RGB.
        camera: that it is predicted with.
        about: first fields of its JSON object.
        stored_pixels: whether its orientation tag was not applied, because the calibration has the stored size.
        bits: depth that the values of a 16-bit file were scaled by, see ``infra.images.read_photo_bits``.
    """

    path: Path
    image: np.ndarray
    camera: FoundCamera
    about: dict[str, Any] = field(default_factory=dict)
    stored_pixels: bool = False
    bits: int | None = None


def read_picture(photo: Path, settings: Settings, given: PhotoCamera | None) -> Picture:
    """A photo with its camera.

    Raises:
        ValueError: the file is no image or too large, or its size is not the calibration's.
    """
    data = photo_bytes(photo, settings.max_pixels, settings.max_bytes)
    image, bits = decode_photo(photo, data)
    stored = False
    if given is not None and given.size not in (None, image.shape[:2]):
        turned = decode_photo(photo, data, stored_pixels=True)[0]
        stored = is_stored_size(photo, given, image.shape[:2], turned.shape[:2])
        image = turned
    size = image.shape[0], image.shape[1]
    exif = exif_focal(data, size) if settings.exif and given is None else None
    camera = find_camera(size, settings.fov, given, exif)
    about = {"photo": photo.name, "pixels": "stored" if stored else "displayed"}
    return Picture(photo, image, camera, about, stored, bits)


def predicted(
    predictor: Predictor, pictures: Iterable[Picture], batch_size: int
) -> Iterator[tuple[Picture, Prediction]]:
    """Pictures with their people, in order, through the network up to ``batch_size`` at a time.

    Only neighbours of one network input size share a batch: padding to a larger neighbour would change the result.
    """
    for batch in _batches(predictor, pictures, batch_size):
        cameras = [picture.camera for picture in batch]
        found = predictor.predict_batch(
            [picture.image for picture in batch],
            [camera.K for camera in cameras],
            [camera.distortion for camera in cameras],
        )
        for picture, prediction in zip(batch, found, strict=True):
            yield picture, replace(prediction, source=picture.camera.source)


def _batches(predictor: Predictor, pictures: Iterable[Picture], batch_size: int) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    for picture in pictures:
        size = predictor.input_size(*picture.image.shape[:2])
        pixels = sum(p.image.shape[0] * p.image.shape[1] for p in (*batch, picture))
        if batch and (size != predictor.input_size(*batch[0].image.shape[:2]) or pixels > MAX_PIXELS):
            yield batch
            batch = []
        batch.append(picture)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def is_stored_size(path: Path, camera: PhotoCamera, displayed: tuple[int, ...], stored: tuple[int, ...]) -> bool:
    """True when a calibration does not have the displayed size but the one before the orientation tag is applied.

    Raises:
        ValueError: it has neither; names ``path`` and all sizes.
    """
    if camera.size == stored:
        return True
    assert camera.size is not None
    found = _size_text(displayed) + (f" (stored {_size_text(stored)})" if stored != displayed else "")
    raise ValueError(f"{path} has {found} pixels, but its camera is calibrated for {_size_text(camera.size)}")


def _size_text(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
