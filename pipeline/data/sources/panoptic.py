"""CMU Panoptic (Joo et al., ICCV 2015) in the layout its owners ship.

    ROOT/<sequence>/calibration_<sequence>.json                      cameras, centimetres
    ROOT/<sequence>/hdPose3d_stage1_coco19/body3DScene_%08d.json     19 joints; older: hdPose3d_stage1, 15
    ROOT/<sequence>/hdImgs/<camera>/<camera>_%08d.jpg                HD frames, distorted; .png is read too
    ROOT/<sequence>/hdVideos/hd_<camera>.mp4                         or the videos that they are extracted from

A camera without a folder of images is read from its video (video_frames.py): pose file n belongs to the video's n-th
frame, counted from 0. Extracting all images beforehand would take about a terabyte more. Where there are both, the
images are read, even if there are fewer of them, and a printed line says so.

World coordinates are centimetres with y down (panoptic_files.py converts them to millimetres); records have
millimetres of the camera frame. The data contain neither boxes nor image positions: both are computed by projection
with the sequence's calibration. Partial downloads are normal: absent sequences give no chunks, absent images give
dropped frames with that reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from das.camera import project, transform
from das.skeleton import COCO19, MPI15, Skeleton
from pipeline.data.record import UNLABELLED, VISIBLE, Record, key_of
from pipeline.data.sources.base import (
    ANNOTATION_MISSING,
    Chunk,
    ChunkFiles,
    DroppedFrame,
    Person,
    make_chunks,
    make_record,
    require_file,
    require_folder,
)
from pipeline.data.sources.panoptic_files import (
    POSE_FORMATS,
    VIDEO_RATE,
    Body,
    PanopticCamera,
    PoseFormat,
    calibration_file,
    existing_image,
    image_file,
    image_folder,
    imaged_frames,
    pose_file,
    posed_frames,
    read_bodies,
    read_calibrated_camera,
    video_file,
)
from pipeline.data.sources.video_frames import check_rate, video_frame
from pipeline.data.splits import Part, Split, SplitManifest
from pipeline.infra.regular_files import check_inside, inside, kept_inside

TERMS = (
    "CMU Panoptic Dataset: non-commercial research use only; see http://domedb.perception.cs.cmu.edu and "
    "cite Joo et al., ICCV 2015"
)
SKELETONS: tuple[Skeleton, ...] = (COCO19, MPI15)

_TRAIN = ("160224_haggling1", "160226_mafia2", "160224_mafia1", "160224_mafia2", "160224_ultimatum1",
          "160224_ultimatum2")  # fmt: skip
_TEST = ("160226_haggling1", "160422_haggling1", "160226_mafia1", "160422_mafia2", "160422_ultimatum1",
         "160906_pizza1")  # fmt: skip
_CAMERAS = ("00_16", "00_30")


def _parts(split: Split, sequences: Sequence[str]) -> tuple[Part, ...]:
    """Parts whose activity is in the name: 160224_haggling1 is haggling."""
    return tuple(Part(name, split, name[7:-1]) for name in sequences)


# The sequences and cameras of the release, with one training sequence held out for validation. Pizza is only tested.
SPLITS = SplitManifest(
    "panoptic",
    (
        *_parts("train", [_TRAIN[i] for i in (0, 2, 4, 5, 1)]),
        *_parts("val", [_TRAIN[3]]),
        *_parts("test", _TEST),
    ),
    cameras=_CAMERAS,
    step=2,
    test_frames=2400,
)

# What the release trains and tests on, nothing held out. The release spreads the test frames over those with a visible
# person in that camera, this manifest over all that have a pose file: they differ where a camera sees no person.
PANOPTIC_RELEASE = SplitManifest(
    "panoptic-release",
    (*_parts("train", _TRAIN), *_parts("test", _TEST)),
    cameras=_CAMERAS,
    step=2,
    test_frames=2400,
)

# SMAP (Zhen et al., ECCV 2020), as its authors write in issues 1 and 24 of their repository: the same training
# sequences; 160226_ultimatum1 is tested instead of 160422_mafia2, which validates; 2400 frames per activity, evenly
# spread. How their training frames were chosen is not published: all are taken here.
PANOPTIC_SMAP = SplitManifest(
    "panoptic-smap",
    (
        *_parts("train", _TRAIN),
        *_parts("val", ["160422_mafia2"]),
        *_parts("test", ["160226_haggling1", "160422_haggling1", "160226_mafia1", "160226_ultimatum1",
                         "160422_ultimatum1", "160906_pizza1"]),
    ),
    cameras=_CAMERAS,
    test_frames=2400,
)  # fmt: skip

# A joint is visible above this confidence, in the published protocol and in every loader after it.
_MIN_CONFIDENCE = 0.1
# A person with fewer visible joints, or a smaller box inside the image (pixels, square pixels), is not valid.
_MIN_JOINTS = 3
_MIN_BOX_SIDE, _MIN_BOX_AREA = 1.0, 64.0

# People of this many frames are projected at once: it takes little longer than projecting one person.
_FRAMES_AT_ONCE = 64

# Size of an HD video frame as a JPEG of video_frames.JPEG_QUALITY, to estimate the size of shards only.
_VIDEO_FRAME_BYTES = 600_000


def chunks(root: str | Path, split: str, splits: SplitManifest = SPLITS, source: str = "panoptic") -> list[Chunk]:
    """Chunks of one split: its sequences that exist, every camera, the frames that have a pose file.

    Args:
        root: folder of the sequences.
        split: train, val or test.
        splits: which sequences belong to it, and which of their cameras and frames are taken.
        source: data set that keys and rows name (the studio writes this layout too).

    Raises:
        ValueError: no such folder; a sequence without calibration or pose files, or with a video of another rate; a
            pose file or image that leads out of the folder.
    """
    folder = require_folder(root, source)
    found = []
    for part in splits.of(split):
        if not (folder / part.sequence).is_dir():
            continue
        require_file(folder, [calibration_file(part.sequence)], f"{source}: calibration of {part.sequence}")
        poses = inside(folder, f"{part.sequence}/{_pose_format(folder, part.sequence).folder}")
        frames = posed_frames(path.name for path in poses.iterdir())
        if not frames:
            raise ValueError(f"{source}: no body3DScene_*.json in {poses}")
        taken = splits.select(part, frames)
        check_inside(folder, (poses / pose_file(frame) for frame in taken))
        for camera in splits.cameras:
            if _video(folder, part.sequence, camera) is None:
                images: list[Path] | int = _images(folder, part.sequence, camera, taken)
                if (folder / video_file(part.sequence, camera)).is_file():
                    print(f"{source}: {part.sequence}: images of camera {camera} are read, its video is not")
            else:
                check_rate(folder / video_file(part.sequence, camera), VIDEO_RATE)
                images = _VIDEO_FRAME_BYTES
            found += make_chunks(source, folder, part, camera, taken, images, in_order=isinstance(images, int))
    return found


def listed_files(splits: SplitManifest) -> Iterable[str]:
    """Calibrations and videos; of the latter only the header is read, at either end."""
    for part in splits.parts:
        yield calibration_file(part.sequence)
        yield from (video_file(part.sequence, camera) for camera in splits.cameras)


def files(chunk: Chunk) -> ChunkFiles:
    """The calibration, the pose files, and the images or the video."""
    root, sequence, camera = Path(chunk.root), chunk.sequence, chunk.camera
    folder = _pose_format(root, sequence).folder
    poses = [f"{sequence}/{folder}/{pose_file(frame)}" for frame in chunk.frames]
    if _video(root, sequence, camera) is not None:
        return ChunkFiles((calibration_file(sequence), video_file(sequence, camera)), tuple(poses))
    images = (str(_image(root, sequence, camera, frame).relative_to(root)) for frame in chunk.frames)
    return ChunkFiles((calibration_file(sequence),), (*poses, *images))


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every frame of the chunk as its camera sees it.

    Raises:
        ValueError: the calibration or a pose file is malformed, or the camera is not in the calibration.
    """
    root, sequence = Path(chunk.root), chunk.sequence
    camera = read_calibrated_camera(inside(root, calibration_file(sequence)), chunk.camera)
    poses, field, skeleton = _pose_format(root, sequence)
    video = _video(root, sequence, chunk.camera)
    for at in range(0, len(chunk.frames), _FRAMES_AT_ONCE):
        frames = chunk.frames[at : at + _FRAMES_AT_ONCE]
        bodies: list[list[Body]] = []
        malformed = None
        for frame in frames:
            try:
                bodies.append(read_bodies(inside(root, f"{sequence}/{poses}/{pose_file(frame)}"), field, len(skeleton)))
            except ValueError as error:
                malformed = error  # raised after the frames before it are given
                break
        people = iter(people_in(camera, [body for frame in bodies for body in frame]))
        for frame, here in zip(frames, bodies, strict=False):
            image = video_frame(video, frame) if video else _image(root, sequence, chunk.camera, frame)
            yield make_record(
                chunk,
                frame,
                image,
                camera.size,
                skeleton,
                [*islice(people, len(here))],
                K=camera.K,
                distortion=camera.distortion,
                R=camera.R,
                t_mm=camera.t_mm,
            )
        if malformed is not None:
            raise malformed


