"""Inventory of your own data: skeleton.json, a JSONL file for every part, and the images that it lists."""

from __future__ import annotations

import json

from das.skeleton import read_skeleton
from pipeline.data.check.base import CameraInventory, ImageFile, Inventory, Problem, archives, message_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources.custom import CAMERA, SPLITS, annotation_file
from pipeline.data.splits import Part, SplitManifest

TITLE = "data of your own"
LAYOUT = "skeleton.json, train.jsonl (val.jsonl, test.jsonl), and images"
PAGE = "docs/bring_your_own.md"


def recognises(tree: Tree) -> bool:
    """Whether it has a skeleton or a JSONL file of a split."""
    return "skeleton.json" in tree.names() or any(
        annotation_file(part.sequence) in tree.names() for part in SPLITS.parts
    )


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """Every line of every file; a data set without val or test may be complete."""
    found = Inventory()
    found.notes += archives(tree, ("",))
    blocked = ""
    try:
        read_skeleton(tree.root / "skeleton.json")
    except ValueError as error:
        blocked = "no skeleton"
        found.problems.append(Problem("skeleton.json", message_of(tree, error)))
    read = []
    for part in splits.parts:
        file = annotation_file(part.sequence)
        if tree.size(file) is None:
            found.notes.append(f"no {file}: nothing for {part.split}")
            continue
        line = _camera(tree, part, file, splits)
        line.blocked = blocked
        found.cameras.append(line)
        read.append(f"{file} ({line.annotated} lines)")
    if not read:
        found.absent.append(Problem("train.jsonl", "no such file, and none for another split"))
    found.read = ", ".join(read) or "no annotation file"
    return found


def _camera(tree: Tree, part: Part, file: str, splits: SplitManifest) -> CameraInventory:
    with (tree.root / file).open("rb") as stream:
        lines = [line for line in stream if line.strip()]
    taken = splits.select(part, range(len(lines)))
    found = CameraInventory(part.sequence, CAMERA, part.split, len(lines), len(taken), [], [])
    for number in taken:
        where = f"{file}: image {number + 1}"
        try:
            image = json.loads(lines[number])["image"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            found.damaged.append(Problem(where, f"not an image and its people ({error!r})"))
            continue
        size = tree.size(str(image))
        if size is None:
            found.missing.append(str(image))
        else:
            found.images.append(ImageFile(str(image), size))
    return found
