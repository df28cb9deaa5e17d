"""Your own images: one JSON object a line, and a skeleton (docs/bring_your_own.md).

    ROOT/skeleton.json                       name, joints, bones, root (das.skeleton.Skeleton.to_json)
    ROOT/train.jsonl, val.jsonl, test.jsonl  an image a line; a split manifest may name and divide other files
    ROOT/...                                 images, by the paths that the lines give
    ROOT/terms.txt                           the data's terms in a sentence or two; optional

A line:

    image       path of a JPEG or PNG, relative to ROOT
    K           [fx, fy, cx, cy] or 3 x 3, pixels of that image; null if the camera is unknown
    distortion  k1 k2 p1 p2 k3, or 4, 8, 12 or 14 numbers in OpenCV's order; may be absent
    people      a list; empty if the image shows no person

and each of its people:

    joints_uv   J x [u, v], pixels of the image as it is stored; [0, 0] for a joint without a label
    joints_cam  J x [x, y, z], millimetres, camera frame (x right, y down, z forward); null if there are only 2D joints
    state       J numbers: 0 no label, 1 occluded, 2 visible
    id, bbox (x0 y0 x1 y1 pixels), ignore, valid    may be absent: then place in the list, box of the labelled joints,
                                                    false, true

Frame numbers are line numbers, counted from 0 without empty lines. Every row has the joint set's definition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from das.camera import lens_coefficients
from das.fields import json_kind
from das.skeleton import Skeleton, read_skeleton
from pipeline.data.record import UNLABELLED, VISIBLE, Record
from pipeline.data.sources.base import (
    Chunk,
    ChunkFiles,
    DroppedFrame,
    NoImage,
    Person,
    clipped_box,
    drop_frame,
    make_chunks,
    make_record,
    pinhole,
    read_image,
    require_file,
    require_folder,
)
from pipeline.data.sources.json_files import named_file, numbers
from pipeline.data.splits import SPLITS as SPLIT_NAMES
from pipeline.data.splits import Part, SplitManifest
from pipeline.infra.regular_files import check_inside, inside, regular_file, unread

TERMS = "data of your own"
SKELETONS: tuple[Skeleton, ...] = ()  # skeleton.json defines it
SPLITS = SplitManifest("custom", tuple(Part(split, split) for split in SPLIT_NAMES))

CAMERA = "0"
"""Name of the camera of every image."""
_MAX_LINE_BYTES, _MAX_SKELETON_BYTES = 1 << 24, 1 << 20
_IMAGE = re.compile(rb'"image"\s*:\s*("(?:[^"\\]|\\.)*")')
_LINE_FIELDS = {"image", "K", "distortion", "people"}
_PERSON_FIELDS = {"joints_uv", "joints_cam", "state", "id", "bbox", "ignore", "valid"}


def chunks(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> list[Chunk]:
    """The lines of one split's files, in order; absent files give none.

    Raises:
        ValueError: no such folder, no skeleton or a malformed one, or none of the manifest's files, or an image leads
            out of the folder.
    """
    folder = require_folder(root, "custom")
    skeleton_of(folder)
    require_file(folder, (annotation_file(part.sequence) for part in splits.parts), "custom: annotations")
    found = []
    for part in splits.of(split):
        path = inside(folder, annotation_file(part.sequence))
        if path.is_file():
            taken = splits.select(part, range(len(_starts_of(path))))
            try:
                check_inside(folder, _images(folder, path))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            found += make_chunks("custom", folder, part, CAMERA, taken, _typical_bytes(folder, path, taken))
    return found


def listed_files(splits: SplitManifest) -> Iterable[str]:
    """The skeleton and the files of lines."""
    return ["skeleton.json", *(annotation_file(part.sequence) for part in splits.parts)]


def files(chunk: Chunk) -> ChunkFiles:
    """The skeleton, the file of lines and the images that its readable lines name."""
    file, images = annotation_file(chunk.sequence), []
    for frame in chunk.frames:
        with suppress(ValueError):  # ``records`` reports the line
            images.append(_line(inside(chunk.root, file), frame)["image"])
    return ChunkFiles(("skeleton.json", file), tuple(images))


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every line of the chunk.

    Raises:
        ValueError: a line is malformed; names the file, the image (counted from 1 without empty lines), the field,
            what was found and what was wanted.
    """
    folder = Path(chunk.root)
    skeleton, path = skeleton_of(folder), inside(folder, annotation_file(chunk.sequence))
    for frame in chunk.frames:
        line = _line(path, frame)
        image = read_image(folder / line["image"], folder)
        if isinstance(image, NoImage):
            yield drop_frame(chunk, frame, image)
            continue
        K = _intrinsics(line, path)
        distortion = _distortion(line, path)
        people = [_person(entry, i, line, skeleton, image.size, path) for i, entry in enumerate(line["people"])]
        in_3d = {person.joints_cam is not None for person in people}
        if len(in_3d) == 2 or (in_3d == {True} and K is None):
            found = "no K" if K is None else "some null"
            wanted = "3D joints of all people in the image, and K, or of none"
            raise ValueError(f"{path}: {line['id']}: joints_cam: found {found}, wanted {wanted}")
        yield make_record(chunk, frame, image, image.size, skeleton, people, K=K, distortion=distortion)


def annotation_file(sequence: str) -> str:
    """Path, relative to the root, of the lines of one sequence."""
    return f"{sequence}.jsonl"


