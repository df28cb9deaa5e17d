"""The rows of a split of prepared folders, by shard and row group: from the manifest, without opening the shards."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.data.manifest import Manifest
from pipeline.data.shards import list_shards
from pipeline.infra.columns import rows_of_groups


@dataclass(frozen=True)
class DataSet:
    """The rows of one split of a prepared folder.

    Attributes:
        shards: URIs of its Parquet files.
        row_groups: for each shard, the number of rows of each of its row groups.
        repeat: how often each row appears in an epoch.
    """

    shards: Sequence[str]
    row_groups: Sequence[Sequence[int]]
    repeat: int = 1

    @property
    def rows(self) -> int:
        """Rows of one epoch."""
        return self.repeat * sum(sum(groups) for groups in self.row_groups)


def data_set(folder: str, manifest: Manifest, split: str, repeat: int = 1) -> DataSet:
    """The rows of a split; of folders whose manifest does not list row groups, the shards' footers are read.

    Raises:
        ValueError: a shard is missing or not Parquet, or there are not as many rows as the manifest says.
    """
    if split not in manifest.splits:
        return DataSet((), (), repeat)
    shards, groups = list_shards(folder, split), manifest.splits[split].row_groups
    if not groups:
        with ThreadPoolExecutor(16) as pool:
            groups = tuple(map(tuple, pool.map(rows_of_groups, shards)))
    found, wanted = sum(map(sum, groups)), manifest.splits[split].images
    if found != wanted or len(groups) != len(shards):
        raise ValueError(
            f"{folder}: its shards hold {found} {split} rows, wanted {wanted} as its manifest says: prepare the data "
            "again"
        )
    return DataSet(shards, groups, repeat)
