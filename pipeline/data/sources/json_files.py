"""Annotation files in JSON, checked: what is wrong with one is a ValueError that names file, entry and field.

COCO's files and those that Moon et al. wrote for MuCo-3DHP and MuPoTS-3D have one form: lists of images and of
annotations, which name their image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.sources.base import unread


def load_json(path: Path) -> Any:
    """Content of a JSON file; ValueError naming the file when it is missing, unreadable or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except OSError as error:
        raise ValueError(unread(error)) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def annotations_of(path: Path) -> tuple[dict[int, dict[str, Any]], dict[int, list[dict[str, Any]]]]:
    """A COCO-like file as (images by id, annotations by image id); the last file read stays in memory.

    Raises:
        ValueError: naming the file, when it is no JSON, has no such lists, or names an image twice.
    """
    return _annotations_of(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # the shards that one process reads share the file, which takes long to parse
def _annotations_of(path: Path, changed: int) -> tuple[dict[int, Any], dict[int, list[Any]]]:
    content = coco_like(path)
    annotations: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    return {image["id"]: image for image in content["images"]}, annotations


def coco_like(path: Path) -> dict[str, Any]:
    """Content of a COCO-like file, in which every entry of ``images`` and ``annotations`` has its place.

    Raises:
        ValueError: naming file, entry and field: no JSON, no such lists, an id or file name that is missing, of
            another kind or appears twice, an annotation of no image.
    """
    content = load_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: found {type(content).__name__}, wanted an object with images and annotations")
    lists = ("images", "annotations")
    ids = {name: [_identity(*entry, path) for entry in _entries(content, name, path)] for name in lists}
    images, names = set(ids["images"]), set()
    for image in content["images"]:
        name = image.get("file_name")
        if not isinstance(name, str) or not Path(name).name:
            raise _wrong(image, "file_name", path, "the name of a file")
        names.add(name)
    if not len(ids["images"]) == len(images) == len(names):
        found = f"{len(ids['images'])} images share {len(images)} ids and {len(names)} file names"
        raise ValueError(f"{path}: {found}, wanted one of each per image")
    if len(ids["annotations"]) > (different := len(set(ids["annotations"]))):
        raise ValueError(f"{path}: {len(ids['annotations'])} annotations share {different} ids, wanted one for each")
    for annotation in content["annotations"]:
        if whole(annotation, "image_id", path) not in images:
            raise _wrong(annotation, "image_id", path, "the id of one of the images")
    return content


def _entries(content: dict[str, Any], name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(Place, entry) of a list of objects."""
    if not isinstance(content.get(name), list):
        raise ValueError(f"{path}: {name}: found {_found(content, name)}, wanted a list")
    for i, entry in enumerate(content[name]):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: {name}[{i}]: found {type(entry).__name__}, wanted an object")
        yield f"{name}[{i}]", entry


def _identity(place: str, entry: dict[str, Any], path: Path) -> int:
    id_ = entry.get("id")
    if type(id_) is not int or not 0 <= id_ < 2**63:
        raise ValueError(f"{path}: {place}: id: found {_found(entry, 'id')}, wanted a whole number from 0")
    return id_


def whole(entry: Mapping[str, Any], field: str, path: Path) -> int:
    """A field of an image or annotation that is a whole number; ValueError naming file, entry and field if not."""
    value = entry.get(field)
    if type(value) is not int:
        raise _wrong(entry, field, path, "a whole number")
    return value


def flag(entry: Mapping[str, Any], field: str, path: Path) -> bool:
    """A field that is 0 or 1; ValueError naming file, entry and field if not."""
    value = entry.get(field)
    if not isinstance(value, int) or value not in (0, 1):
        raise _wrong(entry, field, path, "0 or 1")
    return bool(value)


def size_of(image: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """(height, width) in pixels as an image's entry says; ValueError naming file, entry and field."""
    return whole(image, "height", path), whole(image, "width", path)


def numbers(entry: Mapping[str, Any], field: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """A field of an image or annotation as finite float64 of that shape, which may be written as one flat list.

    Raises:
        ValueError: naming file, entry and field, when it is absent, is not numbers, has another shape or holds NaN.
    """

    def refuse(found: str) -> ValueError:
        return _wrong(entry, field, path, f"numbers of shape {shape}", found)

    if field not in entry:
        raise refuse("nothing")
    try:
        value = np.array(entry[field])
    except ValueError as error:
        raise refuse("lists of different lengths") from error
    if value.size != math.prod(shape):
        raise refuse(f"size {value.size}")
    if value.dtype.kind not in "biuf":  # MuCo says true and false of what is visible
        raise refuse("values that are no numbers")
    if value.ndim > 1 and _bare(value.shape) != _bare(shape):  # x, y of a joint apart in two lists, for example
        raise refuse(f"shape {value.shape}")
    value = value.astype(np.float64).reshape(shape)
    if not np.isfinite(value).all():
        raise refuse("NaN or infinity")
    return value


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of length 1, which say nothing."""
    return tuple(n for n in shape if n != 1)


def _wrong(entry: Mapping[str, Any], field: str, path: Path, wanted: str, found: str = "") -> ValueError:
    """What is wrong with a field of an image or annotation, naming file, entry and field."""
    found = found or _found(entry, field)
    return ValueError(f"{path}: entry {entry.get('id')}: {field}: found {found}, wanted {wanted}")


def _found(entry: Mapping[str, Any], field: str) -> str:
    return repr(entry[field])[:40] if field in entry else "nothing"
