"""Settings of `das predict`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from das.camera import ASSUMED_FOV_DEGREES
from das.fields import at_least, check_threshold, check_values
from das.skeleton import Skeleton
from pipeline.infra.configs import device_flag
from pipeline.infra.image_headers import MAX_IMAGE_BYTES, MAX_PIXELS
from pipeline.infra.images import photo_bytes
from pipeline.predict.inputs import STANDARD_INPUT, find_files
from pipeline.predict.live import check_source
from pipeline.predict.videos import check_container, is_video

Format = Literal["json", "csv", "parquet", "overlay", "top", "html"]
DEFAULT_FORMATS: tuple[Format, ...] = ("json", "overlay", "top")
LIVE = "live"
"""Name of the results of a camera or stream."""


@dataclass(frozen=True)
class Settings:
    """How photos and frames are read and predicted, and what is written."""

    fov: float = ASSUMED_FOV_DEGREES
    """Field of view of the longer side in degrees, where the camera is unknown."""
    exif: bool = True
    """Whether a photo's EXIF focal length is used before it."""
    formats: tuple[Format, ...] = DEFAULT_FORMATS
    """What is written."""
    inside: str | None = None
    """Name of a joint whose maps are drawn."""
    batch_size: int = 1
    """Most images that pass through the network together."""
    max_pixels: int = MAX_PIXELS
    """Most pixels of an image."""
    max_bytes: int = MAX_IMAGE_BYTES
    """Largest photo file, bytes."""


@dataclass(frozen=True)
class PredictConfig:
    """The photos and videos, the model, and the camera."""

    files: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="PHOTO [PHOTO ...]", help_behavior_hint="(required)"),
    ]
    """Photos (anything that OpenCV reads), videos, folders of them (those directly inside), patterns in quotes such as
    "day*/*.jpg", or - for names on standard input, one a line."""
    model: str
    """Checkpoint folder (or URI), or a registered model such as models:/das-demo@champion."""
    out: str = "predictions"
    """Folder for the results."""
    source: str | None = None
    """Instead of files: number of a camera of this machine, such as 0, or http or rtsp URL of a stream."""
    seconds: float | None = None
    """Longest time to read from a source; Ctrl-C ends it too, and what was read is written in full."""
    formats: tuple[Format, ...] = DEFAULT_FORMATS
    """What is written: of each photo or video json (its poses), overlay (people drawn on it) and top (from above), of
    all together csv and parquet (a row for each joint) and html (a page with the people in 3D)."""
    fov: float = ASSUMED_FOV_DEGREES
    """Field of view of the longer side in degrees, where neither camera file nor EXIF data tell the focal length."""
    exif: bool = True
    """Whether the focal length in a photo's EXIF data is used, where no camera file is given."""
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
    batch_size: int = 4
    """Most images that pass through the network together, which is faster; positions differ from those of single images
    by thousandths of a mm."""
    device: Annotated[Literal["auto", "cpu", "cuda"], device_flag(cpu="cpu", cuda="cuda", auto="auto")] = "auto"
    """Device of the network: auto is the GPU where there is one."""
    storage: str | None = None
    """Folder of runs with the mlflow.db of registered models; default $DAS_STORAGE, else ./runs."""
    tracking_uri: str | None = None
    """Address of an MLflow server or store outside that folder; default $MLFLOW_TRACKING_URI."""

    def __post_init__(self) -> None:
        if not self.files and self.source is None:
            raise ValueError("files is empty, wanted at least one photo or video")
        if self.files and self.source is not None:
            raise ValueError("files and source are both given, wanted one of the two")
        if self.seconds is not None and self.source is None:
            raise ValueError(f"seconds = {self.seconds:g} limits a source, wanted --source with it")
        check_values(
            self,
            ("fov", 0 < self.fov < 180, "between 0 and 180 degrees"),
            ("seconds", self.seconds is None or self.seconds > 0, "above 0"),
            ("formats", bool(self.formats), "at least one"),
        )
        check_threshold(self)
        at_least(self, max_pixels=1, max_bytes=1, batch_size=1)
        if self.source is not None:
            check_source(self.source)
        # What is named on standard input is looked at when it is read.
        self._check_files(find_files([word for word in self.files if word != STANDARD_INPUT]).files)

    def _check_files(self, files: tuple[str, ...]) -> None:
        if self.inside and (self.source is not None or any(is_video(Path(file)) for file in files)):
            raise ValueError("inside draws on photos only, wanted no videos")
        stems: dict[str, str] = {}
        for file in files:
            if stems.setdefault(Path(file).stem, file) != file:
                raise ValueError(f"{stems[Path(file).stem]} and {file} would write files of the same name; rename one")

    def expanded(self) -> PredictConfig:
        """The same for the files that folders, patterns and standard input stand for; says what was left out.

        Raises:
            ValueError: as ``find_files``; standard input names no file; two files would write results of one name.
        """
        found = find_files(self.files, sys.stdin)
        for line in found.left_out:
            print(line, file=sys.stderr)
        if self.source is None and not found.files:
            raise ValueError("standard input names no file, wanted at least one photo or video")
        self._check_files(found.files)
        return replace(self, files=found.files)

    @property
    def settings(self) -> Settings:
        """What concerns each photo and frame."""
        return Settings(
            fov=self.fov,
            exif=self.exif,
            formats=self.formats,
            inside=self.inside,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
            max_bytes=self.max_bytes,
        )

    def refuse_unusable(self) -> None:
        """Looks at the camera file, and at the files until one may be opened, before torch is imported.

        Raises:
            ValueError: the camera file cannot be used, or no file may be opened: pipes, devices, too large ones,
                photos of too many pixels or of no known kind and videos of no known container are named with their
                faults.
        """
        from pipeline.predict.camera_file import read_camera_file  # here: it imports pyarrow, which help does without

        if self.camera is not None:
            read_camera_file(self.camera, Path(self.files[0] if self.files else LIVE), self.camera_name)
        if self.source is not None:
            return
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
