"""The Parquet row, schema version 2: one image with its N people, native joint set, metric units.

A row carries what the source says and nothing derived from a recipe: joint conversion, visibility rules
and drops belong to those who read it. Lengths are millimetres in the camera frame (x right, y down, z
forward), pixels refer to the stored image. Lists are plain Arrow lists: tensor extension types turn out
fixed-shape for ragged people.

``Record`` is the row in NumPy; ``to_table`` and ``from_row`` go to Parquet and back, and ``validate`` runs on
both ways, so a wrong unit is met where it enters and not as a bad loss. ``to_sample`` is what training and
evaluation see.

Versions: a column says since which version it exists and what it is taken for in older rows, so rows of every version
in ``READABLE`` are read as they lie, and mixed. Version 2 added ``split_manifest``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from das.camera import intrinsics_from_fov
from das.sample import Sample
from das.skeleton import skeleton_named
from das.transforms import inside

VERSION = 2
READABLE = (1, 2)

# Field of view taken for images whose camera is unknown (COCO). Their people have no depth, so it decides
# nothing that is supervised.
ASSUMED_FOV_DEGREES = 60.0

UNLABELLED, OCCLUDED, VISIBLE = 0, 1, 2


@dataclass(frozen=True)
class Column:
    """One column of the row: what it holds, in which shape and unit, and where the value comes from."""

    name: str
    type: pa.DataType
    shape: str
    unit: str
    meaning: str
    filled_by: str
    nullable: bool = False
    since: int = 1
    """First schema version that has it."""
    before: str | None = None
    """What it is taken for in rows of an older version."""


def _people(value: pa.DataType) -> pa.DataType:
    return pa.list_(pa.list_(value))


COLUMNS = (
    Column("key", pa.string(), "", "", "source/sequence/camera/frame", "every source"),
    Column("source", pa.string(), "", "", "data set", "every source"),
    Column("sequence", pa.string(), "", "", "recording, or image folder", "every source"),
    Column("camera", pa.string(), "", "", "camera of the recording", "every source"),
    Column("frame", pa.int64(), "", "", "frame number or image id", "every source"),
    Column("split", pa.string(), "", "", "train, val or test", "split manifest"),
    Column("activity", pa.string(), "", "", "what is scored together, or empty", "split manifest"),
    Column("skeleton", pa.string(), "", "", "joint set of the J joints", "every source"),
    Column("image", pa.binary(), "", "", "encoded JPEG or PNG, untouched", "every source"),
    Column("image_sha256", pa.string(), "", "", "hash of those bytes", "every source"),
    Column("height", pa.int32(), "", "px", "image height", "image header"),
    Column("width", pa.int32(), "", "px", "image width", "image header"),
    Column("K", pa.list_(pa.float64()), "9", "px", "intrinsics, row by row", "all but COCO", True),
    Column("distortion", pa.list_(pa.float64()), "5", "1", "k1 k2 p1 p2 k3", "Panoptic layout", True),
    Column("R", pa.list_(pa.float64()), "9", "1", "X_cam = R X_world + t", "Panoptic layout", True),
    Column("t_mm", pa.list_(pa.float64()), "3", "mm", "X_cam = R X_world + t", "Panoptic layout", True),
    Column("person_id", pa.list_(pa.int64()), "N", "", "the source's own id", "every source"),
    Column("joints_uv", _people(pa.float32()), "N x 2J", "px", "in the stored image", "every source"),
    Column("joints_cam", _people(pa.float32()), "N x 3J", "mm", "camera frame", "all but COCO", True),
    Column("joints_cam_univ", _people(pa.float32()), "N x 3J", "mm", "universal skeleton", "MuPoTS", True),
    Column("confidence", _people(pa.float32()), "N x J", "1", "-1 is missing", "Panoptic layout", True),
    Column("state", _people(pa.uint8()), "N x J", "", "0 unlabelled, 1 occluded, 2 visible", "every source"),
    Column("bbox", _people(pa.float32()), "N x 4", "px", "x0 y0 x1 y1", "every source"),
    Column("ignore", pa.list_(pa.bool_()), "N", "", "crowd, or person without joints", "every source"),
    Column("valid", pa.list_(pa.bool_()), "N", "", "the source stands behind it", "every source"),
    Column("split_manifest", pa.string(), "", "", "which table of splits", "split manifest", since=2, before=""),
)

SCHEMA = pa.schema(
    [pa.field(c.name, c.type, nullable=c.nullable) for c in COLUMNS],
    metadata={
        "schema_version": str(VERSION),
        "units": json.dumps({c.name: c.unit for c in COLUMNS if c.unit}),
        "axes": "camera frame: x right, y down, z forward; pixel (0, 0) is the centre of the top left pixel",
    },
)


def describe() -> str:
    """The row as a table to read: column, type, shape, unit, who fills it, meaning."""
    head = ("column", "type", "shape", "unit", "filled by", "meaning")
    rows = [(c.name, _type_name(c), c.shape, c.unit, c.filled_by, c.meaning) for c in COLUMNS]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in (head, *rows))
    return "\n".join((f"schema version {VERSION}", *lines))


def _type_name(column: Column) -> str:
    name = str(column.type).replace("list<element: ", "list<").replace("list<item: ", "list<")
    return name + (" or null" if column.nullable else "")


@dataclass
class Record:
    """One image and its N people; the columns of the row as NumPy arrays.

    Attributes:
        key: ``source/sequence/camera/frame``, see ``key_of``.
        split: train, val or test. activity: what a benchmark scores together, or "".
        split_manifest: identity of the table that put it there (``SplitManifest.id``); "" in rows of schema version 1.
        skeleton: name of the joint set (das.skeleton) of the J joints.
        image: encoded JPEG or PNG bytes; empty when read without images. image_sha256: their hash.
        K: (3, 3) float64 pixels, distortion: (5,), R: (3, 3) and t_mm: (3,) of ``X_cam = R X_world + t``; or
        None.
        person_id: (N,) int64.
        joints_uv: (N, J, 2) float32 pixels of the stored (distorted) image; anything finite where state is 0.
        joints_cam: (N, J, 3) float32 mm, camera frame, or None; anything finite where state is 0.
        joints_cam_univ: the same of the MuPoTS universal skeleton, or None.
        confidence: (N, J) float32, the source's own, or None.
        state: (N, J) uint8, 0 unlabelled, 1 occluded, 2 visible; being inside the image is derived, not
        stored.
        bbox: (N, 4) float32 pixels, x0 y0 x1 y1.
        ignore: (N,) bool, crowd or person without joints. valid: (N,) bool, MuPoTS isValidFrame and its like.
    """

    key: str
    source: str
    sequence: str
    camera: str
    frame: int
    split: str
    activity: str
    skeleton: str
    image: bytes
    image_sha256: str
    height: int
    width: int
    K: np.ndarray | None
    distortion: np.ndarray | None
    R: np.ndarray | None
    t_mm: np.ndarray | None
    person_id: np.ndarray
    joints_uv: np.ndarray
    joints_cam: np.ndarray | None
    joints_cam_univ: np.ndarray | None
    confidence: np.ndarray | None
    state: np.ndarray
    bbox: np.ndarray
    ignore: np.ndarray
    valid: np.ndarray
    split_manifest: str = ""

    def __len__(self) -> int:
        return len(self.person_id)

    def content_hash(self) -> str:
        """Hash of every field; the image enters by its own hash. Equal for equal records on any machine."""
        parts: list[bytes] = []
        for name in _HASHED:
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                # Little-endian bytes of the schema's own type: the same on every platform.
                parts += f"{name}{value.shape}=".encode(), value.astype(_LITTLE[name], copy=False).tobytes()
            else:
                parts.append(f"{name}={value}\n".encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()


def key_of(source: str, sequence: str, camera: str, frame: int) -> str:
    """The identity of an image: never a file's basename, which different sequences share."""
    return f"{source}/{sequence}/{camera}/{frame:08d}"


