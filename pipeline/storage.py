"""Files on a local disk or in object storage, by path or URI (s3://bucket/path), through pyarrow.fs.

Whatever is written appears whole or not at all: it is staged under a hidden name beside its place and renamed (in
object storage: copied there by the server, which shows an object when it is complete). Parquet shards are read row
group by row group, so memory does not grow with the data.

Object storage takes its address and credentials from AWS's own environment variables (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, ...) or from options in the URI, such as ?endpoint_override=localhost:9000&scheme=http.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.record import Record
from pipeline.schema import SCHEMA, check_schema, from_row, to_table
from pipeline.stream import ahead

MANIFEST = "manifest.json"
"""Of a prepared folder; written last, so its presence says that the folder is complete."""

STAGED = ".staged-"
"""What the names of unfinished files begin with; a killed process leaves them."""


def locate(uri: str | Path) -> tuple[fs.FileSystem, str]:
    """The file system and the path in it; paths without a scheme are local and become absolute.

    Raises:
        ValueError: for a scheme that pyarrow does not know.
    """
    if "://" not in str(uri):
        return fs.LocalFileSystem(), str(Path(uri).expanduser().resolve())
    try:
        return fs.FileSystem.from_uri(str(uri))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{uri}: not a place that can be read or written ({error})") from error


def join(uri: str | Path, *names: str) -> str:
    """``uri/name/...`` for paths and URIs alike; a URI keeps its ``?options`` at the end."""
    place, mark, options = str(uri).partition("?") if "://" in str(uri) else (str(uri), "", "")
    return "/".join((place.rstrip("/"), *names)) + mark + options


def exists(uri: str | Path) -> bool:
    """Whether there is a file or folder."""
    filesystem, path = locate(uri)
    return filesystem.get_file_info(path).type != fs.FileType.NotFound


def names(uri: str | Path) -> list[str]:
    """Sorted names of the files and folders in a folder; none if it does not exist."""
    filesystem, path = locate(uri)
    found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found)


def delete(uri: str | Path) -> None:
    """Removes a file, or a folder with all it holds; nothing if there is none."""
    filesystem, path = locate(uri)
    kind = filesystem.get_file_info(path).type
    with suppress(FileNotFoundError):  # another process was faster
        if kind == fs.FileType.Directory:
            filesystem.delete_dir(path)
        elif kind != fs.FileType.NotFound:
            filesystem.delete_file(path)


def is_folder(uri: str | Path) -> bool:
    """Whether there is a folder."""
    filesystem, path = locate(uri)
    return filesystem.get_file_info(path).type == fs.FileType.Directory


def local_copy(uri: str, folder: str | Path) -> Path:
    """Where a file or folder lies on this machine: itself, or a copy of object storage's in ``folder``.

    Raises:
        ValueError: there is none; names it.
    """
    if "://" not in uri:
        if not Path(uri).exists():
            raise ValueError(f"{uri}: no such file or folder")
        return Path(uri)
    target = Path(folder) / locate(uri)[1].rpartition("/")[2]
    if is_folder(uri):
        copy_folder(uri, target)
    else:
        target.write_bytes(read_bytes(uri))
    return target


def copy_folder(source: str | Path, target: str | Path) -> None:
    """Copies a folder's files, across file systems too; existing files of the same name are replaced."""
    source_system, source_path = locate(source)
    target_system, target_path = locate(target)
    if source_system.get_file_info(source_path).type != fs.FileType.Directory:
        raise ValueError(f"{source}: no such folder")
    target_system.create_dir(target_path, recursive=True)
    fs.copy_files(source_path, target_path, source_filesystem=source_system, destination_filesystem=target_system)


def read_bytes(uri: str | Path) -> bytes:
    """Content of a file; ValueError naming it when there is none."""
    filesystem, path = locate(uri)
    try:
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"{uri}: no such file") from error


def write_bytes(uri: str | Path, data: bytes) -> None:
    """Writes a file, whole or not at all; makes its folder."""
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        stream.write(data)


def read_json(uri: str | Path) -> Any:
    """Content of a JSON file; ValueError naming it when it is missing or no JSON."""
    try:
        return json.loads(read_bytes(uri))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{uri}: not JSON ({error})") from error


