"""Files on a local disk or in object storage, by path or URI (s3://bucket/path), through pyarrow.fs.

Whatever is written appears whole or not at all: it is staged under a hidden name beside its place and renamed (in
object storage: copied there by the server, which shows an object when it is complete).

Object storage takes its address and credentials from AWS's own environment variables (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, ...) or from options in the URI, such as ?endpoint_override=localhost:9000&scheme=http.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

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
