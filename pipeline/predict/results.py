"""The drawing of a prediction, and the files that `das predict` writes for one photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from das.draw.people import draw_people
from das.draw.top_view import top_view
from das.predictor import Prediction
from pipeline.infra.files import write_bytes, write_json
from pipeline.infra.images import encode_image
from pipeline.predict.camera_file import PhotoCamera


@dataclass(frozen=True)
class PhotoResult:
    """The people on one photo and the files that were written.

    Attributes:
        prediction: the people and the camera used.
        json: NAME.json, the poses.
        overlay: NAME_overlay.jpg, the photo with the people drawn on it.
        top: NAME_top.png, the people from above.
        inside: NAME_inside.png, the model's maps (see ``explain.draw_levels``); None if not requested.
    """

    prediction: Prediction
    json: Path
    overlay: Path
    top: Path
    inside: Path | None

    def summary(self) -> str:
        """One line for the terminal: number of people, an assumed camera, and the files."""
        note = f", camera assumed: {self.prediction.assumed_fov:g} degrees" if self.prediction.assumed_camera else ""
        files = (self.json, self.overlay, self.top, *([self.inside] if self.inside else []))
        return f"{len(self.prediction.people)} people{note}: {', '.join(map(str, files))}"


def write_photo_result(
    photo: Path,
    out: Path,
    image: np.ndarray,
    prediction: Prediction,
    camera: PhotoCamera | None = None,
    maps: np.ndarray | None = None,
) -> PhotoResult:
    """Writes the files of one photo into a folder; each file is complete or absent.

    Args:
        photo: the photo's path; its stem begins the names of the files.
        out: the folder, created if needed.
        image: (H, W, 3) uint8 RGB, the photo's pixels.
        prediction: the people on it.
        camera: its calibration, for the direction of gravity in the top view.
        maps: (h, w, 3) uint8 RGB for NAME_inside.png; None writes no such file.
    """
    overlay, above = draw_prediction(image, prediction, camera)
    result = PhotoResult(
        prediction,
        json=out / f"{photo.stem}.json",
        overlay=out / f"{photo.stem}_overlay.jpg",
        top=out / f"{photo.stem}_top.png",
        inside=None if maps is None else out / f"{photo.stem}_inside.png",
    )
    write_json(result.json, {"photo": photo.name, **prediction.to_json()})
    write_bytes(result.overlay, encode_image(overlay, ".jpg"))
    write_bytes(result.top, encode_image(above, ".png"))
    if result.inside is not None and maps is not None:
        write_bytes(result.inside, encode_image(maps, ".png"))
    return result


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