def write_json(uri: str | Path, value: Any) -> None:
    """Writes JSON that people can read, whole or not at all."""
    write_bytes(uri, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def refuse_other(uri: str | Path, **wanted: str) -> None:
    """ValueError when the JSON file is there and holds other values than these: its folder belongs to another run."""
    held = read_json(uri) if exists(uri) else wanted
    for name, value in wanted.items():
        if (found := str(held.get(name))) != value:
            raise ValueError(f"{uri} has {name} {found[:12]}, asked for {value[:12]}: choose another --name")


@contextmanager
def staged(uri: str | Path, name: Callable[[], str] | None = None) -> Iterator[tuple[fs.FileSystem, str]]:
    """A file system and a hidden path beside ``uri``; renamed to it at the end, removed on any error.

    A killed process leaves the hidden file, which no reader opens.

    Args:
        uri: the file.
        name: called at the end, gives the file's name in place of ``uri``'s own: for names that say what is inside.
    """
    filesystem, path = locate(uri)
    folder, _, last = path.rpartition("/")
    if isinstance(filesystem, fs.LocalFileSystem):  # object storage has no folders
        filesystem.create_dir(folder, recursive=True)
    hidden = f"{folder}/{STAGED}{uuid.uuid4().hex}-{last}"
    try:
        yield filesystem, hidden
        filesystem.move(hidden, f"{folder}/{name()}" if name else path)
    except BaseException:
        if filesystem.get_file_info(hidden).type != fs.FileType.NotFound:
            filesystem.delete_file(hidden)
        raise


def list_shards(prepared: str | Path, split: str) -> list[str]:
    """The Parquet shards of one split of a prepared folder, in order: those that its manifest names, and no others.

    Empty without the split, and without a manifest: then the conversion did not finish.
    """
    manifest = join(prepared, MANIFEST)
    if not exists(manifest):
        return []
    found = read_json(manifest)["splits"].get(split, {}).get("shards", ())
    return [join(prepared, *shard.split("/")) for shard in found]


def write_records(
    uri: str | Path,
    records: Iterable[Record],
    rows_per_group: int = 64,
    bytes_per_group: int = 16 << 20,
    validated: bool = False,
    name: Callable[[], str] | None = None,
) -> None:
    """Writes records as one Parquet shard, whole or not at all, holding three row groups in memory.

    Args:
        uri: the shard.
        records: read one by one.
        rows_per_group: a row group ends after so many records,
        bytes_per_group: or after so many bytes of images, whichever comes first.
        validated: ``validate`` has seen all records already.
        name: as in ``staged``.

    Raises:
        ValueError: from ``validate``; nothing is written then.
    """
    # Compressing JPEGs again, or collecting dictionaries and statistics of them, only costs time; next to them the
    # people are nothing.
    text = [field.name for field in SCHEMA if pa.types.is_string(field.type)]
    with staged(uri, name) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        with pq.ParquetWriter(stream, SCHEMA, use_dictionary=text, write_statistics=text, compression="NONE") as writer:
            # One group is written while the next one is made.
            for table in ahead(_groups(records, rows_per_group, bytes_per_group, str(uri), validated), 1):
                writer.write_table(table)


def _groups(records: Iterable[Record], rows: int, size: int, where: str, validated: bool) -> Iterator[pa.Table]:
    """Tables of at most so many rows, and of so many bytes of images and what the last record adds."""
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
        rows: how many rows are in memory at a time.

    Raises:
        ValueError: no such file, no Parquet, another schema version, or a record that ``validate`` refuses.
    """
    with _parquet(uri) as file:
        check_schema(file.schema_arrow, str(uri))
        columns = [name for name in file.schema_arrow.names if name in SCHEMA.names and (images or name != "image")]
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            for row in batch.to_pylist():
                yield from_row(row, str(uri))


def find_records(uris: Iterable[str], keys: Collection[str]) -> dict[str, Record]:
    """The validated records of these keys, images included, from the only row groups that hold them.

    Raises:
        ValueError: as ``read_records``.
    """
    wanted, found = set(keys), {}
    for uri in uris:
        with _parquet(uri) as file:
            check_schema(file.schema_arrow, str(uri))
            for group in range(file.num_row_groups):
                here = file.read_row_group(group, columns=["key"]).column("key").to_pylist()
                rows = [row for row, key in enumerate(here) if key in wanted]
                if rows:
                    columns = [name for name in file.schema_arrow.names if name in SCHEMA.names]
                    for row in file.read_row_group(group, columns=columns).take(rows).to_pylist():
                        found[row["key"]] = from_row(row, str(uri))
    return found


def write_columns(uri: str | Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Writes a table of plain columns (predictions, hashes) as Parquet, whole or not at all."""
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        pq.write_table(pa.table(dict(columns)), stream)


def write_texts(
    uri: str | Path, columns: Sequence[str], rows: Iterable[Sequence[str]], rows_per_group: int = 8192
) -> None:
    """Writes a table of texts (an index, a list of faults) as Parquet, whole or not at all, in bounded memory.

    Args:
        uri: the file.
        columns: their names.
        rows: read one by one; a text for each column.
        rows_per_group: as many are in memory.
    """
    schema = pa.schema([(name, pa.string()) for name in columns])
    rows = iter(rows)
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        with pq.ParquetWriter(stream, schema) as writer:
            while group := list(islice(rows, rows_per_group)):
                writer.write_table(pa.table([pa.array(texts, pa.string()) for texts in zip(*group)], schema=schema))


def read_columns(uri: str | Path, wanted: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Columns of a Parquet file as plain lists; ValueError naming file and column when one is missing."""
    with _parquet(uri) as file:
        missing = [name for name in wanted or () if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"{uri}: no column {missing[0]}, found {', '.join(file.schema_arrow.names)}")
        columns: dict[str, list[Any]] = file.read(columns=wanted and list(wanted)).to_pydict()
    return columns


@dataclass(frozen=True)
class Lists:
    """A column of lists of numbers: ``lengths`` (n,) of each row's, ``values`` of all rows one after another."""

    lengths: np.ndarray
    values: np.ndarray

    def to_arrow(self) -> pa.Array:
        """The column as an Arrow array; made of whole arrays, since there are millions of numbers."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.values))


def write_lists(
    uri: str | Path, name: str, labels: Sequence[str], lists: Mapping[str, Lists], about: Mapping[str, Any]
) -> None:
    """Writes one column of texts and columns of lists of numbers as Parquet, whole or not at all.

    Args:
        uri: the file.
        name: of the column of texts.
        labels: n texts.
        lists: n lists each.
        about: what the table is, as JSON in the file's metadata.
    """
    arrays = {name: pa.array(labels, pa.string()), **{k: column.to_arrow() for k, column in lists.items()}}
    table = pa.table(arrays).replace_schema_metadata({"about": json.dumps(about)})
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        pq.write_table(table, stream, use_dictionary=False)  # no number appears twice


def read_lists(uri: str | Path, name: str, wanted: Sequence[str]) -> tuple[list[str], dict[str, Lists], Any]:
    """What ``write_lists`` wrote: the texts, the wanted columns of lists, and what the table is.

    Raises:
        ValueError: no such file, no Parquet, a column missing, of another kind or with nulls, no description;
            names the file and the column.
    """
    with _parquet(uri) as file:
        table = file.read()
    lists = {}
    for column in (name, *wanted):
        kind = table.schema.field(column).type if column in table.schema.names else "missing"
        expected, fits = ("texts", pa.types.is_string) if column == name else ("lists of numbers", pa.types.is_list)
        if kind == "missing" or not fits(kind):
            raise ValueError(f"{uri}: column {column} is {kind}, wanted {expected}")
        array = table.column(column).combine_chunks()
        values = array if column == name else array.flatten()
        if array.null_count or values.null_count or not (column == name or pa.types.is_floating(values.type)):
            raise ValueError(f"{uri}: column {column} holds nulls or {values.type}, wanted {expected}")
        if column != name:
            lists[column] = Lists(array.value_lengths().to_numpy(), values.to_numpy())
    about = (table.schema.metadata or {}).get(b"about")
    if about is None:
        raise ValueError(f"{uri}: no description (`about`) in its metadata, wanted a table of this project")
    return table.column(name).to_pylist(), lists, json.loads(about)


@contextmanager
def _parquet(uri: str | Path) -> Iterator[pq.ParquetFile]:
    filesystem, path = locate(uri)
    try:
        source = filesystem.open_input_file(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"{uri}: no such file") from error
    with source:
        try:
            file = pq.ParquetFile(source)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{uri}: not a Parquet file ({error})") from error
        yield file
