"""MuPoTS-3D (Mehta et al., 3DV 2018), a test set: as its owners ship it, or in the form of Moon et al.

    ROOT/MultiPersonTestSet/TS1/annot.mat, occlusion.mat       the owners' (mupots_mat.py)
    ROOT/MultiPersonTestSet/TS1/img_000000.jpg                 or in ROOT/TS1/
    ROOT/annotations/MuPoTS-3D.json  or  ROOT/MuPoTS-3D.json   COCO-like, as 3DMPPE has it (Moon et al., ICCV 2019)

A sequence with an annot.mat is read from it: only that file has every frame, the universal skeleton (every person
scaled to the same size) that the benchmark scores, and occlusion. The owners publish no intrinsics; they are read from
the JSON file if there is one. Besides Moon's fields the JSON may have ``keypoints_univ`` (the universal skeleton) and
``occlusion`` (1 = occluded).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from das.camera import project
from das.skeleton import MUPOTS17, Skeleton
from pipeline.data.record import OCCLUDED, UNLABELLED, VISIBLE, Record
from pipeline.data.sources import mupots_mat
from pipeline.data.sources.base import (
    Chunk,
    ChunkFiles,
    DroppedFrame,
    EncodedImage,
    NoImage,
    Person,
    clipped_box,
    drop_frame,
    make_chunks,
    make_record,
    pinhole,
    read_image,
    require_file,
    require_folder,
)
from pipeline.data.sources.json_files import annotations_of, box_of, flag, numbers, size_of
from pipeline.data.splits import Part, SplitManifest
from pipeline.infra.regular_files import inside

TERMS = (
    "MuPoTS-3D: non-commercial research use only; see "
    "https://vcai.mpi-inf.mpg.de/projects/SingleShotMultiPerson and cite Mehta et al., 3DV 2018"
)
SKELETONS: tuple[Skeleton, ...] = (MUPOTS17,)
# A test set by its protocol. `das prepare --as-split train` makes training data of it.
SPLITS = SplitManifest("mupots", tuple(Part(f"TS{i}", "test", f"TS{i}") for i in range(1, 21)))

ANNOTATIONS = ("annotations/MuPoTS-3D.json", "MuPoTS-3D.json")
"""Where Moon's annotation file may be, relative to the root."""
OWNERS = "MultiPersonTestSet"
"""The owners' folder of sequences, relative to the root."""
CAMERA = "0"
"""Name of the camera of every sequence."""

_IMAGE = re.compile(r"(?:.*/)?(TS\d+)/img_(\d+)\.jpg")
# Labelled image positions fit the pinhole camera to a few pixels of 2048, except the spine of one person in
# TS1, TS2 and TS7, which is wrong by 67 to 464 pixels in every frame.
_MAX_MISFIT = 0.01  # of the longer image side


