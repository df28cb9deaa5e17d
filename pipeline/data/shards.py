"""The Parquet shards of a prepared folder: written as a whole or not at all, read row group by row group."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from das.fields import is_name
from pipeline.data.manifest import MANIFEST
from pipeline.data.record import Record
from pipeline.data.schema import SCHEMA, check_schema, from_row, to_table
from pipeline.infra.columns import open_parquet
from pipeline.infra.files import exists, join, read_json, staged
from pipeline.infra.prefetch import prefetched
from pipeline.infra.regular_files import leads_out


def list_shards(prepared: str | Path, split: str) -> list[str]:
    """The Parquet shards of one split of a prepared folder that its manifest names, in order.

    Empty when the folder has no such split, or no manifest because its conversion did not finish.

    Raises:
        ValueError: the manifest is malformed, or a shard's name leads out of the folder.
    """
    manifest = join(prepared, MANIFEST)
    if not exists(manifest):
        return []
    try:
        found = list(read_json(manifest)["splits"].get(split, {}).get("shards", ()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{manifest}: not a manifest ({error!r})") from error
    for name in found:
        parts = name.split("/") if isinstance(name, str) else [""]
        if not all(map(is_name, parts)) or ("://" not in str(prepared) and leads_out(prepared, Path(prepared, name))):
            raise ValueError(f"{manifest}: shard {name!r} leads out of the folder, wanted one of its files")
    return [join(prepared, *shard.split("/")) for shard in found]


def write_records(
    uri: str | Path,
    records: Iterable[Record],
    rows_per_group: int = 64,
    bytes_per_group: int = 16 << 20,
    validated: bool = False,
    name: Callable[[], str] | None = None,
) -> tuple[int, ...]:
    """Writes records as one Parquet shard, as a whole or not at all, holding three row groups in memory.

    Args:
        uri: the shard.
        records: read one by one.
        rows_per_group: number of records after which a row group ends.
        bytes_per_group: bytes of images after which a row group ends, if that comes first.
        validated: the records have passed ``validate``; otherwise it is called here.
        name: called when all records are written; returns the file name to use in place of the last part of ``uri``.

    Returns:
        number of rows of each row group.

    Raises:
        ValueError: from ``validate``; nothing is written then.
    """
    # Compression, dictionaries and statistics of JPEG bytes cost time and gain nothing, and the other columns are
    # small beside the images. Texts mostly repeat, so they keep dictionaries.
    text = [field.name for field in SCHEMA if pa.types.is_string(field.type)]
    rows = []
    with staged(uri, name) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        with pq.ParquetWriter(stream, SCHEMA, use_dictionary=text, write_statistics=text, compression="NONE") as writer:
            # One row group is written while the next one is made, in another thread.
            for table in prefetched(_groups(records, rows_per_group, bytes_per_group, str(uri), validated), 1):
                writer.write_table(table)
                rows.append(table.num_rows)
    return tuple(rows)


def _groups(records: Iterable[Record], rows: int, size: int, where: str, validated: bool) -> Iterator[pa.Table]:
    """Tables that end at ``rows`` rows, or with the record that reaches ``size`` bytes of images."""
    group: list[Record] = []
    held = 0
    for record in records:
        group.append(record)
        held += len(record.image)
        if len(group) >= rows or held >= size:
            yield to_table(group, where, validated)
            group, held = [], 0
    if group:
        yield to_table(group, where, validated)


def read_records(uri: str | Path, images: bool = True, rows: int = 32) -> Iterator[Record]:
    """The validated records of a Parquet shard, in order.

    Args:
        uri: the shard.
        images: False leaves out the column of image bytes: much less to read.
        rows: number of rows in memory at a time.

    Raises:
        ValueError: there is no such file, it is not Parquet, its schema version is not readable, or ``validate``
            refuses a record.
    """
    with open_parquet(uri) as file:
        check_schema(file.schema_arrow, str(uri))
        columns = [name for name in file.schema_arrow.names if name in SCHEMA.names and (images or name != "image")]
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            for row in batch.to_pylist():
                yield from_row(row, str(uri))


def find_records(uris: Iterable[str], keys: Collection[str]) -> dict[str, Record]:
    """The validated records with these keys, images included; other columns are read only where a key matches.

    Args:
        uris: the shards to search.
        keys: of the records; those that no shard holds are missing in the result.

    Returns:
        records by key.

    Raises:
        ValueError: as ``read_records``.
    """
    wanted, found = set(keys), {}
    for uri in uris:
        with open_parquet(uri) as file:
            check_schema(file.schema_arrow, str(uri))
            for group in range(file.num_row_groups):
                here = file.read_row_group(group, columns=["key"]).column("key").to_pylist()
                rows = [row for row, key in enumerate(here) if key in wanted]
                if rows:
                    columns = [name for name in file.schema_arrow.names if name in SCHEMA.names]
                    for row in file.read_row_group(group, columns=columns).take(rows).to_pylist():
                        found[row["key"]] = from_row(row, str(uri))
    return found
