"""What is there of COCO keypoints: annotation files of train and val, and the photos that show people."""

from __future__ import annotations

from typing import Any

from pipeline.data.check.base import Inventory, Trouble, View, archives, view_of
from pipeline.data.check.coco_like import images_below, read, size_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources import coco as reader
from pipeline.data.sources.base import Source
from pipeline.data.splits import Part, SplitManifest

TITLE = "COCO keypoints"
LAYOUT = "annotations/person_keypoints_train2017.json, train2017, and the same of val2017"
PAGE = "docs/data/coco.md"
SOURCE: Source = reader

_PHOTOS = ("train2017", "val2017")
_CAMERA = "unknown"
_PERSON = 1  # category_id


def recognises(tree: Tree) -> bool:
    """Whether annotation files or folders of photos are where they belong."""
    annotated = any(name.startswith("person_keypoints_") for name in tree.names("annotations"))
    return annotated or any(name in tree.folders() for name in _PHOTOS)


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """The photos that show people; all others are not needed."""
    found = Inventory()
    read_files = []
    for part in splits.parts:
        path = f"annotations/person_keypoints_{part.sequence}.json"
        if tree.size(path) is None:
            photos = len(tree.names(part.sequence))
            what = "no such file: annotations_trainval2017.zip holds it"
            found.absent.append(Trouble(f"{path} ({part.split})", f"{what}; {photos} photos are there"))
        elif (content := read(tree, path, found)) is not None:
            read_files.append(found.read)
            found.views.append(_view(tree, part, *content, splits))
            if part.sequence not in tree.folders():
                found.troubles.append(Trouble(part.sequence, f"no such folder: {part.sequence}.zip holds it"))
    found.read = ", ".join(read_files) or "no annotation file"
    found.notes += archives(tree, ("", "annotations"))
    return found


def _view(
    tree: Tree,
    part: Part,
    images: dict[int, dict[str, Any]],
    annotations: dict[int, list[dict[str, Any]]],
    splits: SplitManifest,
) -> View:
    with_people = sorted(i for i in images if any(a.get("category_id", 1) == _PERSON for a in annotations[i]))
    names = {i: f"{part.sequence}/{images[i]['file_name']}" for i in with_people}
    others = len(set(images_below(tree, part.sequence)) - set(names.values()))
    sizes = {i: size_of(images[i]) for i in with_people}
    return view_of(tree, part, _CAMERA, with_people, splits, names.__getitem__, sizes.__getitem__, others)
