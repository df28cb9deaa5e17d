"""Inventory of COCO keypoints: annotation files of train and val, and the photos with an annotated person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.data.check.base import CameraInventory, Inventory, Problem, archives, camera_inventory, problem_of
from pipeline.data.check.coco_like import images_below, size_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources.coco import CAMERA, SPLITS, annotation_file, photos_with_people
from pipeline.data.splits import Part, SplitManifest
from pipeline.infra.regular_files import inside

TITLE = "COCO keypoints"
LAYOUT = "annotations/person_keypoints_train2017.json, train2017, and the same of val2017"
PAGE = "docs/data/coco.md"


def recognises(tree: Tree) -> bool:
    """Whether it has annotation files or folders of photos."""
    annotated = any(name.startswith("person_keypoints_") for name in tree.names("annotations"))
    return annotated or any(part.sequence in tree.folders() for part in SPLITS.parts)


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """The photos with an annotated person, as the source finds them; the others are not converted."""
    found = Inventory()
    read_files = []
    for part in splits.parts:
        path = annotation_file(part.sequence)
        size = tree.size(path)
        if size is None:
            photos = len(tree.names(part.sequence))
            what = "no such file: it is in annotations_trainval2017.zip"
            found.absent.append(Problem(f"{path} ({part.split})", f"{what}; {photos} photos are there"))
            continue
        try:
            with_people = photos_with_people(inside(tree.root, path))
        except ValueError as error:
            found.problems.append(problem_of(tree, error))
            continue
        read_files.append(f"{path} ({size / 1e6:.1f} MB)")
        found.cameras.append(_camera(tree, part, with_people, splits))
        if part.sequence not in tree.folders():
            found.problems.append(Problem(part.sequence, f"no such folder: it is in {part.sequence}.zip"))
    found.read = ", ".join(read_files) or "no annotation file"
    found.notes += archives(tree, ("", "annotations"))
    return found


def _camera(tree: Tree, part: Part, photos: dict[int, dict[str, Any]], splits: SplitManifest) -> CameraInventory:
    names = {i: f"{part.sequence}/{photo['file_name']}" for i, photo in photos.items()}
    others = len(set(images_below(tree, part.sequence)) - set(names.values()))
    sizes = {i: size_of(photo) for i, photo in photos.items()}
    line = camera_inventory(tree, part, CAMERA, list(photos), splits, names.__getitem__, sizes.__getitem__, others)
    line.images = [replace(image, displayed=True) for image in line.images]
    return line
