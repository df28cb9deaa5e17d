"""Inventory of MuCo-3DHP as Moon et al. ship it: one annotation file and two folders of images."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipeline.data.check.base import Inventory, Problem, archives, camera_inventory
from pipeline.data.check.coco_like import first_of, images_below, read, size_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources.muco import ANNOTATIONS, CAMERA, SETS
from pipeline.data.splits import SplitManifest

TITLE = "MuCo-3DHP"
LAYOUT = "MuCo-3DHP.json, unaugmented_set and augmented_set"
PAGE = "docs/data/muco.md"


def recognises(tree: Tree) -> bool:
    """Whether it has the annotation file or a folder of images."""
    return any(map(tree.has, (*ANNOTATIONS, *SETS)))


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """The images of both sets that the annotation file lists."""
    found = Inventory(read="no annotation file")
    found.notes += archives(tree, ("", "annotations"))
    path = first_of(tree, ANNOTATIONS)
    if path is None:
        found.problems.append(Problem(ANNOTATIONS[0], "no such file: it has the annotations of all images"))
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
            found.absent.append(Problem(f"{part.sequence} ({part.split})", f"not in {path}"))
            continue
        # Train and val share a folder: its other images are counted once.
        others = 0 if part.sequence in counted else len(set(images_below(tree, part.sequence)) - listed)
        counted.add(part.sequence)
        found.cameras.append(
            camera_inventory(
                tree,
                part,
                CAMERA,
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
        for name in SETS
        if name in tree.folders()
    ]
