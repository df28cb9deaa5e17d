"""Training samples as plain Arrow columns, in which Ray tasks send them: arrays are bytes and a shape."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from das.sample import Sample
from das.skeleton import Skeleton

Made = tuple[Sample | str, Counter[str]]
"""What is made of a stored row: the sample, or what is wrong with the row; and what was left out, by reason."""

_ARRAYS = {
    "image": np.uint8,
    "K": np.float64,
    "distortion": np.float64,
    "joints_uv": np.float64,
    "joints_depth": np.float64,
    "visible": np.bool_,
    "root_uv": np.float64,
    "root_depth": np.float64,
    "has_depth": np.bool_,
    "masked": np.float64,
}
"""The arrays of a ``Sample``, and the type in which they travel: their own."""


_SCHEMA = pa.schema(
    [
        ("fault", pa.string()),
        ("left_out", pa.string()),
        ("key", pa.string()),
        *((name, pa.large_binary()) for name in _ARRAYS),
        *((f"{name}_shape", pa.list_(pa.int32())) for name in _ARRAYS),
    ]
)


def to_columns(made: Made) -> dict[str, Any]:
    """What was made of a row, as plain columns: arrays are bytes and a shape."""
    sample, left_out = made
    columns: dict[str, Any] = {"left_out": json.dumps(left_out)}
    if isinstance(sample, str):
        return {**columns, "fault": sample}
    columns["key"] = sample.key
    for name, dtype in _ARRAYS.items():
        array: np.ndarray = np.ascontiguousarray(getattr(sample, name), dtype)
        columns |= {name: array.tobytes(), f"{name}_shape": array.shape}
    return columns


def from_columns(columns: dict[str, Any], skeleton: Skeleton) -> Made:
    """The inverse of ``to_columns``."""
    left_out: Counter[str] = Counter(json.loads(columns["left_out"]))
    if columns["fault"] is not None:
        return columns["fault"], left_out
    arrays = {
        name: np.frombuffer(bytearray(columns[name]), dtype).reshape(columns[f"{name}_shape"])
        for name, dtype in _ARRAYS.items()
    }
    return Sample(key=columns["key"], skeleton=skeleton, **arrays), left_out


def samples_table(made: Iterable[Made]) -> pa.Table:
    """What was made of rows, as a table of one row each."""
    return pa.Table.from_pylist([to_columns(one) for one in made], schema=_SCHEMA)
