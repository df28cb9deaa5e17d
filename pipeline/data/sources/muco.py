"""MuCo-3DHP (Mehta et al., 3DV 2018): people of MPI-INF-3DHP composited, as Moon et al. (ICCV 2019) ship it.

    ROOT/MuCo-3DHP.json  or  ROOT/annotations/MuCo-3DHP.json
    ROOT/unaugmented_set/..., ROOT/augmented_set/...     images, with the file names of the annotations

A joint is labelled if its ``keypoints_vis`` is not 0, as in other loaders; positions of all joints are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from das.skeleton import MUCO21, Skeleton
from pipeline.data.record import UNLABELLED, VISIBLE, Record
from pipeline.data.sources.base import (
    Chunk,
    ChunkFiles,
    DroppedFrame,
    Person,
    make_chunks,
    make_record,
    pinhole,
    require_file,
    require_folder,
)
from pipeline.data.sources.json_files import annotations_of, box_of, named_file, numbers, size_of
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
        ValueError: the folder or the annotation file is missing or malformed, or an image leads out of the folder.
    """
    folder = require_folder(root, "muco")
    path = _annotations(folder)
    images, _ = annotations_of(path)
    paths = {i: named_file(image, "file_name", folder, folder, path) for i, image in images.items()}
    found = []
    for part in splits.of(split):
        ids = sorted(i for i, image in images.items() if Path(image["file_name"]).parts[0] == part.sequence)
        taken = splits.select(part, ids)
        found += make_chunks("muco", folder, part, CAMERA, taken, [paths[i] for i in taken])
    return found


def listed_files(splits: SplitManifest) -> Iterable[str]:
    """The annotation file, in both places where it may be."""
    return ANNOTATIONS


def files(chunk: Chunk) -> ChunkFiles:
    """The annotation file and the images."""
    path = _annotations(Path(chunk.root))
    images, _ = annotations_of(path)
    return ChunkFiles((str(path.relative_to(chunk.root)),), tuple(images[i]["file_name"] for i in chunk.frames))


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
