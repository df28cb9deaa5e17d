"""What is there of MuCo-3DHP as Moon et al. ship it: one annotation file and two folders of images."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipeline.data.check.base import Inventory, Trouble, archives, view_of
from pipeline.data.check.coco_like import first_of, images_below, read, size_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources import muco as reader
from pipeline.data.sources.base import Source
from pipeline.data.splits import SplitManifest

TITLE = "MuCo-3DHP"
LAYOUT = "MuCo-3DHP.json, unaugmented_set and augmented_set"
PAGE = "docs/data/muco.md"
SOURCE: Source = reader

_PLACES = ("MuCo-3DHP.json", "annotations/MuCo-3DHP.json")
_CAMERA = "0"


def recognises(tree: Tree) -> bool:
    """Whether the annotation file or a folder of images is where it belongs."""
    return any(map(tree.has, (*_PLACES, "unaugmented_set", "augmented_set")))


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """Both sets, as the annotation file lists them."""
    found = Inventory(read="no annotation file")
    found.notes += archives(tree, ("", "annotations"))
    path = first_of(tree, _PLACES)
    if path is None:
        found.troubles.append(Trouble(_PLACES[0], "no such file: nothing says who is in the images"))
    content = None if path is None else read(tree, path, found)
    if content is None:
        found.notes += _unannotated(tree)
        return found
    images, _ = content
    by_set: dict[str, list[int]] = {}
    for i in sorted(images):
        by_set.setdefault(PurePosixPath(images[i]["file_name"]).parts[0], []).append(i)
    listed = {str(image["file_name"]) for image in images.values()}
    counted: set[str] = set()
    for part in splits.parts:
        ids = by_set.get(part.sequence, [])
        if not ids:
            found.absent.append(Trouble(f"{part.sequence} ({part.split})", f"not in {path}"))
            continue
        others = 0 if part.sequence in counted else len(set(images_below(tree, part.sequence)) - listed)
        counted.add(part.sequence)
        found.views.append(
            view_of(
                tree,
                part,
                _CAMERA,
                ids,
                splits,
                lambda i: str(images[i]["file_name"]),
                lambda i: size_of(images[i]),
                others,
            )
        )
    return found


def _unannotated(tree: Tree) -> list[str]:
    return [
        f"{name}: {sum(1 for _ in images_below(tree, name))} images, without annotations"
        for name in ("unaugmented_set", "augmented_set")
        if name in tree.folders()
    ]
