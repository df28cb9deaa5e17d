"""Parquet files of plain columns: indices, lists of faults, predictions.

The project has three kinds of tables. These are files of many rows; ``text_tables.Table`` holds a few numbers for
readers; das.metrics.tables holds ground truth and predictions as arrays, which metrics are computed from. Rows of
prepared data, with images and joints, have a schema in pipeline/data/schema.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.infra.files import locate, opened_for_reading, staged
from pipeline.infra.redaction import redacted

TEXT = np.dtypes.StringDType()
"""Texts of different length in an array: 16 bytes each, and those of longer ones than 15."""


def write_columns(uri: str | Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Writes columns (predictions, hashes) of equal length by name as Parquet, whole or not at all."""
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        pq.write_table(pa.table(dict(columns)), stream)


def write_texts(
    uri: str | Path, columns: Sequence[str], rows: Iterable[Sequence[str]], rows_per_group: int = 8192
) -> None:
    """Writes rows of texts (an index, a list of faults) as Parquet, whole or not at all, in bounded memory.

    Args:
        uri: the file.
        columns: names of the columns.
        rows: one text for each column; iterated once.
        rows_per_group: rows of a row group, which are in memory together.
    """
    schema = pa.schema([(name, pa.string()) for name in columns])
    rows = iter(rows)
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        with pq.ParquetWriter(stream, schema) as writer:
            while group := list(islice(rows, rows_per_group)):
                writer.write_table(pa.table([pa.array(texts, pa.string()) for texts in zip(*group)], schema=schema))


@contextmanager
def growing_columns(
    uri: str | Path, types: Mapping[str, type], about: Mapping[str, Any], rows_per_group: int = 65_536
) -> Iterator[Callable[[Iterable[Sequence[Any]]], None]]:
    """A block in which rows come one after another; Parquet, whole or not at all, in bounded memory.

    Args:
        uri: the file; absent if the block raises.
        types: str, int or float by name of the column; a value of None is null.
        about: description of the file, stored as JSON in its metadata.
        rows_per_group: rows of a row group, which are in memory together.

    Yields:
        A function that takes further rows, one value for each column.
    """
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in types.items()], {"about": json.dumps(about)})
    waiting: list[Sequence[Any]] = []
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        with pq.ParquetWriter(stream, schema) as writer:

            def write() -> None:
                columns = zip(*waiting) if waiting else [()] * len(schema)
                arrays = [pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                waiting.clear()

            def add(rows: Iterable[Sequence[Any]]) -> None:
                waiting.extend(rows)
                if len(waiting) >= rows_per_group:
                    write()

            yield add
            write()


def read_columns(uri: str | Path, wanted: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Columns of a Parquet file as plain lists.

    Args:
        uri: the file.
        wanted: names of the columns; None reads all.

    Raises:
        ValueError: no such file, not Parquet, or a column is missing; names the file and the column.
    """
    with open_parquet(uri) as file:
        missing = [name for name in wanted or () if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"{uri}: no column {missing[0]}, found {', '.join(file.schema_arrow.names)}")
        columns: dict[str, list[Any]] = file.read(columns=wanted and list(wanted)).to_pydict()
    return columns


@dataclass(frozen=True)
class ListColumn:
    """A column of lists of numbers, n rows.

    Attributes:
        lengths: (n,) int, length of each row's list.
        values: (sum of lengths,) numbers of all rows, one row after another.
    """

    lengths: np.ndarray
    values: np.ndarray

    def to_arrow(self) -> pa.Array:
        """The column as an Arrow array; without Python lists, which are slow for millions of numbers."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.values))


def write_lists(
    uri: str | Path, name: str, labels: Sequence[str], lists: Mapping[str, ListColumn], about: Mapping[str, Any]
) -> None:
    """Writes one column of texts and columns of lists of numbers as Parquet, whole or not at all.

    Args:
        uri: the file.
        name: name of the column of texts.
        labels: its n texts.
        lists: columns of n lists by name.
        about: description of the file (format, origin), stored as JSON in its metadata.
    """
    write_list_groups(uri, name, tuple(lists), [(labels, lists)], lambda: about)


def write_list_groups(
    uri: str | Path,
    name: str,
    wanted: Sequence[str],
    groups: Iterable[tuple[Sequence[str], Mapping[str, ListColumn]]],
    about: Callable[[], Mapping[str, Any]],
) -> None:
    """Writes the file of ``write_lists`` row group by row group, holding one of them in memory.

    Args:
        uri: the file.
        name: name of the column of texts.
        wanted: names of the columns of lists.
        groups: texts and columns of lists of each row group; iterated once.
        about: called after the last group; returns the description of the file.
    """
    schema = pa.schema([(name, pa.string()), *((column, pa.list_(pa.float32())) for column in wanted)])
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        # A dictionary of values that hardly repeat only adds bytes.
        with pq.ParquetWriter(stream, schema, use_dictionary=False) as writer:
            for labels, lists in groups:
                columns = [pa.array(labels, pa.string()), *(lists[column].to_arrow() for column in wanted)]
                writer.write_table(pa.Table.from_arrays(columns, [name, *wanted]).cast(schema))
            writer.add_key_value_metadata({"about": json.dumps(about())})


def read_lists(
    uri: str | Path, name: str, wanted: Sequence[str], groups: Sequence[int] | None = None, optional: Sequence[str] = ()
) -> tuple[list[str], dict[str, ListColumn], Any]:
    """Reads a file of ``write_lists``.

    Args:
        uri: the file.
        name: name of the column of texts.
        wanted: names of the columns of lists.
        groups: numbers of row groups; None reads all.
        optional: names of further ones, which are read where the file has them.

    Returns:
        The n texts, the columns of lists by name, and the description.

    Raises:
        ValueError: no such file, not Parquet, a column missing, of another type or with nulls, or no description;
            names the file and the column.
    """
    with open_parquet(uri) as file:
        table = file.read() if groups is None else file.read_row_groups(groups)
    lists = {}
    for column in (name, *wanted, *(more for more in optional if more in table.schema.names)):
        kind = table.schema.field(column).type if column in table.schema.names else "missing"
        expected, fits = ("texts", pa.types.is_string) if column == name else ("lists of numbers", pa.types.is_list)
        if kind == "missing" or not fits(kind):
            raise ValueError(f"{uri}: column {column} is {kind}, wanted {expected}")
        array = table.column(column).combine_chunks()
        values = array if column == name else array.flatten()
        if array.null_count or values.null_count or not (column == name or pa.types.is_floating(values.type)):
            raise ValueError(f"{uri}: column {column} holds nulls or {values.type}, wanted {expected}")
        if column != name:
            lists[column] = ListColumn(array.value_lengths().to_numpy(), values.to_numpy())
    about = (table.schema.metadata or {}).get(b"about")
    if about is None:
        raise ValueError(f"{uri}: no description (`about`) in its metadata, wanted a table of this project")
    return table.column(name).to_pylist(), lists, json.loads(about)


def rows_of_groups(uri: str | Path) -> list[int]:
    """Rows of each row group of a Parquet file; ValueError as in ``open_parquet``."""
    with open_parquet(uri) as file:
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


@contextmanager
def open_parquet(uri: str | Path) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file for reading; ValueError with its name when it is missing or not Parquet."""
    filesystem, path = locate(uri)
    with opened_for_reading(uri):
        source = filesystem.open_input_file(path)
    with source:
        try:
            file = pq.ParquetFile(source)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{redacted(str(uri))}: not a Parquet file ({error})") from error
        yield file
