"""What is there of data of one's own: skeleton.json, a JSONL file for every part, and the images it names."""

from __future__ import annotations

import json

from das.skeleton import read_skeleton
from pipeline.data.check.base import Inventory, Picture, Trouble, View, archives, words_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources import custom as reader
from pipeline.data.sources.base import Source
from pipeline.data.splits import Part, SplitManifest

TITLE = "data of your own"
LAYOUT = "skeleton.json, train.jsonl (val.jsonl, test.jsonl), and images"
PAGE = "docs/bring_your_own.md"
SOURCE: Source = reader

_CAMERA = "0"


def recognises(tree: Tree) -> bool:
    """Whether there are lines of images, or a skeleton for them."""
    return "skeleton.json" in tree.names() or any(
        f"{part.sequence}.jsonl" in tree.names() for part in SOURCE.SPLITS.parts
    )


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """Every line of every file; a set without val or test is complete all the same."""
    found = Inventory()
    found.notes += archives(tree, ("",))
    blocked = ""
    try:
        read_skeleton(tree.root / "skeleton.json")
    except ValueError as error:
        blocked = "no skeleton"
        found.troubles.append(Trouble("skeleton.json", words_of(tree, error)))
    read = []
    for part in splits.parts:
        file = f"{part.sequence}.jsonl"
        if tree.size(file) is None:
            found.notes.append(f"no {file}: nothing for {part.split}")
            continue
        view = _view(tree, part, file, splits)
        view.blocked = blocked
        found.views.append(view)
        read.append(f"{file} ({view.annotated} lines)")
    if not read:
        found.absent.append(Trouble("train.jsonl", "no such file, and none for another split"))
    found.read = ", ".join(read) or "no annotation file"
    return found


def _view(tree: Tree, part: Part, file: str, splits: SplitManifest) -> View:
    with (tree.root / file).open("rb") as stream:
        lines = [line for line in stream if line.strip()]
    taken = splits.select(part, range(len(lines)))
    view = View(part.sequence, _CAMERA, part.split, len(lines), len(taken), [], [])
    for number in taken:
        where = f"{file}: image {number + 1}"
        try:
            image = json.loads(lines[number])["image"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            view.damaged.append(Trouble(where, f"not an image and its people ({error!r})"))
            continue
        size = tree.size(str(image))
        if size is None:
            view.missing.append(str(image))
        else:
            view.pictures.append(Picture(str(image), size))
    return view