def chunks(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> list[Chunk]:
    """The sequences of one split that are annotated.

    Raises:
        ValueError: the folder or every annotation file is missing, or one is malformed.
    """
    folder = require_folder(root, "mupots")
    mats = {part.sequence: _mats(folder, part.sequence) for part in splits.parts}
    frames: dict[str, list[int]] = {}
    if not any(mats.values()) or any((folder / place).is_file() for place in ANNOTATIONS):
        path = _annotations(folder)
        for image in annotations_of(path)[0].values():
            sequence, frame = sequence_and_frame(image, path)
            frames.setdefault(sequence, []).append(frame)
    found = []
    for part in splits.of(split):
        if mat := mats[part.sequence]:
            frames[part.sequence] = list(range(len(mupots_mat.read_frames(mat, folder))))
        taken = splits.select(part, sorted(frames.get(part.sequence, [])))
        files = [_image(folder, part.sequence, frame) for frame in taken]
        # Every chunk of an annot.mat fits the intrinsics anew, and a process holds one sequence.
        found += make_chunks("mupots", folder, part, CAMERA, taken, files, in_order=bool(mats[part.sequence]))
    return found


def listed_files(splits: SplitManifest) -> Iterable[str]:
    """Moon's annotation file, and the owners' annotations and intrinsics, in all places where they may be."""
    folders = [f"{place}{part.sequence}" for part in splits.parts for place in (f"{OWNERS}/", "")]
    mats = [f"{folder}/{name}" for folder in folders for name in mupots_mat.FILES]
    return [*ANNOTATIONS, *mupots_mat.INTRINSICS, *mats]


def files(chunk: Chunk) -> ChunkFiles:
    """The annotations of the sequence, the files of intrinsics, and the images."""
    root = Path(chunk.root)
    mat = _mats(root, chunk.sequence)
    own = [f"{mat.relative_to(root)}/{name}" for name in mupots_mat.FILES] if mat else []
    images = (_image(root, chunk.sequence, frame).relative_to(root) for frame in chunk.frames)
    return ChunkFiles((*ANNOTATIONS, *mupots_mat.INTRINSICS, *own), tuple(map(str, images)))


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every frame of the chunk.

    Raises:
        ValueError: an annotation is malformed; names the file and the annotation.
    """
    folder = Path(chunk.root)
    if mat := _mats(folder, chunk.sequence):
        yield from _from_mats(chunk, mat)
        return
    path = _annotations(folder)
    images, annotations = annotations_of(path)
    by_place = {sequence_and_frame(image, path): image for image in images.values()}
    for frame in chunk.frames:
        image = by_place[chunk.sequence, frame]
        size = size_of(image, path)
        K = pinhole(numbers(image, "intrinsic", (4,), path))
        people = [_person(annotation, K, size, path) for annotation in annotations[image["id"]]]
        yield make_record(chunk, frame, _image(folder, chunk.sequence, frame), size, MUPOTS17, people, K=K)


def _from_mats(chunk: Chunk, mats: Path) -> Iterator[Record | DroppedFrame]:
    folder = Path(chunk.root)
    frames = mupots_mat.read_frames(mats, folder)
    K = _intrinsics(folder, chunk.sequence, frames)
    for frame in chunk.frames:
        entries = mupots_mat.people_of(frames[frame])
        image = read_image(_image(folder, chunk.sequence, frame), folder)
        if isinstance(image, NoImage):
            yield drop_frame(chunk, frame, image)
            continue
        people = [_mat_person(i, entry, K, image) for i, entry in enumerate(entries)]
        yield make_record(chunk, frame, image, image.size, MUPOTS17, people, K=K)


def _intrinsics(folder: Path, sequence: str, frames: mupots_mat.FramesOrErrors) -> np.ndarray:
    """K (3, 3) of a sequence: from Moon's file, else from a file of intrinsics, else fitted to the annotations."""
    for place in ANNOTATIONS:
        if (path := inside(folder, place)).is_file():
            for image in annotations_of(path)[0].values():
                if sequence_and_frame(image, path)[0] == sequence:
                    return pinhole(numbers(image, "intrinsic", (4,), path))
    given = mupots_mat.given_intrinsics(folder, sequence)
    return mupots_mat.fit_intrinsics(frames) if given is None else given


def _mats(folder: Path, sequence: str) -> Path | None:
    """The folder with the owners' annotations of a sequence, if there is one."""
    places = (folder / OWNERS / sequence, folder / sequence)
    return next((place for place in places if (place / "annot.mat").is_file()), None)


def _annotations(folder: Path) -> Path:
    return require_file(folder, ANNOTATIONS, "mupots: annotations")


def sequence_and_frame(image: dict[str, Any], path: Path) -> tuple[str, int]:
    """(sequence, frame) of an image's entry with file name ``TS1/img_000000.jpg``; ValueError for other names."""
    name = _IMAGE.fullmatch(image["file_name"])
    if name is None:
        raise ValueError(f"{path}: file_name {image['file_name']!r}, wanted TS1/img_000000.jpg or alike")
    return name[1], int(name[2])


def image_name(frame: int) -> str:
    """Name of a frame's file in the folder of its sequence."""
    return f"img_{frame:06d}.jpg"


def _image(folder: Path, sequence: str, frame: int) -> Path:
    name = f"{sequence}/{image_name(frame)}"
    owners = folder / OWNERS / name
    return owners if owners.is_file() else folder / name


def _person(annotation: dict[str, Any], K: np.ndarray, size: tuple[int, int], path: Path) -> Person:
    cam = numbers(annotation, "keypoints_cam", (17, 3), path)
    uv = numbers(annotation, "keypoints_img", (17, 2), path)
    state = np.full(17, VISIBLE)
    if "occlusion" in annotation:
        state[numbers(annotation, "occlusion", (17,), path) > 0] = OCCLUDED
    unlabelled = (numbers(annotation, "keypoints_vis", (17,), path) == 0) | (cam[:, 2] <= 0)
    state[unlabelled] = UNLABELLED
    universal = None
    if "keypoints_univ" in annotation:
        universal = numbers(annotation, "keypoints_univ", (17, 3), path)
    return Person(
        id=annotation["id"],
        joints_uv=_corrected(uv, cam, ~unlabelled, K, size),
        joints_cam=cam,
        joints_cam_univ=universal,
        state=state,
        bbox=box_of(annotation, path),
        valid=flag({"is_valid": 1, **annotation}, "is_valid", path),
    )


def _mat_person(id_: int, entry: mupots_mat.MatPerson, K: np.ndarray, image: EncodedImage) -> Person:
    labelled = entry.cam[:, 2] > 0
    uv = _corrected(entry.uv, entry.cam, labelled, K, image.size)
    return Person(
        id=id_,
        joints_uv=uv,
        joints_cam=entry.cam,
        joints_cam_univ=entry.universal,
        state=np.where(labelled, np.where(entry.occluded, OCCLUDED, VISIBLE), UNLABELLED),
        bbox=clipped_box(uv[labelled], image.size),
        valid=entry.valid,
    )


def _corrected(
    uv: np.ndarray, cam: np.ndarray, labelled: np.ndarray, K: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Image positions (17, 2); those too far from the projection of their labelled 3D joint are replaced by it."""
    projected = np.where(labelled[:, None], 0.0, uv)
    projected[labelled] = project(cam[labelled], K)
    wrong = np.linalg.norm(uv - projected, axis=1) > _MAX_MISFIT * max(size)
    return np.where(wrong[:, None], projected, uv)
