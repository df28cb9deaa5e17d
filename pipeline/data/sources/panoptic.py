"""CMU Panoptic (Joo et al., ICCV 2015) in the layout its owners ship.

    ROOT/<sequence>/calibration_<sequence>.json                      cameras, centimetres
    ROOT/<sequence>/hdPose3d_stage1_coco19/body3DScene_%08d.json     19 joints; older: hdPose3d_stage1, 15
    ROOT/<sequence>/hdImgs/<camera>/<camera>_%08d.jpg                HD frames, distorted
    ROOT/<sequence>/hdVideos/hd_<camera>.mp4                         or the videos that they are cut from

A camera without a folder of images is read from its video (frames.py): pose file n belongs to the video's n-th
frame, counted from 0, and its frames become JPEGs of quality 95, about a terabyte less to store beforehand. Where
there are both, the images are read, even if there are fewer of them; a line says so.

World coordinates are centimetres with y down; this file turns them into millimetres of the camera frame,
once. Boxes and image positions are not part of the data: both follow from the projection with the sequence's
own calibration. Partial downloads are normal: absent sequences give no shards, absent images become drops
with that reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from das.camera import project, transform
from das.skeleton import COCO19, MPI15, Skeleton
from pipeline.data.record import UNLABELLED, VISIBLE, Record, key_of
from pipeline.data.sources.base import (
    ANNOTATION_MISSING,
    Chunk,
    DroppedFrame,
    Person,
    cut,
    record,
    require_file,
    require_folder,
)
from pipeline.data.sources.json_files import load_json
from pipeline.data.sources.video_frames import video_frame
from pipeline.data.splits import PANOPTIC, SplitManifest

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

# Projecting many people at once costs little more than projecting one.
_FRAMES_AT_ONCE = 64

# An HD frame as a JPEG of the quality below, for packing only.
_VIDEO_FRAME_BYTES = 600_000

_POSE_FILE = re.compile(r"body3DScene_(\d{8})\.json")
# (folder, field, joint set), the preferred one first.
_POSES = (("hdPose3d_stage1_coco19", "joints19", COCO19), ("hdPose3d_stage1", "joints15", MPI15))

Body = tuple[int, np.ndarray, np.ndarray]
"""A person of a pose file: id, world joints (J, 3) in mm, and confidence (J,), -1 where a joint is missing."""


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


def chunks(root: str | Path, split: str, splits: SplitManifest = SPLITS, source: str = "panoptic") -> list[Chunk]:
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
            if _video(sequence, camera) is None:
                images: list[Path] | int = [_image(sequence, camera, frame) for frame in taken]
                if _video_file(sequence, camera).is_file():
                    print(f"{source}: {part.sequence}: images of camera {camera} are read, its video is not")
            else:
                images = _VIDEO_FRAME_BYTES
            found += cut(source, folder, part, camera, taken, images)
    return found


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every frame of the shard seen by its camera.

    Raises:
        ValueError: calibration or a pose file is malformed, or the camera is not in the calibration.
    """
    sequence = Path(chunk.root) / chunk.sequence
    camera = read_calibrated_camera(_calibration(sequence), chunk.camera)
    poses, field, skeleton = _pose_folder(sequence)
    video = _video(sequence, chunk.camera)
    images = _image_folder(sequence, chunk.camera)
    for at in range(0, len(chunk.frames), _FRAMES_AT_ONCE):
        frames = chunk.frames[at : at + _FRAMES_AT_ONCE]
        bodies: list[list[Body]] = []
        malformed = None
        for frame in frames:
            try:
                bodies.append(read_bodies(poses / f"body3DScene_{frame:08d}.json", field, len(skeleton)))
            except ValueError as error:
                malformed = error  # after the frames before it
                break
        everybody = iter(people_in(camera, [body for frame in bodies for body in frame]))
        for frame, here in zip(frames, bodies, strict=False):
            image = video_frame(video, frame) if video else images / f"{chunk.camera}_{frame:08d}.jpg"
            yield record(
                chunk,
                frame,
                image,
                camera.size,
                skeleton,
                [*islice(everybody, len(here))],
                K=camera.K,
                distortion=camera.distortion,
                R=camera.R,
                t_mm=camera.t_mm,
            )
        if malformed is not None:
            raise malformed


def _calibration(sequence: Path) -> Path:
    return sequence / f"calibration_{sequence.name}.json"


def _image_folder(sequence: Path, camera: str) -> Path:
    return sequence / "hdImgs" / camera


def _image(sequence: Path, camera: str, frame: int) -> Path:
    return _image_folder(sequence, camera) / f"{camera}_{frame:08d}.jpg"


def _video_file(sequence: Path, camera: str) -> Path:
    return sequence / "hdVideos" / f"hd_{camera}.mp4"


