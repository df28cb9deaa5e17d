"""Inventory of COCO keypoints: annotation files of train and val, and the photos with an annotated person."""

from __future__ import annotations

from typing import Any

from pipeline.data.check.base import CameraInventory, Inventory, Problem, archives, camera_inventory
from pipeline.data.check.coco_like import images_below, read, size_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources.coco import CAMERA, SPLITS, annotation_file
from pipeline.data.splits import Part, SplitManifest

TITLE = "COCO keypoints"
LAYOUT = "annotations/person_keypoints_train2017.json, train2017, and the same of val2017"
PAGE = "docs/data/coco.md"

# category_id of a person in COCO's own files; sources/coco.py looks it up by its name.
_PERSON = 1


def recognises(tree: Tree) -> bool:
    """Whether it has annotation files or folders of photos."""
    annotated = any(name.startswith("person_keypoints_") for name in tree.names("annotations"))
    return annotated or any(part.sequence in tree.folders() for part in SPLITS.parts)


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """The photos with an annotated person; the others are not converted."""
    found = Inventory()
    read_files = []
    for part in splits.parts:
        path = annotation_file(part.sequence)
        if tree.size(path) is None:
            photos = len(tree.names(part.sequence))
            what = "no such file: it is in annotations_trainval2017.zip"
            found.absent.append(Problem(f"{path} ({part.split})", f"{what}; {photos} photos are there"))
        elif (content := read(tree, path, found)) is not None:
            read_files.append(found.read)
            found.cameras.append(_camera(tree, part, *content, splits))
            if part.sequence not in tree.folders():
                found.problems.append(Problem(part.sequence, f"no such folder: it is in {part.sequence}.zip"))
    found.read = ", ".join(read_files) or "no annotation file"
    found.notes += archives(tree, ("", "annotations"))
    return found


def _camera(
    tree: Tree,
    part: Part,
    images: dict[int, dict[str, Any]],
    annotations: dict[int, list[dict[str, Any]]],
    splits: SplitManifest,
) -> CameraInventory:
    with_people = sorted(i for i in images if any(a.get("category_id", 1) == _PERSON for a in annotations[i]))
    names = {i: f"{part.sequence}/{images[i]['file_name']}" for i in with_people}
    others = len(set(images_below(tree, part.sequence)) - set(names.values()))
    sizes = {i: size_of(images[i]) for i in with_people}
    return camera_inventory(tree, part, CAMERA, with_people, splits, names.__getitem__, sizes.__getitem__, others)
