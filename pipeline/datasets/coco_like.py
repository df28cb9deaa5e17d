"""Fields of an image or annotation in a COCO-like file (COCO, MuCo-3DHP, MuPoTS-3D)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def whole_number(entry: Mapping[str, Any], field: str, path: Path) -> int:
    """A field as a whole number that a row can hold; ValueError names file, entry and field."""
    value: Any = entry.get(field)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or not -(2**63) <= value < 2**63:
        raise ValueError(f"{path}: entry {entry.get('id')}: {field}: found {value!r:.40}, wanted a whole number")
    return int(value)


def size_of(image: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """(height, width) pixels of an image entry; ValueError as ``whole_number``."""
    return whole_number(image, "height", path), whole_number(image, "width", path)
