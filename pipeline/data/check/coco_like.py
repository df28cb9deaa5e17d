"""What data sets share whose images are listed in one COCO-like JSON file (COCO, MuCo-3DHP, MuPoTS-3D)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.data.check.base import Inventory, Trouble
from pipeline.data.check.listing import Tree
from pipeline.data.sources import json_files
from pipeline.data.sources.json_files import annotations_of

IMAGES = (".jpg", ".jpeg", ".png")


def first_of(tree: Tree, places: Iterable[str]) -> str | None:
    """The first of these files that is there."""
    return next((place for place in places if tree.size(place) is not None), None)


def read(
    tree: Tree, path: str, found: Inventory
) -> tuple[dict[int, dict[str, Any]], dict[int, list[dict[str, Any]]]] | None:
    """Images by id and annotations by image id; None when the file cannot be used, which ``found`` then says."""
    try:
        content = annotations_of(tree.root / path)
    except ValueError as error:
        text = " ".join(str(error).split())
        found.troubles.append(Trouble(path, text.partition(f"{path}: ")[2] or text))
        return None
    found.read = f"{path} ({(tree.size(path) or 0) / 1e6:.1f} MB)"
    return content


def size_of(image: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) of an image entry, None where it does not say."""
    try:
        return json_files.size_of(image, Path())
    except ValueError:
        return None


def images_below(tree: Tree, folder: str) -> Iterable[str]:
    """Paths of the image files in a folder and its subfolders."""
    yield from (f"{folder}/{name}" for name in tree.names(folder) if name.lower().endswith(IMAGES))
    for below in tree.folders(folder):
        yield from images_below(tree, f"{folder}/{below}")
