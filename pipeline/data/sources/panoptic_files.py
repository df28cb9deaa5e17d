"""CMU Panoptic's files: their paths, the calibration of a camera, and the 3D poses of one frame.

Lengths are centimetres in the files and millimetres in what the functions here return.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from das.skeleton import COCO19, MPI15, Skeleton
from pipeline.data.sources.json_files import load_json
from pipeline.infra.regular_files import unread

_MM_PER_CM = 10.0
_POSE_FILE = re.compile(r"body3DScene_(\d{8})\.json")


IMAGE_ENDINGS = (".jpg", ".png")
"""Endings of image files, as `extractAll.sh SEQUENCE jpg` and `png` write them; the first wins where both exist."""


class PoseFormat(NamedTuple):
    """A folder of pose files, the field of a person that holds the joints, and the joint set."""

    folder: str
    field: str
    skeleton: Skeleton


POSE_FORMATS = (
    PoseFormat("hdPose3d_stage1_coco19", "joints19", COCO19),
    PoseFormat("hdPose3d_stage1", "joints15", MPI15),
)
"""In order of preference; older sequences have only the second."""

VIDEO_RATE = 29.97
"""Frames per second of the videos; a pose file has the number of its frame."""

Body = tuple[int, np.ndarray, np.ndarray]
"""A person of a pose file: id, world joints (J, 3) in mm, and confidence (J,), -1 where a joint is missing."""


# Paths relative to the folder of all sequences.


def calibration_file(sequence: str) -> str:
    """Path of the calibration of all cameras of a sequence."""
    return f"{sequence}/calibration_{sequence.rpartition('/')[2]}.json"


def image_folder(sequence: str, camera: str) -> str:
    """Path of the folder of one camera's images."""
    return f"{sequence}/hdImgs/{camera}"


def image_file(sequence: str, camera: str, frame: int, ending: str = ".jpg") -> str:
    """Path of the image of one frame."""
    return f"{image_folder(sequence, camera)}/{camera}_{frame:08d}{ending}"


def existing_image(sequence: str, camera: str, frame: int, exists: Callable[[str], bool]) -> str:
    """Path of the image of one frame with the first of ``IMAGE_ENDINGS`` that exists; ``.jpg`` if none does."""
    paths = (image_file(sequence, camera, frame, ending) for ending in IMAGE_ENDINGS)
    return next(filter(exists, paths), image_file(sequence, camera, frame))


def video_file(sequence: str, camera: str) -> str:
    """Path of the video that one camera's images are extracted from."""
    return f"{sequence}/hdVideos/hd_{camera}.mp4"


def pose_file(frame: int) -> str:
    """Name of a frame's file in a folder of ``POSE_FORMATS``."""
    return f"body3DScene_{frame:08d}.json"


def posed_frames(names: Iterable[str]) -> list[int]:
    """Numbers of the frames whose pose files are among these file names, in order."""
    return sorted(int(match[1]) for name in names if (match := _POSE_FILE.fullmatch(name)))


def imaged_frames(names: Iterable[str], camera: str) -> set[int]:
    """Numbers of the frames whose images of this camera are among these file names."""
    pattern = re.compile(rf"{re.escape(camera)}_(\d{{8}})(?:{'|'.join(map(re.escape, IMAGE_ENDINGS))})")
    return {int(match[1]) for name in names if (match := pattern.fullmatch(name))}


@dataclass(frozen=True)
class PanopticCamera:
    """One calibrated camera of a sequence.

    Attributes:
        K: (3, 3) float64 pixels. distortion: (5,) k1 k2 p1 p2 k3.
        R: (3, 3), t_mm: (3,): ``X_cam = R X_world + t``.
        size: (height, width) pixels.
    """

    K: np.ndarray
    distortion: np.ndarray
    R: np.ndarray
    t_mm: np.ndarray
    size: tuple[int, int]

    @cached_property
    def max_radius2(self) -> float:
        """Largest squared distance from the axis (at z = 1) up to which the lens model is one-to-one.

        Its polynomial is fitted inside the image. Some way outside, the distorted radius decreases again, and points
        far to the side of the camera would be projected into the image.
        """
        k1, k2, _, _, k3 = self.distortion
        # d/dr of r (1 + k1 r^2 + k2 r^4 + k3 r^6) is a polynomial in r^2, positive up to its first positive root.
        roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1])
        turns = roots.real[(abs(roots.imag) < 1e-12) & (roots.real > 0)]
        return float(turns.min(initial=np.inf))

    def can_image(self, cam: np.ndarray) -> np.ndarray:
        """Which camera-space points (..., 3) are in front of the camera and where its lens model is valid."""
        front = cam[..., 2] > 0
        depth = np.where(front, cam[..., 2], 1.0)
        return front & (((cam[..., :2] / depth[..., None]) ** 2).sum(axis=-1) < self.max_radius2)


def read_calibrated_camera(path: Path, name: str) -> PanopticCamera:
    """One camera of a calibration file.

    Raises:
        ValueError: naming the file, when the camera is absent or a field of it is malformed.
    """
    try:
        return _read_camera(path, path.stat().st_mtime_ns, name)
    except OSError as error:
        raise ValueError(unread(error)) from error


@lru_cache(maxsize=4096)  # a file of hundreds of cameras takes 10 ms to parse, and short chunks ask for one often
def _read_camera(path: Path, changed: int, name: str) -> PanopticCamera:
    try:
        cameras = {camera["name"]: camera for camera in load_json(path)["cameras"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: wanted an object with a list `cameras` of named cameras") from error
    if name not in cameras:
        some = ", ".join(map(str, [*cameras][:3]))
        raise ValueError(f"{path}: no camera {name!r}; it has {len(cameras)}, such as {some}")
    camera = cameras[name]
    try:
        width, height = camera["resolution"]
        found = PanopticCamera(
            K=np.array(camera["K"], np.float64).reshape(3, 3),
            distortion=np.array(camera["distCoef"], np.float64).reshape(5),
            R=np.array(camera["R"], np.float64).reshape(3, 3),
            t_mm=_MM_PER_CM * np.array(camera["t"], np.float64).reshape(3),
            size=(int(height), int(width)),
        )
        if not all(np.isfinite(value).all() for value in (found.K, found.distortion, found.R, found.t_mm)):
            raise ValueError("NaN or infinity")
        return found
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: camera {name!r}: malformed field ({error!r})") from error


def read_bodies(path: Path, field: str, joints: int) -> list[Body]:
    """People of a pose file.

    Args:
        path: of the file.
        field: of a person's entry that holds the joints.
        joints: how many there are, J.

    Raises:
        ValueError: naming the file, when it is no JSON, or its joints are not J x 4 finite numbers.
    """
    content = load_json(path)
    people = []
    try:
        for body in content["bodies"]:
            values = np.array(body[field], np.float64).reshape(joints, 4)
            if not np.isfinite(values).all():
                raise ValueError(f"person {body['id']}: NaN or infinity in {field}")
            people.append((int(np.int64(body["id"])), _MM_PER_CM * values[:, :3], values[:, 3]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        wanted = f"bodies with id and {field} of {joints} x 4 numbers"
        raise ValueError(f"{path}: wanted {wanted} ({error!r})") from error
    return people
