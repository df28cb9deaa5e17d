"""Inventory of your own data: skeleton.json, a JSONL file for every part, and the images that it lists."""

from __future__ import annotations

import json

from pipeline.data.check.base import CameraInventory, ImageFile, Inventory, Problem, archives, problem_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources.custom import CAMERA, SPLITS, annotation_file, lines_of, skeleton_of
from pipeline.data.splits import Part, SplitManifest
from pipeline.infra.regular_files import inside

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
        skeleton_of(tree.root)
    except ValueError as error:
        blocked = "no skeleton"
        found.problems.append(Problem("skeleton.json", problem_of(tree, error).what))
    read = []
    for part in splits.parts:
        file = annotation_file(part.sequence)
        if tree.size(file) is None:
            found.notes.append(f"no {file}: nothing for {part.split}")
            continue
        try:
            line = _camera(tree, part, file, splits)
        except ValueError as error:
            found.problems.append(problem_of(tree, error))
            continue
        line.blocked = blocked
        found.cameras.append(line)
        read.append(f"{file} ({line.annotated} lines)")
    if not read:
        found.absent.append(Problem("train.jsonl", "no such file, and none for another split"))
    found.read = ", ".join(read) or "no annotation file"
    return found


def _camera(tree: Tree, part: Part, file: str, splits: SplitManifest) -> CameraInventory:
    path = inside(tree.root, file)
    count = sum(bool(line.strip()) for line in lines_of(path))
    taken = splits.select(part, range(count))
    wanted = frozenset(taken)
    found = CameraInventory(part.sequence, CAMERA, part.split, count, len(taken), [], [])
    for number, line in enumerate(line for line in lines_of(path) if line.strip()):
        if number not in wanted:
            continue
        where = f"{file}: image {number + 1}"
        try:
            image = json.loads(line)["image"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            found.damaged.append(Problem(where, f"not an image and its people ({error!r})"))
            continue
        size = tree.size(str(image))
        if size is None:
            found.missing.append(str(image))
        else:
            found.images.append(ImageFile(str(image), size))
    return found
