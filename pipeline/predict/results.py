"""The drawing of a prediction, and the files that `das predict` writes for one photo or video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from das.draw.people import draw_people
from das.draw.top_view import top_view
from pipeline.infra.files import write_bytes, write_json
from pipeline.infra.images import encode_image
from pipeline.predict.camera_file import PhotoCamera
from pipeline.predict.own_files import refuse_foreign, sign_picture, signed, writing
from pipeline.predict.videos import is_video

if TYPE_CHECKING:
    from das.predictor import Prediction

STORED_NOTE = ", pixels as stored (not turned), because the calibration has their size"
"""Said of a photo or video whose orientation tag was not applied."""


@dataclass(frozen=True)
class VideoResult:
    """What was written for one video.

    Attributes:
        frames: number of frames read, a line each in NAME.jsonl.
        jsonl: NAME.jsonl.
        overlay: NAME_overlay.mp4; None if OpenCV could not write it.
        stored_pixels: as in ``PhotoResult``.
        shortfall: why not all was done, in one line; None if all was.
    """

    frames: int
    jsonl: Path
    overlay: Path | None
    stored_pixels: bool = False
    shortfall: str | None = None

    def summary(self) -> str:
        """One line for the terminal."""
        note = STORED_NOTE if self.stored_pixels else ""
        return f"{self.frames} frames{note}: {self.jsonl}" + (f", {self.overlay}" if self.overlay else "")


@dataclass(frozen=True)
class PhotoResult:
    """The people on one photo and the files that were written.

    Attributes:
        prediction: the people and the camera used.
        json: NAME.json, the poses.
        overlay: NAME_overlay.jpg, the photo with the people drawn on it.
        top: NAME_top.png, the people from above.
        inside: NAME_inside.png, the model's maps (see ``explain.draw_levels``); None if not requested.
        stored_pixels: whether the pixels are as stored, as the calibration's size says, and not as displayed.
        bits: depth that the values of a 16-bit file were scaled by, see ``infra.images.read_photo_bits``.
    """

    prediction: Prediction
    json: Path
    overlay: Path
    top: Path
    inside: Path | None
    stored_pixels: bool = False
    bits: int | None = None

    def summary(self) -> str:
        """One line for the terminal: number of people, an assumed camera, and the files."""
        note = f", camera assumed: {self.prediction.assumed_fov:g} degrees" if self.prediction.assumed_camera else ""
        note += STORED_NOTE if self.stored_pixels else ""
        note += f", {self.bits}-bit values in a 16-bit file, scaled by {2**self.bits - 1}" if self.bits else ""
        files = (self.json, self.overlay, self.top, *([self.inside] if self.inside else []))
        return f"{len(self.prediction.people)} people{note}: {', '.join(map(str, files))}"


def result_files(file: Path, out: Path, inside: bool = False) -> list[Path]:
    """The files that are written for a photo or video."""
    if is_video(file):
        endings = [".jsonl", "_overlay.mp4"]
    else:
        endings = [".json", "_overlay.jpg", "_top.png", *(["_inside.png"] if inside else [])]
    return [out / f"{file.stem}{ending}" for ending in endings]


def write_photo_result(
    photo: Path,
    out: Path,
    image: np.ndarray,
    prediction: Prediction,
    camera: PhotoCamera | None = None,
    maps: np.ndarray | None = None,
    stored_pixels: bool = False,
    bits: int | None = None,
) -> PhotoResult:
    """Writes the files of one photo into a folder; each file is complete or absent.

    Args:
        photo: the photo's path; its stem begins the names of the files.
        out: the folder, created if needed.
        image: (H, W, 3) uint8 RGB, the photo's pixels.
        prediction: the people on it.
        camera: its calibration, for the direction of gravity in the top view.
        maps: (h, w, 3) uint8 RGB for NAME_inside.png; None writes no such file.
        stored_pixels: whether the orientation tag was not applied.
        bits: depth of the file's values, for the summary.

    Raises:
        OutputError: a file cannot be written, or exists and was not written by `das predict`.
    """
    paths = result_files(photo, out, inside=maps is not None)
    refuse_foreign(paths)
    overlay, above = draw_prediction(image, prediction, camera)
    pictures = [(overlay, ".jpg"), (above, ".png")] + ([] if maps is None else [(maps, ".png")])
    pixels = "stored" if stored_pixels else "displayed"
    with writing(paths[0]):
        write_json(paths[0], signed({"photo": photo.name, "pixels": pixels, **prediction.to_json()}))
    for path, (picture, ending) in zip(paths[1:], pictures, strict=True):
        write_picture(path, picture, ending)
    inside = paths[3] if maps is not None else None
    return PhotoResult(prediction, paths[0], paths[1], paths[2], inside, stored_pixels, bits)


def write_picture(path: Path, picture: np.ndarray, ending: str) -> None:
    """Writes (H, W, 3) uint8 RGB as a picture with the mark of `das predict`; OutputError if that fails."""
    with writing(path):
        write_bytes(path, sign_picture(encode_image(picture, ending)))


def draw_prediction(
    image: np.ndarray, prediction: Prediction, camera: PhotoCamera | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The overlay, people labelled with score and root distance in metres, and the top view.

    Args:
        image: (H, W, 3) uint8 RGB.
        prediction: the people on it.
        camera: its calibration; without one, gravity is assumed along the camera's y axis in the top view.

    Returns:
        Overlay (H, W, 3) and top view (S, S, 3) with S = max(480, H), both uint8 RGB.
    """
    people, skeleton, valid = prediction.people, prediction.skeleton, prediction.valid
    distances = people.root_cam[:, 2] / 1000  # mm to m
    labels = [f"{score:.2f}  {metres:.1f} m" for score, metres in zip(people.scores, distances, strict=True)]
    overlay = draw_people(image, people.joints_uv, skeleton, valid, labels)
    above = top_view(
        people.joints_cam,
        skeleton,
        valid,
        K=prediction.K,
        image_size=prediction.image_size,
        down=camera.down if camera else None,
        size=max(480, image.shape[0]),
    )
    return overlay, above