def skeleton_of(folder: Path) -> Skeleton:
    """The joint set of skeleton.json; ValueError when it is missing, leads out of the folder or is malformed."""
    path = require_file(folder, ["skeleton.json"], "custom: skeleton")
    try:
        return read_skeleton(regular_file(path, _MAX_SKELETON_BYTES))
    except OSError as error:
        raise ValueError(unread(error)) from error


def _starts_of(path: Path) -> np.ndarray:
    return _read_starts(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # 8 bytes a line: a chunk's lines are found without reading those before them
def _read_starts(path: Path, changed: int) -> np.ndarray:
    """Offset of each line that is not empty, in bytes."""
    starts, at = [], 0
    for line in lines_of(path):
        if line.strip():
            starts.append(at)
        at += len(line)
    return np.array(starts, np.int64)


def lines_of(path: Path) -> Iterator[bytes]:
    """Every line of a file, one at a time.

    Raises:
        ValueError: no regular file, or a line that is too long to be an image and its people; names the file.
    """
    try:
        with regular_file(path).open("rb") as file:
            while line := file.readline(_MAX_LINE_BYTES + 1):
                if len(line) > _MAX_LINE_BYTES:
                    raise ValueError(f"{path}: a line of more than {_MAX_LINE_BYTES} bytes, wanted an image a line")
                yield line
    except OSError as error:
        raise ValueError(unread(error)) from error


def _images(folder: Path, path: Path) -> Iterator[Path]:
    """The images that the lines of a file name; a line that cannot be read is left to ``records``.

    Lines are not parsed as a whole, which takes a minute for a million.

    Raises:
        ValueError: an image is outside of the folder; names the file, the image and what was found.
    """
    for number, line in enumerate(line for line in lines_of(path) if line.strip()):
        if found := _IMAGE.search(line):
            try:
                entry = {"id": f"image {number + 1}", "image": json.loads(found[1])}
            except ValueError:
                continue
            yield named_file(entry, "image", folder, folder, path)


def _typical_bytes(folder: Path, path: Path, frames: tuple[int, ...], samples: int = 8) -> int:
    """Mean size of a few evenly spaced images, bytes."""
    sizes = []
    for frame in frames[:: max(1, len(frames) // samples)]:
        try:
            sizes.append((folder / _line(path, frame)["image"]).stat().st_size)
        except (ValueError, OSError):  # ``records`` reports the line
            continue
    return sum(sizes) // max(1, len(sizes))


def _line(path: Path, frame: int) -> dict[str, Any]:
    """Line number ``frame`` of those that are not empty; ``id`` is added, its name in error messages."""
    with path.open("rb") as file:
        file.seek(int(_starts_of(path)[frame]))
        text = file.readline(_MAX_LINE_BYTES)
    where = f"image {frame + 1}"
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {where}: not JSON ({error})") from error
    _check_fields(line, _LINE_FIELDS, {"image", "K", "people"}, path, where)
    if not isinstance(line["image"], str) or not isinstance(line["people"], list):
        raise ValueError(f"{path}: {where}: wanted image as a path and people as a list")
    return {**line, "id": where}


def _check_fields(entry: Any, known: set[str], needed: set[str], path: Path, where: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: {where}: found {json_kind(entry)}, wanted an object")
    if wrong := sorted(set(entry) - known) or sorted(needed - set(entry)):
        problem = "unknown" if wrong[0] in entry else "missing"
        raise ValueError(f"{path}: {where}: field {wrong[0]!r} is {problem}, wanted {', '.join(sorted(known))}")


def _intrinsics(line: dict[str, Any], path: Path) -> np.ndarray | None:
    K = line["K"]
    if K is None:
        return None
    four = isinstance(K, list) and len(K) == 4
    return pinhole(numbers(line, "K", (4,), path)) if four else numbers(line, "K", (3, 3), path)


def _distortion(line: dict[str, Any], path: Path) -> np.ndarray | None:
    """(5,) or (12,), see ``das.camera.lens_coefficients``; None if it is absent."""
    if line.get("distortion") is None:
        return None
    try:
        return lens_coefficients(line["distortion"])
    except (ValueError, TypeError, OverflowError) as error:
        what = str(error).removeprefix("distortion: ")
        raise ValueError(f"{path}: {line['id']}: distortion: {what}") from error


def _person(
    entry: Any, place: int, line: dict[str, Any], skeleton: Skeleton, size: tuple[int, int], path: Path
) -> Person:
    where = f"{line['id']}, person {place + 1}"
    _check_fields(entry, _PERSON_FIELDS, {"joints_uv", "joints_cam", "state"}, path, where)
    joints, entry = len(skeleton), {**entry, "person": entry.get("id", place), "id": where}
    uv = numbers(entry, "joints_uv", (joints, 2), path)
    state = numbers(entry, "state", (joints,), path)
    if not set(state.tolist()) <= {UNLABELLED, 1, VISIBLE}:
        raise ValueError(f"{path}: {where}: state: found {state.tolist()}, wanted 0, 1 or 2")
    flags = {"ignore": entry.get("ignore", False), "valid": entry.get("valid", True)}
    if not all(isinstance(flag, bool) for flag in flags.values()) or type(entry["person"]) is not int:
        raise ValueError(f"{path}: {where}: wanted id as a whole number, ignore and valid as true or false")
    given = entry.get("bbox") is not None
    return Person(
        id=entry["person"],
        joints_uv=uv,
        joints_cam=None if entry["joints_cam"] is None else numbers(entry, "joints_cam", (joints, 3), path),
        state=state.astype(np.uint8),
        bbox=numbers(entry, "bbox", (4,), path) if given else clipped_box(uv[state > UNLABELLED], size),
        **flags,
    )
