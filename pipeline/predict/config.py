"""Settings of `das predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from das.camera import ASSUMED_FOV_DEGREES
from das.fields import at_least, check_threshold, check_values
from das.skeleton import Skeleton
from pipeline.infra.configs import device_flag
from pipeline.infra.image_headers import MAX_IMAGE_BYTES, MAX_PIXELS
from pipeline.infra.images import photo_bytes
from pipeline.predict.videos import check_container, is_video


@dataclass(frozen=True)
class PredictConfig:
    """The photos and videos, the model, and the camera."""

    files: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="PHOTO [PHOTO ...]", help_behavior_hint="(required)"),
    ]
    """Photos (anything that OpenCV reads) or videos."""
    model: str
    """Checkpoint folder (or URI), or a registered model such as models:/das-demo@champion."""
    out: str = "predictions"
    """Folder for the results."""
    fov: float = ASSUMED_FOV_DEGREES
    """Field of view of the longer side in degrees, used where no camera file is given."""
    camera: str | None = None
    """Camera file: {"K": ..., "distortion": ...} or a CMU Panoptic calibration (pipeline/predict/camera_file.py)."""
    camera_name: str | None = None
    """Name of the camera in a calibration; by default the one that the photo's name begins with."""
    threshold: float | None = None
    """Smallest score of a person; by default the model's score threshold, which was chosen on its val split."""
    max_pixels: int = MAX_PIXELS
    """Most pixels of a photo, or of a frame of a video; larger ones are refused before they are decoded."""
    max_bytes: int = MAX_IMAGE_BYTES
    """Largest photo file that is read, bytes."""
    inside: str | None = None
    """Name of a joint: also writes NAME_inside.png, each pyramid level's scores and offsets to that joint before and
    after the recursive updates, and residuals.png, the learned density of the errors in the image."""
    device: Annotated[Literal["cpu", "cuda"], device_flag(cpu="cpu", cuda="cuda")] = "cpu"
    """Device of the network."""
    storage: str | None = None
    """Folder of runs with the mlflow.db of registered models; default $DAS_STORAGE, else ./runs."""
    tracking_uri: str | None = None
    """Address of an MLflow server or store outside that folder; default $MLFLOW_TRACKING_URI."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files is empty, wanted at least one photo or video")
        check_values(self, ("fov", 0 < self.fov < 180, "between 0 and 180 degrees"))
        check_threshold(self)
        if self.inside and any(is_video(Path(file)) for file in self.files):
            raise ValueError("inside draws on photos only, wanted no videos")
        at_least(self, max_pixels=1, max_bytes=1)
        stems: dict[str, str] = {}
        for file in self.files:
            if not Path(file).exists():
                raise ValueError(f"{file}: no such file")
            if stems.setdefault(Path(file).stem, file) != file:
                raise ValueError(f"{stems[Path(file).stem]} and {file} would write files of the same name; rename one")

    def refuse_unusable(self) -> None:
        """Looks at the camera file, and at the files until one may be opened, before torch is imported.

        Raises:
            ValueError: the camera file cannot be used, or no file may be opened: pipes, devices, too large ones,
                photos of too many pixels or of no known kind and videos of no known container are named with their
                faults.
        """
        from pipeline.predict.camera_file import read_camera_file  # here: it imports pyarrow, which help does without

        if self.camera is not None:
            read_camera_file(self.camera, Path(self.files[0]), self.camera_name)
        faults: list[str] = []
        for file in map(Path, self.files):
            if (fault := self._fault(file)) is None:
                return
            faults.append(fault)
        raise ValueError("; ".join(faults))

    def _fault(self, file: Path) -> str | None:
        """Why a file cannot be used, as far as its first bytes show; None if they show nothing."""
        try:
            if is_video(file):
                check_container(file)
            else:
                photo_bytes(file, self.max_pixels, self.max_bytes)
        except ValueError as error:
            return str(error)
        return None


def check_joint(skeleton: Skeleton, joint: str) -> None:
    """Raises ValueError when a joint set does not have the joint."""
    if joint not in skeleton.joints:
        raise ValueError(f"joint = {joint!r}, wanted one of {', '.join(skeleton.joints)}")