# Array columns: NumPy type and shape by letters; N and J are the record's own.
_ARRAYS: dict[str, tuple[type[np.generic], tuple[str | int, ...]]] = {
    "K": (np.float64, (3, 3)),
    "distortion": (np.float64, (5,)),
    "R": (np.float64, (3, 3)),
    "t_mm": (np.float64, (3,)),
    "person_id": (np.int64, ("N",)),
    "joints_uv": (np.float32, ("N", "J", 2)),
    "joints_cam": (np.float32, ("N", "J", 3)),
    "joints_cam_univ": (np.float32, ("N", "J", 3)),
    "confidence": (np.float32, ("N", "J")),
    "state": (np.uint8, ("N", "J")),
    "bbox": (np.float32, ("N", 4)),
    "ignore": (np.bool_, ("N",)),
    "valid": (np.bool_, ("N",)),
}
_LITTLE = {name: np.dtype(dtype).newbyteorder("<") for name, (dtype, _) in _ARRAYS.items()}
_HASHED = tuple(c.name for c in COLUMNS if c.name != "image")
_NULLABLE = {c.name for c in COLUMNS if c.nullable}
_TEXTS = tuple(c.name for c in COLUMNS if c.type == pa.string())


def to_row(record: Record) -> dict[str, Any]:
    """The record as plain Python values in the columns of ``SCHEMA``; per-person arrays are flattened."""
    row = {}
    for name in SCHEMA.names:
        value = getattr(record, name)
        if isinstance(value, np.ndarray):
            value = [person.ravel().tolist() for person in value] if _by_person(name) else value.ravel().tolist()
        row[name] = value
    return row


