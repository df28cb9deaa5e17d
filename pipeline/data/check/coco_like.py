"""Functions for data sets whose images are listed in one COCO-like JSON file (COCO, MuCo-3DHP, MuPoTS-3D)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.data.check.base import Inventory, problem_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources import json_files
from pipeline.data.sources.json_files import annotations_of
from pipeline.infra.regular_files import inside

IMAGES = (".jpg", ".jpeg", ".png")
"""Endings of image files, in lower case."""


def first_of(tree: Tree, places: Iterable[str]) -> str | None:
    """The first of these files that exists, or None."""
    return next((place for place in places if tree.size(place) is not None), None)


def read(
    tree: Tree, path: str, found: Inventory
) -> tuple[dict[int, dict[str, Any]], dict[int, list[dict[str, Any]]]] | None:
    """Images by id and annotations by image id.

    Sets ``found.read``; a file that cannot be used gives None and is added to ``found.problems`` instead.
    """
    try:
        content = annotations_of(inside(tree.root, path))
    except ValueError as error:
        found.problems.append(problem_of(tree, error))
        return None
    found.read = f"{path} ({(tree.size(path) or 0) / 1e6:.1f} MB)"
    return content


def size_of(image: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) of an image entry, None if its fields are missing or malformed."""
    try:
        return json_files.size_of(image, Path())
    except ValueError:
        return None


def images_below(tree: Tree, folder: str) -> Iterable[str]:
    """Paths of the image files in a folder and its subfolders."""
    yield from (f"{folder}/{name}" for name in tree.names(folder) if name.lower().endswith(IMAGES))
    for below in tree.folders(folder):
        yield from images_below(tree, f"{folder}/{below}")
