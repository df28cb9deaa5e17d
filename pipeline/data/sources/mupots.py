"""MuPoTS-3D (Mehta et al., 3DV 2018): as its owners ship it, or in Moon's form; a test set.

    ROOT/MultiPersonTestSet/TS1/annot.mat, occlusion.mat       the owners' (mupots_mat.py)
    ROOT/MultiPersonTestSet/TS1/img_000000.jpg                 or in ROOT/TS1/
    ROOT/annotations/MuPoTS-3D.json  or  ROOT/MuPoTS-3D.json   COCO-like, as 3DMPPE gives it out (Moon et al., 2019)

A sequence with an annot.mat is read from it: it alone holds every frame, the universal skeleton that the benchmark
scores, and what is occluded. The owners give no intrinsics; they are the JSON's where it is there. Beside Moon's own
fields the JSON may have ``keypoints_univ`` (the universal skeleton) and ``occlusion`` (1 = occluded).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from das.camera import project
from das.skeleton import MUPOTS17, Skeleton
from pipeline.data.record import OCCLUDED, UNLABELLED, VISIBLE, Record
from pipeline.data.sources import mupots_mat
from pipeline.data.sources.base import (
    Chunk,
    DroppedFrame,
    EncodedImage,
    NoImage,
    Person,
    box_xyxy,
    clipped_box,
    cut,
    no_record,
    pinhole,
    read_image,
    record,
    require_file,
    require_folder,
)
from pipeline.data.sources.json_files import annotations_of, flag, numbers, size_of
from pipeline.data.splits import MUPOTS, SplitManifest

TERMS = (
    "MuPoTS-3D: non-commercial research use only; see "
    "https://vcai.mpi-inf.mpg.de/projects/SingleShotMultiPerson and cite Mehta et al., 3DV 2018"
)
SKELETONS: tuple[Skeleton, ...] = (MUPOTS17,)
SPLITS = MUPOTS

_CAMERA = "0"
# Labelled image positions fit the pinhole camera to a few pixels of 2048, except the spine of one person in
# TS1, TS2 and TS7, which is wrong by 67 to 464 pixels in every frame.
_MAX_MISFIT = 0.01  # of the longer image side


def chunks(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> list[Chunk]:
    """The sequences of one split that are annotated.

    Raises:
        ValueError: the folder or every annotation file is missing, or one is no such file.
    """
    folder = require_folder(root, "mupots")
    mats = {part.sequence: _mats(folder, part.sequence) for part in splits.parts}
    frames: dict[str, list[int]] = {}
    if not any(mats.values()) or any(path.is_file() for path in _json_places(folder)):
        path = _annotations(folder)
        for image in annotations_of(path)[0].values():
            sequence, frame = _place(image, path)
            frames.setdefault(sequence, []).append(frame)
    found = []
    for part in splits.of(split):
        if mat := mats[part.sequence]:
            frames[part.sequence] = list(range(len(mupots_mat.read_frames(mat))))
        taken = splits.select(part, sorted(frames.get(part.sequence, [])))
        files = [_image(folder, part.sequence, frame) for frame in taken]
        found += cut("mupots", folder, part, _CAMERA, taken, files)
    return found


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every frame of the shard.

    Raises:
        ValueError: an annotation is malformed; names the file and the annotation.
    """
    folder = Path(chunk.root)
    if mat := _mats(folder, chunk.sequence):
        yield from _from_mats(chunk, mat)
        return
    path = _annotations(folder)
    images, annotations = annotations_of(path)
    by_place = {_place(image, path): image for image in images.values()}
    for frame in chunk.frames:
        image = by_place[chunk.sequence, frame]
        size = size_of(image, path)
        K = pinhole(numbers(image, "intrinsic", (4,), path))
        people = [_person(annotation, K, size, path) for annotation in annotations[image["id"]]]
        yield record(chunk, frame, _image(folder, chunk.sequence, frame), size, MUPOTS17, people, K=K)