def _image(root: Path, sequence: str, camera: str, frame: int) -> Path:
    return root / existing_image(sequence, camera, frame, lambda path: (root / path).is_file())


def _images(root: Path, sequence: str, camera: str, frames: Sequence[int]) -> list[Path]:
    """Paths of the images of these frames, all with the ending of the first that exists: asking for each is slow."""
    some = (_image(root, sequence, camera, frame) for frame in frames[:: max(1, len(frames) // 8)])
    ending = next((path.suffix for path in some if path.is_file()), ".jpg")
    return [root / image_file(sequence, camera, frame, ending) for frame in frames]


def _video(root: Path, sequence: str, camera: str) -> Path | None:
    """The camera's video, if its frames are read from it: there is no folder of images."""
    video = root / video_file(sequence, camera)
    read = video.is_file() and not (root / image_folder(sequence, camera)).is_dir()
    return kept_inside(root, video) if read else None


def _pose_format(root: Path, sequence: str) -> PoseFormat:
    """The preferred one of the pose formats that a sequence has; ValueError when it has none."""
    for form in POSE_FORMATS:
        if (root / sequence / form.folder).is_dir():
            return form
    folders = " or ".join(form.folder for form in POSE_FORMATS)
    raise ValueError(f"panoptic: no pose folder {folders} in {root / sequence}")


def people_in(camera: PanopticCamera, bodies: Sequence[Body]) -> list[Person]:
    """People, of any number of frames, as this camera sees them, all projected at once.

    A joint is labelled if its confidence is above the protocol's and the camera can image it. The data have no
    occlusion labels, so every labelled joint is visible. The box is the tight one of the labelled joints, clipped to
    the image. Valid people have at least 3 labelled joints and a box of more than a few pixels.
    """
    if not bodies:
        return []
    confidence = np.array([c for _, _, c in bodies])  # (N, J)
    cam = transform(np.array([world for _, world, _ in bodies]), camera.R, camera.t_mm)  # (N, J, 3)
    uv = np.zeros((*confidence.shape, 2))
    # Missing joints have confidence -1, and coordinates that are usually but not always zeros.
    imaged = (confidence > 0) & camera.can_image(cam)
    if imaged.any():
        uv[imaged] = project(cam[imaged], camera.K, camera.distortion)
    labelled = imaged & (confidence > _MIN_CONFIDENCE)
    # base.clipped_box of all people at once: tight boxes, clipped to the image; zeros without joints.
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


def unannotated_images(
    root: str | Path, split: str, splits: SplitManifest = SPLITS, source: str = "panoptic"
) -> Iterator[DroppedFrame]:
    """Images of one split without a pose file between the first and the last frame that have one: lost downloads.

    The owners' pose files begin some time after the cameras do and end before them, so images without a pose file
    before and after are normal. A video has an image for every frame.
    """
    folder = Path(root).resolve()
    for part in splits.of(split):
        if not (folder / part.sequence).is_dir():
            continue
        poses = _pose_format(folder, part.sequence).folder
        posed = posed_frames(path.name for path in (folder / part.sequence / poses).iterdir())
        between = range(min(posed, default=0), max(posed, default=-1))
        for camera in splits.cameras:
            video = _video(folder, part.sequence, camera)
            names = (path.name for path in (folder / image_folder(part.sequence, camera)).glob("*"))
            imaged = set(between) if video else imaged_frames(names, camera)
            for frame in sorted(imaged - set(posed)):
                if frame in between:
                    if video:
                        file = video_file(part.sequence, camera)
                    else:
                        file = _image(folder, part.sequence, camera, frame).relative_to(folder).as_posix()
                    missing = f"no {poses}/{pose_file(frame)}"
                    yield DroppedFrame(key_of(source, part.sequence, camera, frame), ANNOTATION_MISSING, file, missing)
