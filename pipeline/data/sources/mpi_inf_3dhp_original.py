"""MPI-INF-3DHP's training people as their owners ship them; not yet tested on real files.

Written from descriptions of the format and tested on generated files: look at the first overlays before training on it.

    ROOT/S1/Seq1/annot.mat              annot2 {14}(F, 56) px, annot3 {14}(F, 84) mm of the camera, cell per camera
    ROOT/S1/Seq1/camera.calibration     text: intrinsic and extrinsic, 4 x 4 row by row, of every camera
    ROOT/S1/Seq1/imageSequence/video_0.avi                or, extracted from it,
    ROOT/S1/Seq1/imageFrames/video_0/frame_000001.jpg     the frame of row 0

Row n of the annotations is the video's n-th frame, counted from 0. 28 joints are annotated; the 17 that MuPoTS-3D
has are kept, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from das.skeleton import MUPOTS17
from pipeline.data.record import UNLABELLED, VISIBLE, Record
from pipeline.data.sources.base import (
    Chunk,
    ChunkFiles,
    DroppedFrame,
    EncodedImage,
    NoImage,
    Person,
    clipped_box,
    make_chunks,
    make_record,
    require_file,
)
from pipeline.data.sources.video_frames import video_frame
from pipeline.data.splits import Part, SplitManifest
from pipeline.infra.array_files import read_mat
from pipeline.infra.regular_files import check_inside, inside, read_file, unread

# The 28 joints of annot.mat in its order, with the names of das.skeleton.
_ALL = (
    "spine3", "spine4", "spine2", "spine", "pelvis", "neck", "head", "head_top",
    "l_clavicle", "l_shoulder", "l_elbow", "l_wrist", "l_hand",
    "r_clavicle", "r_shoulder", "r_elbow", "r_wrist", "r_hand",
    "l_hip", "l_knee", "l_ankle", "l_foot", "l_toe",
    "r_hip", "r_knee", "r_ankle", "r_foot", "r_toe",
)  # fmt: skip
_KEPT = [_ALL.index(joint) for joint in MUPOTS17.joints]
# The cameras at the height of a person. Most loaders leave out the others, which are at the ceiling.
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
_FILES = ("annot.mat", "camera.calibration")
# Size of a frame of 2048 x 2048 pixels as a JPEG, to estimate the size of shards only.
_FRAME_BYTES = 900_000


def present(folder: Path) -> bool:
    """Whether the folder holds a sequence in this form."""
    return any(folder.glob("S?/Seq?/annot.mat"))


def chunks(folder: Path, part: Part, splits: SplitManifest) -> list[Chunk]:
    """Chunks of one sequence, none if it is absent, of the manifest's cameras or, if it has none, of ``CAMERAS``.

    Raises:
        ValueError: annotations or calibration are missing or malformed, or an image leads out of the folder.
    """
    sequence = inside(folder, sequence_folder(part.sequence))
    if not sequence.is_dir() or part.sequence.startswith("TS"):
        return []
    uv, _ = _annotations(sequence)
    read_calibration(sequence / "camera.calibration")
    taken = splits.select(part, range(uv.shape[1]))
    cameras = splits.cameras or tuple(map(str, CAMERAS))
    found = []
    for camera in cameras:
        check_inside(folder, (folder / image_file(part.sequence, camera, frame) for frame in taken))
        # A process holds the annotations of one sequence, hundreds of megabytes, and its images may be in a video.
        found += make_chunks("mpi_inf_3dhp", folder, part, camera, taken, _FRAME_BYTES, in_order=True)
    return found


def listed_files(splits: SplitManifest) -> list[str]:
    """Annotations and calibration of every sequence."""
    sequences = (sequence_folder(part.sequence) for part in splits.parts)
    return [f"{sequence}/{name}" for sequence in sequences for name in _FILES]


def files(chunk: Chunk) -> ChunkFiles:
    """Annotations, calibration, and the images or the video."""
    shared = [f"{sequence_folder(chunk.sequence)}/{name}" for name in _FILES]
    if _in_video(chunk):
        return ChunkFiles((*shared, video_file(chunk.sequence, chunk.camera)), ())
    images = (image_file(chunk.sequence, chunk.camera, frame) for frame in chunk.frames)
    return ChunkFiles(tuple(shared), tuple(images))


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every frame of the chunk; raises as ``chunks``."""
    sequence = inside(chunk.root, sequence_folder(chunk.sequence))
    every_uv, every_cam = _annotations(sequence)
    cameras = read_calibration(sequence / "camera.calibration")
    number = int(chunk.camera) if chunk.camera.isdecimal() else -1
    if number not in cameras or number >= len(every_uv):
        found = f"camera.calibration has {len(cameras)} cameras, annot.mat {len(every_uv)}"
        raise ValueError(f"{sequence}: camera {number} is not in both: {found}")
    K, size = cameras[number]
    for frame in chunk.frames:
        uv, cam = every_uv[number, frame], every_cam[number, frame]
        if not (np.isfinite(uv).all() and np.isfinite(cam).all()):
            where = f"camera {number}, frame {frame}"
            raise ValueError(f"{sequence / 'annot.mat'}: {where}: found NaN or infinity, wanted numbers")
        labelled = cam[:, 2] > 0
        person = Person(
            id=0,
            joints_uv=uv,
            joints_cam=cam,
            state=np.where(labelled, VISIBLE, UNLABELLED),
            bbox=clipped_box(uv[labelled], size),
        )
        yield make_record(chunk, frame, _frame(chunk, number, frame), size, MUPOTS17, [person], K=K)


