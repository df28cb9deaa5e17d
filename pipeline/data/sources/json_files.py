"""Annotation files in JSON, checked: a fault in one is a ValueError that names the file, the entry and the field.

COCO's files and those that Moon et al. wrote for MuCo-3DHP and MuPoTS-3D have the same form: a list of images, and a
list of annotations that refer to an image by its id.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from das.fields import json_kind
from pipeline.infra.regular_files import leads_out, read_file, unread


def load_json(path: Path) -> Any:
    """Content of a JSON file; ValueError naming the file when it is missing, unreadable, too large or not JSON."""
    try:
        return json.loads(read_file(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except OSError as error:
        raise ValueError(unread(error)) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def annotations_of(path: Path) -> tuple[dict[int, dict[str, Any]], dict[int, list[dict[str, Any]]]]:
    """A COCO-like file as (images by id, annotations by image id); the last file read stays in memory.

    Raises:
        ValueError: as ``coco_like``.
    """
    return _annotations_of(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # the chunks that one process reads share the file, which takes long to parse
def _annotations_of(path: Path, changed: int) -> tuple[dict[int, Any], dict[int, list[Any]]]:
    content = coco_like(path)
    annotations: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    return {image["id"]: image for image in content["images"]}, annotations


def coco_like(path: Path) -> dict[str, Any]:
    """Content of a COCO-like file, with checked ids, file names and references from annotations to images.

    Raises:
        ValueError: naming file, entry and field: the file is not JSON or has no lists ``images`` and ``annotations``;
            an id or file name is missing, of another type or appears twice; an annotation refers to no image.
    """
    content = load_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: found {json_kind(content)}, wanted an object with images and annotations")
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
        if whole_number(annotation, "image_id", path) not in images:
            raise _wrong(annotation, "image_id", path, "the id of one of the images")
    return content


def _entries(content: dict[str, Any], name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, entry) for each entry of a list of objects, such as ("images[3]", {...})."""
    if not isinstance(content.get(name), list):
        raise ValueError(f"{path}: {name}: found {_found(content, name)}, wanted a list")
    for i, entry in enumerate(content[name]):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: {name}[{i}]: found {json_kind(entry)}, wanted an object")
        yield f"{name}[{i}]", entry


def _identity(place: str, entry: dict[str, Any], path: Path) -> int:
    id_ = entry.get("id")
    if type(id_) is not int or not 0 <= id_ < 2**63:
        raise ValueError(f"{path}: {place}: id: found {_found(entry, 'id')}, wanted a whole number from 0")
    return id_


def named_file(entry: Mapping[str, Any], field: str, folder: Path, root: Path, path: Path) -> Path:
    """Path of the file that a field names, relative to ``folder``.

    Raises:
        ValueError: the name leads out of ``root``; names file, entry and field.
    """
    file = folder / entry[field]
    lexically = os.path.normpath(file).startswith(f"{root}/")  # a look at every file is slow on network disks
    if not lexically and "\0" not in entry[field] and leads_out(root, file) is not None:
        raise _wrong(entry, field, path, f"the name of a file inside of {root}")
    return file


def whole_number(entry: Mapping[str, Any], field: str, path: Path) -> int:
    """A field of an image or annotation that is a whole number; ValueError naming file, entry and field if not."""
    value = entry.get(field)
    if type(value) is not int:  # isinstance would accept true and false
        raise _wrong(entry, field, path, "a whole number")
    return value


def flag(entry: Mapping[str, Any], field: str, path: Path) -> bool:
    """A field that is 0 or 1; ValueError naming file, entry and field if not."""
    value = entry.get(field)
    if not isinstance(value, int) or value not in (0, 1):
        raise _wrong(entry, field, path, "0 or 1")
    return bool(value)


def size_of(image: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """(height, width) in pixels of an image's entry; ValueError naming file, entry and field."""
    return whole_number(image, "height", path), whole_number(image, "width", path)


def box_of(annotation: Mapping[str, Any], path: Path) -> np.ndarray:
    """Box (4,) x0 y0 x1 y1 of an annotation whose ``bbox`` is x, y, width, height; ValueError as ``numbers``."""
    xywh = numbers(annotation, "bbox", (4,), path)
    return np.concatenate([xywh[:2], xywh[:2] + xywh[2:]])


def numbers(entry: Mapping[str, Any], field: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """A field of an image or annotation as finite float64 of that shape; the file may have it as one flat list.

    Raises:
        ValueError: naming file, entry and field, when it is absent, is not numbers, has another shape or NaN in it.
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
    if value.dtype.kind not in "biuf":  # MuCo has booleans for visible joints
        raise refuse("values that are no numbers")
    if value.ndim > 1 and _bare(value.shape) != _bare(shape):  # a transposed (2, J) list, for example
        raise refuse(f"shape {value.shape}")
    value = value.astype(np.float64).reshape(shape)
    if not np.isfinite(value).all():
        raise refuse("NaN or infinity")
    return value


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of length 1."""
    return tuple(n for n in shape if n != 1)


def _wrong(entry: Mapping[str, Any], field: str, path: Path, wanted: str, found: str = "") -> ValueError:
    """The error of a field of an image or annotation, naming file, entry and field."""
    found = found or _found(entry, field)
    return ValueError(f"{path}: entry {entry.get('id')}: {field}: found {found}, wanted {wanted}")


def _found(entry: Mapping[str, Any], field: str) -> str:
    return repr(entry[field])[:40] if field in entry else "nothing"