def _by_person(name: str) -> bool:
    """Whether a column is a list of lists: one for each person."""
    letters = _ARRAYS[name][1]
    return letters[0] == "N" and len(letters) > 1


def to_table(records: Iterable[Record], where: str = "", validated: bool = False) -> pa.Table:
    """Records as an Arrow table of ``SCHEMA``, made column by column from whole arrays.

    Args:
        records: any number.
        where: the file, for error messages.
        validated: ``validate`` has seen them all; otherwise it sees them here.

    Raises:
        ValueError: from ``validate``.
    """
    records = list(records)
    for record in () if validated else records:
        validate(record, where)
    columns = [_column(field, [getattr(record, field.name) for record in records]) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _column(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    """One value per row (None is null) as an Arrow array; lists are made of offsets into all numbers together."""
    if field.name not in _ARRAYS:
        return pa.array(values, field.type)
    dtype = _ARRAYS[field.name][0]
    present = [value for value in values if value is not None]
    flat = np.concatenate([np.empty(0, dtype), *(value.ravel() for value in present)])
    inner = pa.array(flat, field.type.value_type.value_type if _by_person(field.name) else field.type.value_type)
    by_row = [0 if v is None else len(v) if _by_person(field.name) else v.size for v in values]
    if _by_person(field.name):
        by_person = np.repeat([v[0].size if len(v) else 0 for v in present], [len(v) for v in present])
        inner = pa.ListArray.from_arrays(_offsets(by_person), inner)
    absent = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(_offsets(by_row), inner, mask=absent if len(present) < len(values) else None)


def _offsets(lengths: Sequence[int] | np.ndarray) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def from_row(row: Mapping[str, Any], where: str = "") -> Record:
    """A row (plain lists, or arrays as Ray Data hands them over) as a validated ``Record``.

    Without the column ``image`` (it is by far the largest) the record has empty bytes and all else.

    Raises:
        ValueError: for missing columns, values of a wrong type or shape, and all that ``validate`` refuses;
            the message names file, key and column, what was found and what is wanted.
    """
    key = row.get("key", "?")
    missing = [c.name for c in COLUMNS if c.name not in row and c.name != "image" and c.before is None]
    if missing:
        raise _fault(where, key, missing[0], "no such column", f"all columns of schema version {VERSION}")
    sizes = {
        "N": len(_listed(row["person_id"], where, key, "person_id")),
        "J": _joint_count(str(row["skeleton"]), where, key),
    }
    values: dict[str, Any] = {name: row.get(name) for name in SCHEMA.names if name != "image"}
    for column in COLUMNS:
        if column.before is not None and values[column.name] is None:  # null where versions are read together
            values[column.name] = column.before
    for name in _ARRAYS:
        if values[name] is not None:
            values[name] = _array(name, values[name], sizes, where, key)
    for name in ("frame", "height", "width"):
        if not isinstance(values[name], (int, np.integer)):
            raise _fault(where, key, name, repr(values[name]), "an integer")
        values[name] = int(values[name])
    image = row.get("image")
    record = Record(**values, image=b"" if image is None else image)
    validate(record, where, with_image="image" in row)
    return record


def _listed(value: Any, where: str, key: str, column: str) -> list[Any]:
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise _fault(where, key, column, type(value).__name__, "a list")
    return list(value)


def _array(name: str, value: Any, sizes: dict[str, int], where: str, key: str) -> np.ndarray:
    """The list of column ``name`` (flat, or one flat list per person) as its array; refuses all else."""
    dtype, letters = _ARRAYS[name]
    shape = tuple(sizes[x] if isinstance(x, str) else x for x in letters)
    per_person = letters[0] == "N" and len(shape) > 1
    entries, width = (shape[0], math.prod(shape[1:])) if per_person else (math.prod(shape), 1)
    parts = _listed(value, where, key, name)
    found = sorted({np.size(part) for part in parts})
    if len(parts) != entries or found not in ([], [width]):
        wanted = f"{entries} lists of {width}" if per_person else f"{entries} values"
        raise _fault(where, key, name, f"{len(parts)} entries of sizes {found}", wanted)
    array = np.array([np.ravel(part) for part in parts])
    accepted = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[np.dtype(dtype).kind]
    if array.size and array.dtype.kind not in accepted:
        raise _fault(where, key, name, f"values of type {array.dtype}", np.dtype(dtype).name)
    return array.astype(dtype).reshape(shape)


def _joint_count(skeleton: str, where: str, key: str) -> int:
    try:
        return len(skeleton_named(skeleton))
    except ValueError as error:
        raise _fault(where, key, "skeleton", str(error), "a joint set of das.skeleton") from error


class RowError(ValueError):
    """A row that cannot be what it says; ``column`` is where."""

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column


def _fault(where: str, key: object, column: str, found: str, wanted: str) -> RowError:
    return RowError(f"{where or 'record'}: {key}: column {column}: found {found}, wanted {wanted}", column)


def check_schema(schema: pa.Schema, where: str) -> None:
    """Refuses a Parquet file of a schema version that is not readable, or whose columns differ in name or type.

    Raises:
        ValueError: naming the file, the column, what was found and what is wanted.
    """
    version = (schema.metadata or {}).get(b"schema_version", b"none").decode()
    check_version(int(version) if version.isdecimal() else version, where)
    for column in COLUMNS:
        if column.since > int(version):
            continue
        if column.name not in schema.names:
            raise ValueError(f"{where}: column {column.name} is missing, wanted {column.type}")
        if (found := schema.field(column.name).type) != column.type:
            raise ValueError(f"{where}: column {column.name} has type {found}, wanted {column.type}")


def check_version(found: object, where: str, source: str = "SOURCE") -> None:
    """Refuses a schema version that this code does not read, naming the command that makes one that it does.

    Raises:
        ValueError: naming the file, the version found and those that are readable.
    """
    if found not in READABLE:
        readable = " or ".join(map(str, READABLE))
        again = f"das prepare --source {source} --root ORIGINALS --out ANOTHER_FOLDER"
        raise ValueError(f"{where}: schema version {found}, wanted {readable}: prepare the data again by `{again}`")


def validate(record: Record, where: str = "", with_image: bool = True) -> None:
    """Refuses a record that cannot be what it says: types, shapes, ranges of units, identity, image bytes.

    Ranges are wide enough for every camera and person and still tell millimetres from centimetres and metres:
    the longest bone in an image lies between 100 mm and 10 m, its farthest joint between 0.5 and 200 m.

    Args:
        record: what to check.
        where: file name for the message.
        with_image: False for records read without their image column.

    Raises:
        ValueError: ``file: key: column: found, wanted``.
    """

    def refuse(column: str, found: object, wanted: str) -> None:
        raise _fault(where, record.key, column, str(found), wanted)

    for name in _TEXTS:
        if not isinstance(getattr(record, name), str):
            refuse(name, type(getattr(record, name)).__name__, "a string")
    for name in ("frame", "height", "width"):
        if type(getattr(record, name)) is not int:
            refuse(name, type(getattr(record, name)).__name__, "an int")
    key = key_of(record.source, record.sequence, record.camera, record.frame)
    if record.key != key:
        refuse("key", repr(record.key), repr(key))
    if record.split not in ("train", "val", "test"):
        refuse("split", repr(record.split), "train, val or test")
    if not 0 <= record.frame < 2**63:
        refuse("frame", record.frame, "0 to 2^63 - 1")
    if record.height < 1 or record.width < 1:
        refuse("height", f"{record.width}x{record.height}", "an image size above 0")

    joints = _joint_count(record.skeleton, where, record.key)
    for name, (dtype, letters) in _ARRAYS.items():
        value = getattr(record, name)
        if value is None:
            if name not in _NULLABLE:
                refuse(name, "null", "a value")
            continue
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            refuse(name, getattr(value, "dtype", type(value).__name__), np.dtype(dtype).name)
        sizes = {"N": len(record.person_id), "J": joints}
        shape = tuple(sizes[x] if isinstance(x, str) else x for x in letters)
        if value.shape != shape:
            refuse(name, f"shape {value.shape}", f"{shape}, J = {joints} joints of {record.skeleton}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            refuse(name, "NaN or infinity", "finite numbers (absence is state 0 or null)")

    _validate_camera(record, refuse)
    _validate_people(record, refuse)
    if with_image:
        _validate_image(record, refuse)


def _validate_camera(record: Record, refuse: Any) -> None:
    if record.K is not None:
        K, longest = record.K, max(record.height, record.width)
        if not np.array_equal(K[2], (0, 0, 1)):
            refuse("K", f"last row {K[2].tolist()}", "0 0 1")
        focals = K[0, 0], K[1, 1]
        if not (0.05 * longest <= min(focals) and max(focals) <= 100 * longest):
            wanted = f"{0.05 * longest:g} to {100 * longest} px for an image {longest} px long"
            refuse("K", f"focal lengths {focals[0]:g} and {focals[1]:g}", wanted)
    elif record.joints_cam is not None:
        refuse("K", "null beside joints_cam", "the camera of joints in 3D")
    if (record.R is None) != (record.t_mm is None):
        refuse("R", "only one of R and t_mm", "both or none")
    if record.R is not None:
        off = _off_a_rotation(record.R.tobytes())
        if off > 1e-3:  # calibrations are written with about 10 digits
            refuse("R", f"a matrix {off:.2g} off a rotation", "a rotation from world to camera")


@lru_cache(maxsize=64)  # all frames of a camera have the same
def _off_a_rotation(R: bytes) -> float:
    """How far a matrix (3, 3) float64 is off a rotation: largest entry of R R^T - 1, or infinity for a mirror."""
    matrix = np.frombuffer(R).reshape(3, 3)
    return float(np.abs(matrix @ matrix.T - np.eye(3)).max()) if np.linalg.det(matrix) > 0 else math.inf


def _validate_people(record: Record, refuse: Any) -> None:
    if (record.state > VISIBLE).any():
        refuse("state", int(record.state.max()), "0 unlabelled, 1 occluded or 2 visible")
    box = record.bbox
    if (box[:, :2] > box[:, 2:]).any():
        worst = box[(box[:, :2] > box[:, 2:]).any(axis=1)][0].tolist()
        refuse("bbox", worst, "x0 <= x1 and y0 <= y1")
    labelled = record.state > UNLABELLED
    for name in ("joints_cam", "joints_cam_univ"):
        joints = getattr(record, name)
        if joints is None or not labelled.any():
            continue
        depth = joints[..., 2][labelled]
        if depth.min() <= 0:
            refuse(name, f"a labelled joint at depth {depth.min():g}", "depth above 0 mm, z forward")
        if not 500 <= depth.max() <= 200_000:
            refuse(name, f"a farthest joint at depth {depth.max():g}", "500 to 200000 mm")
        longest = _longest_bone(record.skeleton, joints, labelled)
        if longest is not None and not 100 <= longest <= 10_000:
            refuse(name, f"a longest bone of {longest:g}", "100 to 10000 mm")


@lru_cache(maxsize=64)
def _bones(skeleton: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the two ends of every bone."""
    a, b = np.array(skeleton_named(skeleton).bone_indices).T
    return a, b


def _longest_bone(skeleton: str, joints: np.ndarray, labelled: np.ndarray) -> float | None:
    """Longest bone among people with at least half of their joints; None without such people.

    Joints of a face alone are too close together to tell centimetres from millimetres.
    """
    a, b = _bones(skeleton)
    whole = 2 * labelled.sum(axis=1) >= labelled.shape[1]
    known = labelled[:, a] & labelled[:, b] & whole[:, None]
    if not known.any():
        return None
    bones = joints[:, a] - joints[:, b]
    return float(np.sqrt(np.einsum("nbi,nbi->nb", bones, bones)[known].max()))


def _validate_image(record: Record, refuse: Any) -> None:
    if not isinstance(record.image, bytes):
        refuse("image", type(record.image).__name__, "bytes")
    try:
        size = image_size(record.image)
    except ValueError as error:
        refuse("image", str(error), "a whole JPEG or PNG")
    if size != (record.height, record.width):
        refuse("image", f"{size[1]}x{size[0]} pixels", f"{record.width}x{record.height} as the row says")
    if record.image_sha256 != hashlib.sha256(record.image).hexdigest():
        refuse("image_sha256", record.image_sha256, "the SHA-256 of the image bytes")


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) of an encoded JPEG or PNG, from its header alone; also sees whether its end is there.

    Raises:
        ValueError: the bytes are empty, no JPEG or PNG, or cut short.
    """
    if not data:
        raise ValueError("no bytes")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        if len(data) < 24 or b"IEND" not in data[-64:]:
            raise ValueError("a PNG that is cut short")
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if not data.startswith(b"\xff\xd8"):
        raise ValueError(f"bytes {data[:4].hex()} at the start")
    # Decoders fill the missing part of a cut JPEG with grey and succeed, so look for the end marker; some
    # writers append a few bytes of their own after it.
    if b"\xff\xd9" not in data[-4096:]:
        raise ValueError("a JPEG that is cut short")
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without frame header")


def decode_image(record: Record) -> np.ndarray:
    """The record's image as (H, W, 3) uint8 RGB.

    Raises:
        ValueError: naming the key, when it cannot be decoded or has another size than the row says.
    """
    # Annotations refer to the stored pixels, whatever an orientation tag says.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image_size(record.image)
        image = cv2.imdecode(np.frombuffer(record.image, np.uint8), flags)
    except (ValueError, cv2.error) as error:
        raise ValueError(f"{record.key}: image cannot be decoded: found {error}") from error
    if image is None or image.shape[:2] != (record.height, record.width):
        found = "no image" if image is None else f"{image.shape[1]}x{image.shape[0]} pixels"
        raise ValueError(f"{record.key}: image decodes to {found}, wanted {record.width}x{record.height}")
    return image


def left_out(record: Record) -> np.ndarray:
    """Why each of the N people can neither be learnt nor scored, "" for those who can: (N,) str.

    Ignore areas, people whose annotation the source does not stand behind, and people who miss a part of their
    root (COCO: one of the hips).
    """
    labelled = record.state > UNLABELLED
    root = list(skeleton_named(record.skeleton).root_indices)
    return np.select(
        [record.ignore, ~record.valid, ~labelled[:, root].all(axis=1)],
        ["ignored", "invalid", "root unlabelled"],
        "",
    )


def to_sample(record: Record, image: np.ndarray | None = None) -> tuple[Sample, Counter[str]]:
    """The decoded image with the people that can be learnt or scored, in the record's own joint set.

    A joint is visible when it is labelled (occluded ones included) and inside the image. People are left out,
    and counted by reason, as ``left_out`` says. The root is the mean of the skeleton's root joints. A person has
    depth when the record is 3D.

    Args:
        record: the stored row.
        image: (H, W, 3) uint8 RGB to take instead of decoding the record's own.

    Returns:
        the sample, and how many people were left out for which reason.

    Raises:
        ValueError: from ``decode_image``.
    """
    if image is None:
        image = decode_image(record)
    skeleton = skeleton_named(record.skeleton)
    labelled = record.state > UNLABELLED
    root = list(skeleton.root_indices)
    reasons = left_out(record)
    keep = reasons == ""
    uv = record.joints_uv[keep].astype(np.float64)
    cam, K = record.joints_cam, record.K
    if K is None:
        K = intrinsics_from_fov(record.width, record.height, ASSUMED_FOV_DEGREES)
    depth = np.zeros(uv.shape[:2]) if cam is None else cam[keep, :, 2].astype(np.float64)
    sample = Sample(
        key=record.key,
        skeleton=skeleton,
        image=image,
        K=K,
        distortion=np.zeros(5) if record.distortion is None else record.distortion,
        joints_uv=uv,
        joints_depth=depth,
        visible=labelled[keep] & inside(uv, record.height, record.width),
        root_uv=uv[:, root].mean(axis=1),
        root_depth=depth[:, root].mean(axis=1),
        has_depth=np.full(len(uv), cam is not None),
    )
    return sample, Counter(reasons[~keep].tolist())