# Paths relative to the root.


def sequence_folder(sequence: str) -> str:
    """Folder of a sequence: S1/Seq2 for S1_Seq2."""
    return sequence.replace("_", "/")


def image_folder(sequence: str, camera: str) -> str:
    """Folder of the images extracted from a camera's video."""
    return f"{sequence_folder(sequence)}/imageFrames/video_{camera}"


def image_file(sequence: str, camera: str, frame: int) -> str:
    """Image of a frame counted from 0; the names count from 1."""
    return f"{image_folder(sequence, camera)}/frame_{frame + 1:06d}.jpg"


def video_file(sequence: str, camera: str) -> str:
    """Video of a camera."""
    return f"{sequence_folder(sequence)}/imageSequence/video_{camera}.avi"


def _frame(chunk: Chunk, camera: int, frame: int) -> Path | EncodedImage | NoImage:
    root, sequence, name = Path(chunk.root), chunk.sequence, str(camera)
    if _in_video(chunk):
        return video_frame(inside(root, video_file(sequence, name)), frame)
    return root / image_file(sequence, name, frame)


def _in_video(chunk: Chunk) -> bool:
    """Whether the frames are read from the camera's video: there is no folder of images."""
    video = inside(chunk.root, video_file(chunk.sequence, chunk.camera))
    return video.is_file() and not Path(chunk.root, image_folder(chunk.sequence, chunk.camera)).is_dir()


def _annotations(sequence: Path) -> tuple[np.ndarray, np.ndarray]:
    path = require_file(sequence, ["annot.mat"], "mpi_inf_3dhp: annotations")
    return _read_annotations(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # hundreds of megabytes, shared by the chunks that one process reads
def _read_annotations(path: Path, changed: int) -> tuple[np.ndarray, np.ndarray]:
    """(C, F, 17, 2) pixels and (C, F, 17, 3) mm of the camera."""
    wanted = "cells annot2 (F, 56) and annot3 (F, 84), one per camera"
    content = read_mat(path, wanted, ["annot2", "annot3"])
    try:
        uv, cam = (
            np.stack([np.asarray(cell, np.float64).reshape(-1, len(_ALL), width) for cell in content[name].ravel()])
            for name, width in (("annot2", 2), ("annot3", 3))
        )
        if uv.shape[:2] != cam.shape[:2]:
            raise ValueError(f"annot2 of shape {uv.shape}, annot3 of shape {cam.shape}")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: wanted {wanted} ({error!r})") from error
    return uv[:, :, _KEPT], cam[:, :, _KEPT]


def read_calibration(path: Path) -> dict[int, tuple[np.ndarray, tuple[int, int]]]:
    """K (3, 3) and (height, width) in pixels of every camera in a ``camera.calibration``.

    Extrinsics are skipped: the annotations have the joints in each camera's frame.

    Raises:
        ValueError: naming the file, and the camera whose entry is malformed.
    """
    path = require_file(path.parent, [path.name], "mpi_inf_3dhp: calibration")
    cameras: dict[int, tuple[np.ndarray, tuple[int, int]]] = {}
    name, entry = "", dict[str, list[str]]()
    try:
        for line in [*read_file(path).decode("ascii").splitlines(), "name end"]:
            field, *values = line.split() or [""]
            if field == "name":
                if name:
                    width, height = map(int, entry["size"])
                    K = np.array(entry["intrinsic"], np.float64).reshape(4, 4)[:3, :3]
                    if not np.isfinite(K).all():
                        raise ValueError("NaN or infinity")
                    cameras[int(name)] = K, (height, width)
                name, entry = values[0], {}
            elif field:
                entry[field] = values
    except OSError as error:
        raise ValueError(unread(error)) from error
    except (KeyError, ValueError, IndexError) as error:
        wanted = "name, size of 2 and intrinsic of 16 numbers"
        raise ValueError(f"{path}: camera {name or '?'}: wanted {wanted} ({error!r})") from error
    if not cameras:
        raise ValueError(f"{path}: no camera, wanted entries that begin with `name`")
    return cameras
