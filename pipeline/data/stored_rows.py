"""Chosen rows of one row group of a shard, as training and validation read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, overload

import numpy as np
import pyarrow as pa

from pipeline.data.data_sets import DataSet
from pipeline.data.manifest import Manifest
from pipeline.data.record import Record
from pipeline.data.schema import SCHEMA, check_schema, from_table
from pipeline.data.shards import list_shards
from pipeline.infra.columns import open_parquet
from pipeline.infra.prefetch import in_order
from pipeline.infra.redaction import redacted


@dataclass(frozen=True)
class StoredRows:
    """Rows of one row group of a shard, by their positions in it."""

    shard: str
    group: int
    rows: tuple[int, ...]


def spread(data: DataSet, count: int) -> list[StoredRows]:
    """At most ``count`` rows, evenly spread over a data set in its stored order, at most 8 of a row group together."""
    sizes = [size for groups in data.row_groups for size in groups]
    places = [
        (shard, g) for shard, groups in zip(data.shards, data.row_groups, strict=True) for g in range(len(groups))
    ]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    wanted = np.arange(0, starts[-1], max(1, -(-int(starts[-1]) // count)))  # every n-th, n rounded up
    found = []
    for number in np.unique(np.searchsorted(starts, wanted, side="right") - 1):
        shard, g = places[number]
        here = wanted[(wanted >= starts[number]) & (wanted < starts[number + 1])] - starts[number]
        found += [StoredRows(shard, g, tuple(here[i : i + 8].tolist())) for i in range(0, len(here), 8)]
    return found


def read_table(shard: str, group: int, rows: Sequence[int] | np.ndarray, images: bool = True) -> pa.Table:
    """Rows of a row group, in the order of ``rows``; without the column of image bytes if not ``images``.

    Raises:
        ValueError: the shard is missing, damaged or of an unreadable schema version; names it and the row group.
    """
    with open_parquet(shard) as file:
        check_schema(file.schema_arrow, shard)
        columns = [name for name in file.schema_arrow.names if name in SCHEMA.names and (images or name != "image")]
        try:
            return file.read_row_group(group, columns=columns).take(pa.array(rows))
        except (pa.ArrowException, IndexError, OSError) as error:
            raise ValueError(f"{redacted(shard)}: row group {group} cannot be read ({error})") from error


def check_first_shard(folder: str, manifest: Manifest, split: str) -> None:
    """Checks the first shard of a split: its schema, its number of rows, and the annotations of its first row group.

    Raises:
        ValueError: the shard is missing, damaged or not as the manifest says; names it.
    """
    for shard in list_shards(folder, split)[:1]:
        with open_parquet(shard) as file:
            check_schema(file.schema_arrow, shard)
            groups = manifest.splits[split].row_groups
            if groups and file.metadata.num_rows != sum(groups[0]):
                raise ValueError(
                    f"{redacted(shard)}: holds {file.metadata.num_rows} rows, wanted {sum(groups[0])} as the manifest "
                    "of its folder says: prepare the data again"
                )
            if file.num_row_groups:
                columns = [name for name in file.schema_arrow.names if name in SCHEMA.names and name != "image"]
                from_table(file.read_row_group(0, columns=columns), shard)


def read_rows(shard: str, group: int, rows: Sequence[int] | np.ndarray, images: bool = True) -> list[Record]:
    """The records of ``read_table``; their images are not decoded."""
    return from_table(read_table(shard, group, rows, images), shard)


class StoredRecords(Sequence[Record]):
    """The records of some rows of shards, read without images when they are asked for.

    One row group is in memory at a time, so neighbours should be asked for one after another.

    Args:
        data: the shards and their row groups.
        rows: places of the records among all rows, from 0; None takes all.
    """

    def __init__(self, data: Sequence[DataSet], rows: np.ndarray | None = None) -> None:
        self._data = data
        self._groups = [
            (shard, group, size)
            for one in data
            for shard, sizes in zip(one.shards, one.row_groups, strict=True)
            for group, size in enumerate(sizes)
        ]
        self._starts = np.cumsum([0, *(size for _, _, size in self._groups)])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows
        self._held: tuple[int, list[Record]] = (-1, [])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...

    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        if isinstance(at, slice):
            return [self._read(row) for row in self._rows[at].tolist()]
        return self._read(int(self._rows[at]))

    def only(self, places: Sequence[int] | np.ndarray) -> StoredRecords:
        """Some of the records, by their places among these."""
        return StoredRecords(self._data, self._rows[places])

    def _read(self, row: int) -> Record:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        if self._held[0] != number:
            shard, group, size = self._groups[number]
            self._held = (number, read_rows(shard, group, np.arange(size), images=False))
        return self._held[1][row - self._starts[number]]


_Read = TypeVar("_Read")
_Wanted = TypeVar("_Wanted")

# Row groups that are read at the same time: on object storage most of the time is waiting.
_AHEAD = 8


def read_ahead(read: Callable[[_Wanted], _Read], wanted: Iterable[_Wanted]) -> Iterator[_Read]:
    """``read`` of everything that is wanted, in order, by a few threads that keep some row groups ahead."""
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="read") as pool:
        yield from in_order(pool, read, wanted, _AHEAD)
