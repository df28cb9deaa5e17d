"""The drawing of a prediction, and the files that `das predict` writes for one photo or video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from das.draw.people import draw_people
from das.draw.primitives import draw_caption
from das.draw.top_view import top_view
from pipeline.infra.files import write_bytes, write_json
from pipeline.infra.images import encode_image
from pipeline.predict.config import DEFAULT_FORMATS, Format
from pipeline.predict.own_files import refuse_foreign, sign_picture, signed, writing
from pipeline.predict.pictures import Picture
from pipeline.predict.videos import is_video, overlay_codec

if TYPE_CHECKING:
    from das.predictor import Prediction

STORED_NOTE = ", pixels as stored (not turned), because the calibration has their size"
"""Said of a photo or video whose orientation tag was not applied."""
UNPLAYABLE_NOTE = " (MPEG-4 Part 2, which browsers do not play: this OpenCV writes no VP9)"
"""Said of a video that could not be written as VP9."""


@dataclass(frozen=True)
class VideoResult:
    """What was written for one video or live source.

    Attributes:
        frames: number of frames read, a line each in NAME.jsonl.
        camera: the camera of its frames, in words.
        files: that were written.
        stored_pixels: as in ``Picture``.
        shortfall: why not all was done, in one line; None if all was.
    """

    frames: int
    camera: str
    files: tuple[Path, ...]
    stored_pixels: bool = False
    shortfall: str | None = None

    def summary(self) -> str:
        """One line for the terminal."""
        note = STORED_NOTE if self.stored_pixels else ""
        drawn = any(path.suffix == ".mp4" for path in self.files)
        unplayable = UNPLAYABLE_NOTE if drawn and overlay_codec() != "vp09" else ""
        return f"{self.frames} frames, {self.camera}{note}" + _listed(self.files) + unplayable


@dataclass(frozen=True)
class PhotoResult:
    """The people on one photo and the files that were written.

    Attributes:
        prediction: the people and the camera used.
        picture: the photo as it was read.
        files: NAME.json, the poses; NAME_overlay.jpg, the people drawn on it; NAME_top.png, from above;
            NAME_inside.png, the model's maps (see ``explain.draw_levels``); those that were asked for.
    """

    prediction: Prediction
    picture: Picture
    files: tuple[Path, ...]

    def summary(self) -> str:
        """One line for the terminal: number of people, the camera, and the files."""
        source, bits = self.prediction.source, self.picture.bits
        note = f", {source.text(self.prediction.K)}" + (f" ({source.remark})" if source.remark else "")
        note += STORED_NOTE if self.picture.stored_pixels else ""
        note += f", {bits}-bit values in a 16-bit file, scaled by {2**bits - 1}" if bits else ""
        return f"{len(self.prediction.people)} people{note}" + _listed(self.files)


def _listed(files: Sequence[Path]) -> str:
    return f": {', '.join(map(str, files))}" if files else ""


def result_files(
    file: Path, out: Path, formats: Sequence[Format] = DEFAULT_FORMATS, inside: bool = False
) -> list[Path]:
    """The files that are written for a photo or video of this name alone."""
    if is_video(file):
        drawn = "overlay" if "overlay" in formats else "top"
        endings = {"json": ".jsonl", drawn: f"_{drawn}.mp4"}
    else:
        endings = {"json": ".json", "overlay": "_overlay.jpg", "top": "_top.png"}
    written = [ending for name, ending in endings.items() if name in formats]
    return [out / f"{file.stem}{ending}" for ending in (*written, *(["_inside.png"] if inside else []))]


def result_json(picture: Picture, prediction: Prediction) -> dict[str, Any]:
    """The JSON object of a photo or frame."""
    return signed({**picture.about, **prediction.to_json()})


def write_photo_result(
    out: Path,
    picture: Picture,
    prediction: Prediction,
    formats: Sequence[Format] = DEFAULT_FORMATS,
    maps: np.ndarray | None = None,
) -> PhotoResult:
    """Writes the files of one photo, each complete or absent.

    Args:
        out: folder, created if needed.
        picture: the photo.
        prediction: the people on it.
        formats: json, overlay and top are written.
        maps: (h, w, 3) uint8 RGB for NAME_inside.png; None writes no such file.

    Raises:
        OutputError: a file cannot be written, or exists and was not written by `das predict`.
    """
    paths = result_files(picture.path, out, formats, inside=maps is not None)
    refuse_foreign(paths)
    if "json" in formats:
        with writing(paths[0]):
            write_json(paths[0], result_json(picture, prediction))
    drawn = [*draw_prediction(picture, prediction, formats), *([] if maps is None else [maps])]
    for path, image in zip(paths[-len(drawn) :] if drawn else [], drawn, strict=True):
        write_picture(path, image)
    return PhotoResult(prediction, picture, tuple(paths))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 RGB as a picture with the mark of `das predict`; OutputError if that fails."""
    with writing(path):
        write_bytes(path, sign_picture(encode_image(picture, path.suffix)))


def draw_prediction(
    picture: Picture, prediction: Prediction, formats: Sequence[Format] = DEFAULT_FORMATS
) -> list[np.ndarray]:
    """The overlay and the top view, those that are asked for.

    Returns:
        The overlay (H, W, 3), people labelled with score and root distance in metres and the camera in words, and the
        top view (S, S, 3) with S = max(480, H), both uint8 RGB. Where the direction of gravity is unknown, the top view
        assumes a level camera.
    """
    people, skeleton, valid = prediction.people, prediction.skeleton, prediction.valid
    drawn = []
    if "overlay" in formats:
        distances = people.root_cam[:, 2] / 1000  # mm to m
        labels = [f"{score:.2f}  {metres:.1f} m" for score, metres in zip(people.scores, distances, strict=True)]
        overlay = draw_people(picture.image, people.joints_uv, skeleton, valid, labels)
        draw_caption(overlay, prediction.source.text(prediction.K), below=True)  # labels of people are above them
        drawn.append(overlay)
    if "top" in formats:
        above = top_view(
            people.joints_cam,
            skeleton,
            valid,
            K=prediction.K,
            image_size=prediction.image_size,
            down=picture.camera.down,
            size=max(480, picture.image.shape[0]),
        )
        drawn.append(above)
    return drawn
