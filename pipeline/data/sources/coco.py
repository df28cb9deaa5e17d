"""COCO keypoints (Lin et al., ECCV 2014): photos of people with 2D joints.

    ROOT/annotations/person_keypoints_{train,val}2017.json
    ROOT/{train,val}2017/%012d.jpg

Cameras are unknown and there is no depth. Crowds and people without labelled joints become ignore areas.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from das.skeleton import COCO17, Skeleton
from pipeline.data.record import OCCLUDED, UNLABELLED, VISIBLE, Record
from pipeline.data.sources.base import (
    Chunk,
    DroppedFrame,
    Person,
    make_chunks,
    make_record,
    require_file,
    require_folder,
)
from pipeline.data.sources.json_files import box_of, coco_like, flag, numbers, size_of, whole_number
from pipeline.data.splits import Part, SplitManifest

TERMS = (
    "COCO 2017 keypoints: annotations CC BY 4.0; each photo has its own Flickr licence (`license` in the "
    "annotation file); see https://cocodataset.org/#termsofuse"
)
SKELETONS: tuple[Skeleton, ...] = (COCO17,)
# The labels of the test images are not public.
SPLITS = SplitManifest("coco", (Part("train2017", "train"), Part("val2017", "val")))

CAMERA = "unknown"
"""Name of the camera of every photo: each has another one, and none is known."""

_SIDES = {"l_": "left_", "r_": "right_"}
_KEYPOINTS = [_SIDES[name[:2]] + name[2:] if name[:2] in _SIDES else name for name in COCO17.joints]


def chunks(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> list[Chunk]:
    """The photos of one split that have an annotated person, by image id; absent parts of the data give no chunks.

    Raises:
        ValueError: no such folder, or it holds none of COCO's annotation files, or one is malformed.
    """
    folder = require_folder(root, "coco")
    require_file((folder / annotation_file(part.sequence) for part in splits.parts), "coco: annotations")
    found = []
    for part in splits.of(split):
        path = folder / annotation_file(part.sequence)
        if not path.is_file():
            continue
        coco = _load(path)
        ids = sorted(coco.getImgIds(catIds=coco.getCatIds(catNms=["person"])))
        taken = splits.select(part, ids)
        images = [folder / part.sequence / coco.imgs[i]["file_name"] for i in taken]
        found += make_chunks("coco", folder, part, CAMERA, taken, images)
    return found


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every photo of the chunk; the frame number is COCO's image id.

    Raises:
        ValueError: an annotation is malformed; names the file and the annotation.
    """
    path = Path(chunk.root) / annotation_file(chunk.sequence)
    coco = _load(path)
    for i in chunk.frames:
        image = coco.imgs[i]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[i], catIds=coco.getCatIds(catNms=["person"])))
        people = [_person(annotation, path) for annotation in annotations]
        file = Path(chunk.root) / chunk.sequence / image["file_name"]
        yield make_record(chunk, i, file, size_of(image, path), COCO17, people)


def annotation_file(photos: str) -> str:
    """Path, relative to the root, of the annotations of train2017 or val2017."""
    return f"annotations/person_keypoints_{photos}.json"


def _load(path: Path) -> Any:
    return _loaded(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # the chunks that one process reads share the file, which takes seconds to parse
def _loaded(path: Path, changed: int) -> Any:
    from pycocotools.coco import COCO  # here: the command line lists all sources before it reads any

    coco = COCO()
    coco.dataset = coco_like(path)
    for annotation in coco.dataset["annotations"]:
        whole_number(annotation, "category_id", path)
    categories = coco.dataset.get("categories")
    named = [c for c in categories if isinstance(c, dict)] if isinstance(categories, list) else []
    people = [c for c in named if c.get("name") == "person" and type(c.get("id")) is int]
    if len(people) != 1 or len(named) != len(categories):
        raise ValueError(f"{path}: categories: found {len(people)} with an id and the name person, wanted one")
    if (found := people[0].get("keypoints")) != _KEYPOINTS:
        raise ValueError(f"{path}: categories: keypoints of person: found {found}, wanted {', '.join(_KEYPOINTS)}")
    coco.dataset["categories"] = people
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco.createIndex()
    return coco


def _person(annotation: dict[str, Any], path: Path) -> Person:
    keypoints = numbers(annotation, "keypoints", (17, 3), path)
    state = keypoints[:, 2]
    if not np.isin(state, (UNLABELLED, OCCLUDED, VISIBLE)).all():
        found = sorted({*state.tolist()})
        raise ValueError(f"{path}: entry {annotation['id']}: keypoints: found v = {found}, wanted 0, 1 or 2")
    return Person(
        id=annotation["id"],
        joints_uv=keypoints[:, :2],
        state=state.astype(np.uint8),
        bbox=box_of(annotation, path),
        ignore=flag(annotation, "iscrowd", path) or not state.any(),
    )
