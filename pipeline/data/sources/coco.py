"""COCO keypoints (Lin et al., ECCV 2014): photos of people with 2D joints.

    ROOT/annotations/person_keypoints_{train,val}2017.json
    ROOT/{train,val}2017/%012d.jpg

Cameras are unknown and there is no depth. Crowds, people without labelled joints and boxes without keypoints become
ignore areas. The person category is found by its name. An absent ``iscrowd`` is 0, an absent size is that of the photo.

Annotations refer to the photo as programs display it, so a photo with an orientation tag (EXIF) is turned by it and
encoded again. Its size may be given as displayed or as stored.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from das.skeleton import COCO17, Skeleton
from pipeline.data.encoded_image import displayed, image_size
from pipeline.data.record import OCCLUDED, UNLABELLED, VISIBLE, Record
from pipeline.data.sources.base import (
    IMAGE_DAMAGED,
    IMAGE_OTHER_SIZE,
    NOT_TURNED,
    TURNED,
    Chunk,
    ChunkFiles,
    DroppedFrame,
    EncodedImage,
    NoImage,
    Person,
    drop_frame,
    make_chunks,
    make_record,
    read_image,
    require_file,
    require_folder,
)
from pipeline.data.sources.json_files import box_of, coco_like, flag, named_file, numbers, size_of, whole_number
from pipeline.data.splits import Part, SplitManifest
from pipeline.infra.regular_files import inside

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
        ValueError: no such folder, or it holds none of COCO's annotation files, or one is malformed, or a photo leads
            out of the folder.
    """
    folder = require_folder(root, "coco")
    require_file(folder, (annotation_file(part.sequence) for part in splits.parts), "coco: annotations")
    found = []
    for part in splits.of(split):
        path = inside(folder, annotation_file(part.sequence))
        if not path.is_file():
            continue
        photos = photos_with_people(path)
        taken = splits.select(part, list(photos))
        images = {
            i: named_file(photo, "file_name", folder / part.sequence, folder, path) for i, photo in photos.items()
        }
        found += make_chunks("coco", folder, part, CAMERA, taken, [images[i] for i in taken])
    return found


def listed_files(splits: SplitManifest) -> Iterable[str]:
    """The annotation files."""
    return (annotation_file(part.sequence) for part in splits.parts)


def files(chunk: Chunk) -> ChunkFiles:
    """The annotation file and the photos."""
    file = annotation_file(chunk.sequence)
    photos = _load(inside(chunk.root, file)).imgs
    return ChunkFiles((file,), tuple(f"{chunk.sequence}/{photos[i]['file_name']}" for i in chunk.frames))


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every photo of the chunk; the frame number is COCO's image id.

    Raises:
        ValueError: an annotation is malformed; names the file and the annotation.
    """
    path = inside(chunk.root, annotation_file(chunk.sequence))
    coco = _load(path)
    for i in chunk.frames:
        image = coco.imgs[i]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[i], catIds=coco.getCatIds(catNms=["person"])))
        people = [_person(annotation, path) for annotation in annotations]
        size = photo_size(image, path)
        photo = _photo(Path(chunk.root) / chunk.sequence / image["file_name"], chunk.root, size)
        if isinstance(photo, NoImage):
            yield drop_frame(chunk, i, photo)
        else:
            yield make_record(chunk, i, photo, photo.size, COCO17, people)


def annotation_file(photos: str) -> str:
    """Path, relative to the root, of the annotations of train2017 or val2017."""
    return f"annotations/person_keypoints_{photos}.json"


def photos_with_people(path: Path) -> dict[int, dict[str, Any]]:
    """The entries of photos with an annotated person, by image id in order; these are converted.

    Raises:
        ValueError: the annotation file is missing or malformed.
    """
    coco = _load(path)
    return {i: coco.imgs[i] for i in sorted(coco.getImgIds(catIds=coco.getCatIds(catNms=["person"])))}


def photo_size(image: dict[str, Any], path: Path) -> tuple[int, int] | None:
    """(height, width) of a photo's entry in pixels, None if it has neither; ValueError naming file, entry and field."""
    return size_of(image, path) if "height" in image or "width" in image else None


def _photo(file: Path, root: str | Path, size: tuple[int, int] | None) -> EncodedImage | NoImage:
    """A photo as it is displayed, or why it cannot be used; ``size`` (height, width) is what its annotation says."""
    stored = read_image(file, root)
    if isinstance(stored, NoImage):
        return stored
    try:
        data = displayed(stored.data)
    except ValueError as error:
        return NoImage(IMAGE_DAMAGED, file, str(error))
    photo = stored
    if data is not stored.data:
        changes = tuple(TURNED if change == NOT_TURNED else change for change in stored.changes)
        photo = EncodedImage(data, image_size(data), changes)
    if size is not None and size not in (photo.size, stored.size):
        sizes = f"found {photo.size[1]}x{photo.size[0]} pixels, wanted {size[1]}x{size[0]}"
        return NoImage(IMAGE_OTHER_SIZE, file, sizes)
    return photo


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
    # Tools write [] or null for a box without keypoints.
    keypoints = numbers(annotation, "keypoints", (17, 3), path) if annotation.get("keypoints") else np.zeros((17, 3))
    state = keypoints[:, 2]
    if not np.isin(state, (UNLABELLED, OCCLUDED, VISIBLE)).all():
        found = sorted({*state.tolist()})
        raise ValueError(f"{path}: entry {annotation['id']}: keypoints: found v = {found}, wanted 0, 1 or 2")
    return Person(
        id=annotation["id"],
        joints_uv=keypoints[:, :2],
        state=state.astype(np.uint8),
        bbox=box_of(annotation, path),
        ignore=flag({"iscrowd": 0, **annotation}, "iscrowd", path) or not state.any(),
    )