def _video(sequence: Path, camera: str) -> Path | None:
    """The camera's video, where its frames are read from it: there is no folder of images."""
    video = _video_file(sequence, camera)
    return video if video.is_file() and not _image_folder(sequence, camera).is_dir() else None


def _pose_folder(sequence: Path) -> tuple[Path, str, Skeleton]:
    for name, field, skeleton in _POSES:
        if (sequence / name).is_dir():
            return sequence / name, field, skeleton
    raise ValueError(f"panoptic: no pose folder {' or '.join(name for name, _, _ in _POSES)} in {sequence}")


def read_calibrated_camera(path: Path, name: str) -> PanopticCamera:
    """One camera of a calibration file.

    Raises:
        ValueError: naming the file, when the camera is absent or a field of it is malformed.
    """
    try:
        cameras = {camera["name"]: camera for camera in load_json(path)["cameras"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: wanted an object with a list `cameras` of named cameras") from error
    if name not in cameras:
        some = ", ".join([*cameras][:3])
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


def people_in(camera: PanopticCamera, bodies: Sequence[Body]) -> list[Person]:
    """People, of any number of frames, as this camera sees them, all in one go.

    Joints are labelled above the confidence of the protocol and where the camera can image them; the data do
    not tell occlusion, so every labelled joint is called visible. The box is the tight one of the labelled
    joints, clipped to the image. Valid people have at least 3 labelled joints and a box of more than a few
    pixels.
    """
    if not bodies:
        return []
    confidence = np.array([c for _, _, c in bodies])  # (N, J)
    cam = transform(np.array([world for _, world, _ in bodies]), camera.R, camera.t_mm)  # (N, J, 3)
    uv = np.zeros((*confidence.shape, 2))
    # Missing joints (-1) have coordinates too, usually zeros: the confidence tells, the numbers do not.
    imaged = (confidence > 0) & _can_image(camera, cam)
    if imaged.any():
        uv[imaged] = project(cam[imaged], camera.K, camera.distortion)
    labelled = imaged & (confidence > _MIN_CONFIDENCE)
    # Tight boxes, clipped to the image; zeros without joints.
    limit = np.array([camera.size[1] - 1.0, camera.size[0] - 1.0])
    low = np.where(labelled[..., None], uv, np.inf).min(axis=1).clip(0, limit)
    high = np.where(labelled[..., None], uv, -np.inf).max(axis=1).clip(0, limit)
    count = labelled.sum(axis=1)
    boxes = np.where(count[:, None] > 0, np.concatenate([low, high], axis=1), 0.0)  # (N, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    big = (sides > _MIN_BOX_SIDE).all(axis=1) & (sides[:, 0] * sides[:, 1] > _MIN_BOX_AREA)
    known = np.where(confidence[..., None] > 0, cam, 0.0)
    state = np.where(labelled, VISIBLE, UNLABELLED)
    return [
        Person(
            id=id_,
            joints_uv=uv[i],
            joints_cam=known[i],
            confidence=confidence[i],
            state=state[i],
            bbox=boxes[i],
            valid=bool(count[i] >= _MIN_JOINTS and big[i]),
        )
        for i, (id_, _, _) in enumerate(bodies)
    ]


def _can_image(camera: PanopticCamera, cam: np.ndarray) -> np.ndarray:
    """Which camera-space points (..., 3) lie in front of the camera and within what its lens model describes."""
    front = cam[..., 2] > 0
    depth = np.where(front, cam[..., 2], 1.0)
    return front & (((cam[..., :2] / depth[..., None]) ** 2).sum(axis=-1) < camera.widest)


def strays(
    root: str | Path, split: str, splits: SplitManifest = SPLITS, source: str = "panoptic"
) -> Iterator[DroppedFrame]:
    """Images of one split without a pose file between the first and the last frame that have one: lost downloads.

    The owners' pose files begin some time after the cameras do and end before them, so images outside are normal. A
    video has an image for every frame.
    """
    for part in splits.of(split):
        sequence = Path(root).resolve() / part.sequence
        if not sequence.is_dir():
            continue
        poses, _, _ = _pose_folder(sequence)
        frames = {int(name[1]) for name in (_POSE_FILE.fullmatch(path.name) for path in poses.iterdir()) if name}
        between = range(min(frames, default=0), max(frames, default=-1))
        for camera in splits.cameras:
            video = _video(sequence, camera)
            pictures = _image_folder(sequence, camera).glob("*.jpg")
            names = (re.fullmatch(rf"{camera}_(\d{{8}})\.jpg", path.name) for path in pictures)
            imaged = set(between) if video else {int(name[1]) for name in names if name}
            for frame in sorted(imaged - frames):
                if frame in between:
                    file = (video or _image(sequence, camera, frame)).relative_to(sequence.parent).as_posix()
                    pose = f"no {poses.name}/body3DScene_{frame:08d}.json"
                    yield DroppedFrame(key_of(source, part.sequence, camera, frame), ANNOTATION_MISSING, file, pose)
