"""CMU Panoptic (Joo et al., ICCV 2015) in the layout its owners ship.

    ROOT/<sequence>/calibration_<sequence>.json                      cameras, centimetres
    ROOT/<sequence>/hdPose3d_stage1_coco19/body3DScene_%08d.json     19 joints; older: hdPose3d_stage1, 15
    joints ROOT/<sequence>/hdImgs/<camera>/<camera>_%08d.jpg                HD frames, distorted

World coordinates are centimetres with y down; this file turns them into millimetres of the camera frame,
once. Boxes and image positions are not part of the data: both follow from the projection with the sequence's
own calibration. Partial downloads are normal: absent sequences give no shards, absent images become drops
with that reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from das.camera import project, transform
from das.skeleton import COCO19, MPI15, Skeleton
from pipeline.datasets.source import (
    Drop,
    Person,
    Shard,
    cut,
    read_json,
    record,
    require_file,
    require_folder,
)
from pipeline.schema import UNLABELLED, VISIBLE, Record
from pipeline.splits import PANOPTIC, SplitManifest

TERMS = (
    "CMU Panoptic Dataset: non-commercial research use only; see http://domedb.perception.cs.cmu.edu and "
    "cite Joo et al., ICCV 2015"
)
SKELETONS: tuple[Skeleton, ...] = (COCO19, MPI15)
SPLITS = PANOPTIC

_MM_PER_CM = 10.0
# A joint counts as seen above this confidence, in the published protocol and in every loader after it.
_MIN_CONFIDENCE = 0.1
# A person with fewer seen joints, or whose box inside the image is smaller (pixels), is not an annotation to
# use.
_MIN_JOINTS = 3
_MIN_BOX_SIDE, _MIN_BOX_AREA = 1.0, 64.0

_POSE_FILE = re.compile(r"body3DScene_(\d{8})\.json")
# (folder, field, joint set), the preferred one first.
_POSES = (("hdPose3d_stage1_coco19", "joints19", COCO19), ("hdPose3d_stage1", "joints15", MPI15))


@dataclass(frozen=True)
class Camera:
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
    def widest(self) -> float:
        """Largest squared distance from the axis (at z = 1) at which the lens model is one-to-one.

        Its polynomial is fitted inside the image. Some way outside it turns round and would fold people at the
        side of the camera back into the picture.
        """
        k1, k2, _, _, k3 = self.distortion
        # d/dr of r (1 + k1 r^2 + k2 r^4 + k3 r^6) is a polynomial in r^2: rising up to its first positive root.
        roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1])
        turns = roots.real[(abs(roots.imag) < 1e-12) & (roots.real > 0)]
        return float(turns.min(initial=np.inf))


def shards(
    root: str | Path, split: str, splits: SplitManifest = SPLITS, source: str = "panoptic"
) -> list[Shard]:
    """The work of one split: its sequences that exist, every camera, in runs of frames that have a pose file.

    Args:
        root: folder of the sequences.
        split: train, val or test.
        splits: which sequences belong to it, and which of their cameras and frames are taken.
        source: data set that keys and rows name (another source may ship this layout).

    Raises:
        ValueError: no such folder; a sequence without calibration or pose files.
    """
    folder = require_folder(root, source)
    found = []
    for part in splits.of(split):
        sequence = folder / part.sequence
        if not sequence.is_dir():
            continue
        require_file([_calibration(sequence)], f"{source}: calibration of {part.sequence}")
        poses, _, _ = _pose_folder(sequence)
        names = (_POSE_FILE.fullmatch(path.name) for path in poses.iterdir())
        frames = sorted(int(name[1]) for name in names if name)
        if not frames:
            raise ValueError(f"{source}: no body3DScene_*.json in {poses}")
        taken = splits.select(part, frames)
        for camera in splits.cameras:
            images = [_image(sequence, camera, frame) for frame in taken]
            found += cut(source, folder, part, camera, taken, images)
    return found


def records(shard: Shard) -> Iterator[Record | Drop]:
    """Every frame of the shard seen by its camera.

    Raises:
        ValueError: calibration or a pose file is malformed, or the camera is not in the calibration.
    """
    sequence = Path(shard.root) / shard.sequence
    camera = read_camera(_calibration(sequence), shard.camera)
    poses, field, skeleton = _pose_folder(sequence)
    for frame in shard.frames:
        bodies = read_bodies(poses / f"body3DScene_{frame:08d}.json", field, len(skeleton))
        people = [person_in(camera, id_, world, confidence) for id_, world, confidence in bodies]
        yield record(
            shard,
            frame,
            _image(sequence, shard.camera, frame),
            camera.size,
            skeleton,
            people,
            K=camera.K,
            distortion=camera.distortion,
            R=camera.R,
            t_mm=camera.t_mm,
        )


def _calibration(sequence: Path) -> Path:
    return sequence / f"calibration_{sequence.name}.json"


def _image(sequence: Path, camera: str, frame: int) -> Path:
    return sequence / "hdImgs" / camera / f"{camera}_{frame:08d}.jpg"


def _pose_folder(sequence: Path) -> tuple[Path, str, Skeleton]:
    for name, field, skeleton in _POSES:
        if (sequence / name).is_dir():
            return sequence / name, field, skeleton
    raise ValueError(f"panoptic: no pose folder {' or '.join(name for name, _, _ in _POSES)} in {sequence}")


def read_camera(path: Path, name: str) -> Camera:
    """One camera of a calibration file.

    Raises:
        ValueError: naming the file, when the camera is absent or a field of it is malformed.
    """
    try:
        cameras = {camera["name"]: camera for camera in read_json(path)["cameras"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: wanted an object with a list `cameras` of named cameras") from error
    if name not in cameras:
        some = ", ".join([*cameras][:3])
        raise ValueError(f"{path}: no camera {name!r}; it has {len(cameras)}, such as {some}")
    camera = cameras[name]
    try:
        width, height = camera["resolution"]
        return Camera(
            K=np.array(camera["K"], np.float64).reshape(3, 3),
            distortion=np.array(camera["distCoef"], np.float64).reshape(5),
            R=np.array(camera["R"], np.float64).reshape(3, 3),
            t_mm=_MM_PER_CM * np.array(camera["t"], np.float64).reshape(3),
            size=(int(height), int(width)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: camera {name!r}: malformed field ({error!r})") from error


def read_bodies(path: Path, field: str, joints: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """People of a pose file: id, world joints (J, 3) in mm, and confidence (J,), -1 where a joint is missing.

    Raises:
        ValueError: naming the file, when it is no JSON, or its joints are not J x 4 finite numbers.
    """
    content = read_json(path)
    people = []
    try:
        for body in content["bodies"]:
            values = np.array(body[field], np.float64).reshape(joints, 4)
            if not np.isfinite(values).all():
                raise ValueError(f"person {body['id']}: NaN or infinity in {field}")
            people.append((int(body["id"]), _MM_PER_CM * values[:, :3], values[:, 3]))
    except (KeyError, TypeError, ValueError) as error:
        wanted = f"bodies with id and {field} of {joints} x 4 numbers"
        raise ValueError(f"{path}: wanted {wanted} ({error!r})") from error
    return people


def person_in(camera: Camera, id_: int, world: np.ndarray, confidence: np.ndarray) -> Person:
    """A person of the world, world joints (J, 3) mm and confidence (J,), as this camera sees them.

    Joints are labelled above the confidence of the protocol and where the camera can image them; the data do
    not tell occlusion, so every labelled joint is called visible. The box is the tight one of the labelled
    joints, clipped to the image. Valid people have at least 3 labelled joints and a box of more than a few
    pixels.
    """
    cam = transform(world, camera.R, camera.t_mm)
    uv = np.zeros((len(cam), 2))
    # Missing joints (-1) have coordinates too, usually zeros: the confidence tells, the numbers do not.
    imaged = (confidence > 0) & _can_image(camera, cam)
    if imaged.any():
        uv[imaged] = project(cam[imaged], camera.K, camera.distortion)
    labelled = imaged & (confidence > _MIN_CONFIDENCE)
    box = _clipped_box(uv[labelled], camera.size)
    side = box[2:] - box[:2]
    big = (side > _MIN_BOX_SIDE).all() and side.prod() > _MIN_BOX_AREA
    return Person(
        id=id_,
        joints_uv=uv,
        joints_cam=np.where(confidence[:, None] > 0, cam, 0.0),
        confidence=confidence,
        state=np.where(labelled, VISIBLE, UNLABELLED),
        bbox=box,
        valid=bool(labelled.sum() >= _MIN_JOINTS and big),
    )


def _can_image(camera: Camera, cam: np.ndarray) -> np.ndarray:
    """Which camera-space points (J, 3) lie in front of the camera and within what its lens model describes."""
    front = cam[:, 2] > 0
    r2 = np.zeros(len(cam))
    r2[front] = ((cam[front, :2] / cam[front, 2:]) ** 2).sum(axis=1)
    return front & (r2 < camera.widest)


def _clipped_box(uv: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Tight box (4,) of the points (M, 2), clipped to the image; zeros without points."""
    if not len(uv):
        return np.zeros(4)
    limit = np.array([size[1] - 1.0, size[0] - 1.0])
    return np.concatenate([np.clip(uv.min(axis=0), 0, limit), np.clip(uv.max(axis=0), 0, limit)])
