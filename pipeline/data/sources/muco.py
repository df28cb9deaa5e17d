"""MuCo-3DHP (Mehta et al., 3DV 2018): people of MPI-INF-3DHP composited, as Moon et al. (ICCV 2019) ship it.

    ROOT/MuCo-3DHP.json  or  ROOT/annotations/MuCo-3DHP.json
    ROOT/unaugmented_set/..., ROOT/augmented_set/...     as the annotation's file names say

``keypoints_vis`` is taken as "labelled", as its readers do; positions stay in the row either way.
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
    box_xyxy,
    cut,
    pinhole,
    record,
    require_file,
    require_folder,
)
from pipeline.data.sources.json_files import annotations_of, numbers, size_of
from pipeline.data.splits import MUCO, SplitManifest

TERMS = (
    "MuCo-3DHP, made from MPI-INF-3DHP: non-commercial research use only; see "
    "https://vcai.mpi-inf.mpg.de/projects/SingleShotMultiPerson and cite Mehta et al., 3DV 2018"
)
SKELETONS: tuple[Skeleton, ...] = (MUCO21,)
SPLITS = MUCO

# Each composite mixes people whose cameras are written as one.
_CAMERA = "0"


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
        found += cut("muco", folder, part, _CAMERA, taken, [folder / images[i]["file_name"] for i in taken])
    return found


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every image of the shard; the frame number is Moon's image id.

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
        yield record(chunk, i, folder / image["file_name"], size, MUCO21, people, K=K)


def _annotations(folder: Path) -> Path:
    places = (folder / "MuCo-3DHP.json", folder / "annotations" / "MuCo-3DHP.json")
    return require_file(places, "muco: annotations")


def _person(annotation: dict[str, Any], path: Path) -> Person:
    cam = numbers(annotation, "keypoints_cam", (21, 3), path)
    labelled = numbers(annotation, "keypoints_vis", (21,), path) > 0
    return Person(
        id=annotation["id"],
        joints_uv=numbers(annotation, "keypoints_img", (21, 2), path),
        joints_cam=cam,
        state=np.where(labelled, VISIBLE, UNLABELLED),
        bbox=box_xyxy(numbers(annotation, "bbox", (4,), path)),
    )