def _from_mats(chunk: Chunk, mats: Path) -> Iterator[Record | DroppedFrame]:
    folder = Path(chunk.root)
    frames = mupots_mat.read_frames(mats)
    K = _intrinsics(folder, chunk.sequence, frames)
    for frame in chunk.frames:
        entries = mupots_mat.people_of(frames[frame])
        image = read_image(_image(folder, chunk.sequence, frame))
        if isinstance(image, NoImage):
            yield no_record(chunk, frame, image)
            continue
        people = [_mat_person(i, entry, K, image) for i, entry in enumerate(entries)]
        yield record(chunk, frame, image, image.size, MUPOTS17, people, K=K)


def _intrinsics(folder: Path, sequence: str, frames: mupots_mat.LooseFrames) -> np.ndarray:
    """K (3, 3) of a sequence: Moon's, else of a file of intrinsics, else fitted to the annotations themselves."""
    for path in _json_places(folder):
        if path.is_file():
            for image in annotations_of(path)[0].values():
                if _place(image, path)[0] == sequence:
                    return pinhole(numbers(image, "intrinsic", (4,), path))
    given = mupots_mat.given_intrinsics(folder, sequence)
    return mupots_mat.fit_intrinsics(frames) if given is None else given


def _mats(folder: Path, sequence: str) -> Path | None:
    """The folder with the owners' annotations of a sequence, if there is one."""
    places = (folder / "MultiPersonTestSet" / sequence, folder / sequence)
    return next((place for place in places if (place / "annot.mat").is_file()), None)


def _json_places(folder: Path) -> tuple[Path, Path]:
    return folder / "annotations" / "MuPoTS-3D.json", folder / "MuPoTS-3D.json"


def _annotations(folder: Path) -> Path:
    return require_file(_json_places(folder), "mupots: annotations")


def _place(image: dict[str, Any], path: Path) -> tuple[str, int]:
    """(sequence, frame) of ``TS1/img_000000.jpg``."""
    name = re.fullmatch(r"(?:.*/)?(TS\d+)/img_(\d+)\.jpg", image["file_name"])
    if name is None:
        raise ValueError(f"{path}: file_name {image['file_name']!r}, wanted TS1/img_000000.jpg or alike")
    return name[1], int(name[2])


def _image(folder: Path, sequence: str, frame: int) -> Path:
    name = f"{sequence}/img_{frame:06d}.jpg"
    owners = folder / "MultiPersonTestSet" / name
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
        joints_uv=_mended(uv, cam, ~unlabelled, K, size),
        joints_cam=cam,
        joints_cam_univ=universal,
        state=state,
        bbox=box_xyxy(numbers(annotation, "bbox", (4,), path)),
        valid=flag({"is_valid": 1, **annotation}, "is_valid", path),
    )


def _mat_person(id_: int, entry: mupots_mat.MatPerson, K: np.ndarray, image: EncodedImage) -> Person:
    labelled = entry.cam[:, 2] > 0
    uv = _mended(entry.uv, entry.cam, labelled, K, image.size)
    return Person(
        id=id_,
        joints_uv=uv,
        joints_cam=entry.cam,
        joints_cam_univ=entry.universal,
        state=np.where(labelled, np.where(entry.occluded, OCCLUDED, VISIBLE), UNLABELLED),
        bbox=clipped_box(uv[labelled], image.size),
        valid=entry.valid,
    )


def _mended(uv: np.ndarray, cam: np.ndarray, labelled: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Image positions (17, 2), those that contradict the labelled joint in 3D replaced by its projection."""
    projected = np.where(labelled[:, None], 0.0, uv)
    projected[labelled] = project(cam[labelled], K)
    wrong = np.linalg.norm(uv - projected, axis=1) > _MAX_MISFIT * max(size)
    return np.where(wrong[:, None], projected, uv)
