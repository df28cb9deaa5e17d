"""MuCo-3DHP (Mehta et al., 3DV 2018): people of MPI-INF-3DHP composited, as Moon et al. (ICCV 2019) ship it.

    ROOT/MuCo-3DHP.json  or  ROOT/annotations/MuCo-3DHP.json
    ROOT/unaugmented_set/..., ROOT/augmented_set/...     images, with the file names of the annotations

A joint is labelled if its ``keypoints_vis`` is not 0, as in other loaders; positions of all joints are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from das.skeleton import MUCO21, Skeleton
from pipeline.data.record import UNLABELLED, VISIBLE, Record
from pipeline.data.sources.base import (
    Chunk,
    DroppedFrame,
    Person,
    make_chunks,
    make_record,
    pinhole,
    require_file,
    require_folder,
)
from pipeline.data.sources.json_files import annotations_of, box_of, numbers, size_of
from pipeline.data.splits import Part, SplitManifest

TERMS = (
    "MuCo-3DHP, made from MPI-INF-3DHP: non-commercial research use only; see "
    "https://vcai.mpi-inf.mpg.de/projects/SingleShotMultiPerson and cite Mehta et al., 3DV 2018"
)
SKELETONS: tuple[Skeleton, ...] = (MUCO21,)
ANNOTATIONS = ("MuCo-3DHP.json", "annotations/MuCo-3DHP.json")
"""Where the annotation file may be, relative to the root."""
SETS = ("unaugmented_set", "augmented_set")
"""Folders of images, relative to the root."""
CAMERA = "0"
"""Name of the camera of every image: a composite has one, although its people were recorded by several."""

# The owners ship no split. Neighbouring images share their source frames, so validation takes the last 2 % of each
# set in one piece.
SPLITS = SplitManifest(
    "muco",
    tuple(part for name in SETS for part in (Part(name, "train", stop=0.98), Part(name, "val", start=0.98))),
)
# What the release trains on: all of both sets.
MUCO_RELEASE = SplitManifest("muco-release", tuple(Part(name, "train") for name in SETS))


def chunks(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> list[Chunk]:
    """The images of one split, by set and image id.

    Raises:
        ValueError: the folder or the annotation file is missing or malformed.
    """
    folder = require_folder(root, "muco")
    images, _ = annotations_of(_annotations(folder))
    found = []
    for part in splits.of(split):
        ids = sorted(i for i, image in images.items() if Path(image["file_name"]).parts[0] == part.sequence)
        taken = splits.select(part, ids)
        found += make_chunks("muco", folder, part, CAMERA, taken, [folder / images[i]["file_name"] for i in taken])
    return found


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every image of the chunk; the frame number is the image id of Moon's file.

    Raises:
        ValueError: an annotation is malformed; names the file and the annotation.
    """
    folder = Path(chunk.root)
    path = _annotations(folder)
    images, annotations = annotations_of(path)
    for i in chunk.frames:
        image = images[i]
        size = size_of(image, path)
        K = pinhole([*numbers(image, "f", (2,), path), *numbers(image, "c", (2,), path)])
        people = [_person(annotation, path) for annotation in annotations[i]]
        yield make_record(chunk, i, folder / image["file_name"], size, MUCO21, people, K=K)


def _annotations(folder: Path) -> Path:
    return require_file(folder, ANNOTATIONS, "muco: annotations")


def _person(annotation: dict[str, Any], path: Path) -> Person:
    cam = numbers(annotation, "keypoints_cam", (21, 3), path)
    labelled = numbers(annotation, "keypoints_vis", (21,), path) > 0
    return Person(
        id=annotation["id"],
        joints_uv=numbers(annotation, "keypoints_img", (21, 2), path),
        joints_cam=cam,
        state=np.where(labelled, VISIBLE, UNLABELLED),
        bbox=box_of(annotation, path),
    )
