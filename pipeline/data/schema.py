"""The Parquet row, schema version 2: one image with its N people, native joint set, metric units.

A row holds the annotation as the source gives it and nothing derived by a recipe: joints are converted, visibility is
decided and people are left out after reading. Lengths are millimetres in the camera frame (x right, y down, z forward);
pixels refer to the stored image. Lists are plain Arrow lists, because Arrow's tensor extension types have a fixed shape
and the number of people varies.

``Record`` (record.py) is the row in NumPy. ``to_table`` and ``from_row`` convert to Parquet and back, and both call
``validate``.

Versions: a column has the version in which it was added (``since``) and its value in older rows (``before``), so rows
of every version in ``READABLE`` are read without conversion, also mixed. Version 2 added ``split_manifest``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.record import ARRAYS, LONG_LENS, Record
from pipeline.data.validate_record import fault, joint_count, validate

VERSION = 2
READABLE = (1, 2)
"""Schema versions that this code reads."""


@dataclass(frozen=True)
class Column:
    """One column of the row: its type, shape (N people, J joints), unit, meaning, and where its values come from."""

    name: str
    type: pa.DataType
    shape: str
    unit: str
    meaning: str
    filled_by: str
    nullable: bool = False
    since: int = 1
    """First schema version with this column."""
    before: str | None = None
    """Its value in rows of an older version."""


def _people(value: pa.DataType) -> pa.DataType:
    """A list of people, each a flat list of values."""
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
    Column("distortion", pa.list_(pa.float64()), "5 or 12", "1", "k1 k2 p1 p2 k3, OpenCV", "Panoptic layout", True),
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
    Column("valid", pa.list_(pa.bool_()), "N", "", "the source marks it as usable", "every source"),
    Column("split_manifest", pa.string(), "", "", "id of the split manifest", "split manifest", since=2, before=""),
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
    """The columns as a text table: column, type, shape, unit, filled by, meaning."""
    head = ("column", "type", "shape", "unit", "filled by", "meaning")
    rows = [(c.name, _type_name(c), c.shape, c.unit, c.filled_by, c.meaning) for c in COLUMNS]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in (head, *rows))
    return "\n".join((f"schema version {VERSION}", *lines))


def _type_name(column: Column) -> str:
    name = str(column.type).replace("list<element: ", "list<").replace("list<item: ", "list<")
    return name + (" or null" if column.nullable else "")


def _by_person(name: str) -> bool:
    """Whether a column is a list of lists, one list for each person."""
    letters = ARRAYS[name][1]
    return letters[0] == "N" and len(letters) > 1


def to_table(records: Iterable[Record], where: str = "", validated: bool = False) -> pa.Table:
    """Records as an Arrow table of ``SCHEMA``, one row each.

    Args:
        records: any number.
        where: the file, for error messages.
        validated: the records have passed ``validate``; otherwise it is called here.

    Raises:
        ValueError: from ``validate``.
    """
    records = list(records)
    for record in () if validated else records:
        validate(record, where)
    columns = [_column(field, [getattr(record, field.name) for record in records]) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _column(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    """One value per row (None is null) as an Arrow array.

    Lists are built as Arrow stores them, from all numbers of the column and offsets into them: much faster than from
    Python lists.
    """
    if field.name not in ARRAYS:
        return pa.array(values, field.type)
    dtype = ARRAYS[field.name][0]
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
    """(n + 1,) int32 offsets of n lists of these lengths."""
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def from_row(row: Mapping[str, Any], where: str = "") -> Record:
    """A row (plain lists, or arrays as Ray Data gives them) as a validated ``Record``.

    The column ``image``, by far the largest, may be missing: the record's ``image`` is empty then.

    Raises:
        ValueError: a column is missing, a value has a wrong type or shape, or ``validate`` refuses it; the message
            names file, key and column, the value found and the value wanted.
    """
    key = row.get("key", "?")
    missing = [c.name for c in COLUMNS if c.name not in row and c.name != "image" and c.before is None]
    if missing:
        raise fault(where, key, missing[0], "no such column", f"all columns of schema version {VERSION}")
    sizes = {
        "N": len(_listed(row["person_id"], where, key, "person_id")),
        "J": joint_count(str(row["skeleton"]), where, key),
    }
    values: dict[str, Any] = {name: row.get(name) for name in SCHEMA.names if name != "image"}
    for column in COLUMNS:
        if column.before is not None and values[column.name] is None:  # null where versions are read together
            values[column.name] = column.before
    for name in ARRAYS:
        if values[name] is not None:
            values[name] = _array(name, values[name], sizes, where, key)
    for name in ("frame", "height", "width"):
        if not isinstance(values[name], (int, np.integer)):
            raise fault(where, key, name, repr(values[name]), "an integer")
        values[name] = int(values[name])
    image = row.get("image")
    record = Record(**values, image=b"" if image is None else image)
    validate(record, where, with_image="image" in row)
    return record


def from_table(table: pa.Table, where: str = "") -> list[Record]:
    """The records of a table of ``SCHEMA`` (the column ``image`` may be missing), read column by column.

    Much faster than ``from_row`` for every row. Shapes are checked; ranges are not: rows are validated when they are
    written, and ``validate_image`` finds image bytes that have changed since. Arrays are views of the table.

    Raises:
        ValueError: a value has a wrong shape; the message names file, key and column.
    """
    values: dict[str, Sequence[Any]] = {}
    for column in COLUMNS:
        if column.name not in table.schema.names:
            values[column.name] = [b"" if column.name == "image" else column.before] * len(table)
        elif column.name not in ARRAYS:
            found = table.column(column.name).to_pylist()
            values[column.name] = [column.before if value is None else value for value in found]
    keys, people = values["key"], table.column("person_id").combine_chunks().value_lengths().to_pylist()
    joints = [joint_count(skeleton, where, key) for skeleton, key in zip(values["skeleton"], keys, strict=True)]
    for name in ARRAYS:
        values[name] = _arrays(table.column(name).combine_chunks(), name, people, joints, keys, where)
    return [Record(**{name: column[i] for name, column in values.items()}) for i in range(len(table))]


def _arrays(
    column: pa.ListArray, name: str, people: Sequence[int], joints: Sequence[int], keys: Sequence[str], where: str
) -> list[np.ndarray | None]:
    """The arrays of one column of lists, flat or one list per person, for every row."""
    starts, inner = column.offsets.to_numpy(), column.values
    lengths = None
    if _by_person(name):
        offsets = inner.offsets.to_numpy()
        starts, lengths, inner = offsets[starts], np.diff(offsets), inner.values
        first = column.offsets.to_numpy()
    flat = inner.to_numpy(zero_copy_only=False)
    letters = ARRAYS[name][1]
    found: list[np.ndarray | None] = []
    for i, present in enumerate(column.is_valid().to_pylist()):
        if not present:
            found.append(None)
            continue
        part = flat[starts[i] : starts[i + 1]]
        sizes = {"N": people[i], "J": joints[i]}
        shape = tuple(sizes[x] if isinstance(x, str) else x for x in letters)
        if name == "distortion" and len(part) == LONG_LENS:
            shape = (LONG_LENS,)
        even = lengths is None or (lengths[first[i] : first[i + 1]] == math.prod(shape[1:])).all()
        if part.size != math.prod(shape) or not even:
            raise fault(where, keys[i], name, f"{part.size} values", f"{shape}")
        found.append(part.reshape(shape))
    return found


def _listed(value: Any, where: str, key: str, column: str) -> list[Any]:
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise fault(where, key, column, type(value).__name__, "a list")
    return list(value)


def _array(name: str, value: Any, sizes: dict[str, int], where: str, key: str) -> np.ndarray:
    """The list of column ``name``, flat or one flat list per person, as an array of its type and shape."""
    dtype, letters = ARRAYS[name]
    if name == "distortion" and np.size(value) == LONG_LENS:
        letters = (LONG_LENS,)
    shape = tuple(sizes[x] if isinstance(x, str) else x for x in letters)
    per_person = letters[0] == "N" and len(shape) > 1
    entries, width = (shape[0], math.prod(shape[1:])) if per_person else (math.prod(shape), 1)
    parts = _listed(value, where, key, name)
    found = sorted({np.size(part) for part in parts})
    if len(parts) != entries or found not in ([], [width]):
        wanted = f"{entries} lists of {width}" if per_person else f"{entries} values"
        raise fault(where, key, name, f"{len(parts)} entries of sizes {found}", wanted)
    array = np.array([np.ravel(part) for part in parts])
    # Kinds of NumPy types that convert without loss of meaning: whole numbers to floats, but no fractions to integers.
    accepted = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[np.dtype(dtype).kind]
    if array.size and array.dtype.kind not in accepted:
        raise fault(where, key, name, f"values of type {array.dtype}", np.dtype(dtype).name)
    return array.astype(dtype).reshape(shape)


def check_schema(schema: pa.Schema, where: str) -> None:
    """Checks the schema version of a Parquet file, and the names and types of its columns.

    Raises:
        ValueError: the version is not readable, or a column is missing or has another type; names file and column, the
            value found and the value wanted.
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
    """Checks that this code reads a schema version.

    Args:
        found: the version.
        where: file it was found in.
        source: kind of the original data, for the command in the message.

    Raises:
        ValueError: naming the file, the version found, those that are readable, and the command that prepares the data
            again.
    """
    if found not in READABLE:
        readable = " or ".join(map(str, READABLE))
        again = f"das prepare --source {source} --root ORIGINALS --out ANOTHER_FOLDER"
        raise ValueError(f"{where}: schema version {found}, wanted {readable}: prepare the data again by `{again}`")
