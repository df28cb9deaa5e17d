"""MuPoTS-3D (Mehta et al., 3DV 2018) in the COCO-like form that followed 3DMPPE (Moon et al., ICCV 2019).

    ROOT/annotations/MuPoTS-3D.json  or  ROOT/MuPoTS-3D.json
    ROOT/TS1/img_000000.jpg  or  ROOT/MultiPersonTestSet/TS1/img_000000.jpg

The set is a test set. Optional fields beside Moon's: ``keypoints_univ`` (the universal skeleton that the
benchmark scores) and ``occlusion`` (1 = occluded).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from das.camera import project
from das.skeleton import MUPOTS17, Skeleton
from pipeline.datasets.source import (
    Drop,
    Person,
    Shard,
    annotations_of,
    box_xyxy,
    cut,
    numbers,
    pinhole,
    record,
    require_file,
    require_folder,
)
from pipeline.schema import OCCLUDED, UNLABELLED, VISIBLE, Record
from pipeline.splits import MUPOTS, SplitManifest

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


def shards(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> list[Shard]:
    """The sequences of one split that the annotation file mentions.

    Raises:
        ValueError: the folder or the annotation file is missing or malformed.
    """
    folder = require_folder(root, "mupots")
    path = _annotations(folder)
    images, _ = annotations_of(path)
    found = []
    for part in splits.of(split):
        places = (_place(image, path) for image in images.values())
        frames = sorted(frame for sequence, frame in places if sequence == part.sequence)
        taken = splits.select(part, frames)
        files = [_image(folder, part.sequence, frame) for frame in taken]
        found += cut("mupots", folder, part, _CAMERA, taken, files)
    return found


def records(shard: Shard) -> Iterator[Record | Drop]:
    """Every frame of the shard.

    Raises:
        ValueError: an annotation is malformed; names the file and the annotation.
    """
    folder = Path(shard.root)
    path = _annotations(folder)
    images, annotations = annotations_of(path)
    by_place = {_place(image, path): image for image in images.values()}
    for frame in shard.frames:
        image = by_place[shard.sequence, frame]
        size = int(image["height"]), int(image["width"])
        K = pinhole(numbers(image, "intrinsic", (4,), path))
        people = [_person(annotation, K, size, path) for annotation in annotations[image["id"]]]
        yield record(shard, frame, _image(folder, shard.sequence, frame), size, MUPOTS17, people, K=K)


def _annotations(folder: Path) -> Path:
    places = (folder / "annotations" / "MuPoTS-3D.json", folder / "MuPoTS-3D.json")
    return require_file(places, "mupots: annotations")


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
    projected = np.where(unlabelled[:, None], uv, 0.0)
    projected[~unlabelled] = project(cam[~unlabelled], K)
    wrong = np.linalg.norm(uv - projected, axis=1) > _MAX_MISFIT * max(size)
    universal = None
    if "keypoints_univ" in annotation:
        universal = numbers(annotation, "keypoints_univ", (17, 3), path)
    return Person(
        id=int(annotation["id"]),
        joints_uv=np.where(wrong[:, None], projected, uv),
        joints_cam=cam,
        joints_cam_univ=universal,
        state=state,
        bbox=box_xyxy(numbers(annotation, "bbox", (4,), path)),
        valid=bool(annotation.get("is_valid", 1)),
    )
