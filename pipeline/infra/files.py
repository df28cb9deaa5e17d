"""Files on a local disk or in object storage, by path or URI (s3://bucket/path), through pyarrow.fs.

A file appears whole or not at all: it is written under a hidden name in the same folder and then renamed. Object
storage cannot rename; there the server copies the object, which becomes visible when it is complete.

The address and credentials of object storage come from the environment variables of AWS (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, ...) or from options in the URI, such as ?endpoint_override=localhost:9000&scheme=http.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from pipeline.infra.redaction import redacted
from pipeline.infra.regular_files import regular_file

MAX_FILE_BYTES = 1 << 32
"""Largest file that is read into memory as a whole, bytes."""
MAX_JSON_BYTES = 1 << 25
"""Largest JSON file that is read, bytes: a parsed one takes up to thirty times its size."""

STAGED = ".staged-"
"""Prefix of the names of unfinished files; a killed process leaves such files."""


def locate(uri: str | Path) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI and the path in it; a path without a scheme is local and becomes absolute.

    Raises:
        ValueError: a scheme that pyarrow does not support.
    """
    if "://" not in str(uri):
        return fs.LocalFileSystem(), str(Path(uri).expanduser().resolve())
    try:
        return fs.FileSystem.from_uri(str(uri))
    except pa.ArrowInvalid as error:
        raise ValueError(redacted(f"{uri}: not a place that can be read or written ({error})")) from error


def join(uri: str | Path, *names: str) -> str:
    """``uri/name/...`` for a path or a URI; the ``?options`` of a URI stay at the end."""
    place, mark, options = str(uri).partition("?") if "://" in str(uri) else (str(uri), "", "")
    return "/".join((place.rstrip("/"), *names)) + mark + options


def beside(uri: str | Path, name: str) -> str:
    """Path or URI of ``name`` in the folder that contains ``uri``; the ``?options`` of a URI stay at the end."""
    place, mark, options = str(uri).partition("?") if "://" in str(uri) else (str(uri), "", "")
    return f"{place.rstrip('/').rpartition('/')[0]}/{name}{mark}{options}"


def exists(uri: str | Path) -> bool:
    """Whether a file or folder exists."""
    filesystem, path = locate(uri)
    return filesystem.get_file_info(path).type != fs.FileType.NotFound


def names(uri: str | Path) -> list[str]:
    """Sorted names of the files and folders in a folder; empty if it does not exist."""
    filesystem, path = locate(uri)
    found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found)


def delete(uri: str | Path) -> None:
    """Deletes a file, or a folder with its content; does nothing if it does not exist."""
    filesystem, path = locate(uri)
    kind = filesystem.get_file_info(path).type
    with suppress(FileNotFoundError):  # deleted by another process meanwhile
        if kind == fs.FileType.Directory:
            filesystem.delete_dir(path)
        elif kind != fs.FileType.NotFound:
            filesystem.delete_file(path)


def is_folder(uri: str | Path) -> bool:
    """Whether a folder exists."""
    filesystem, path = locate(uri)
    return filesystem.get_file_info(path).type == fs.FileType.Directory


def local_copy(uri: str, folder: str | Path) -> Path:
    """Local path of a file or folder: the path itself, or of object storage a copy made in ``folder``.

    Raises:
        ValueError: no such file or folder; names it.
    """
    if "://" not in uri:
        if not Path(uri).exists():
            raise ValueError(f"{redacted(uri)}: no such file or folder")
        return Path(uri)
    target = Path(folder) / locate(uri)[1].rpartition("/")[2]
    if is_folder(uri):
        copy_folder(uri, target)
    else:
        target.write_bytes(read_bytes(uri))
    return target


@contextmanager
def folders_restored(uri: str) -> Iterator[None]:
    """A block after which the local folders of this path that it has made are gone again, where they are empty."""
    made = [] if "://" in uri else [p for p in (Path(uri), *Path(uri).parents) if not p.exists()]
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # another process has written there meanwhile
                folder.rmdir()


def copy_folder(source: str | Path, target: str | Path) -> None:
    """Copies the files of a folder, also between file systems; existing files of the same name are replaced.

    Raises:
        ValueError: no such folder; names it.
    """
    source_system, source_path = locate(source)
    target_system, target_path = locate(target)
    if source_system.get_file_info(source_path).type != fs.FileType.Directory:
        raise ValueError(f"{redacted(str(source))}: no such folder")
    target_system.create_dir(target_path, recursive=True)
    fs.copy_files(source_path, target_path, source_filesystem=source_system, destination_filesystem=target_system)


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copies one file, also between file systems, in parts; the target's folder must exist.

    Raises:
        ValueError: no such file; names it.
    """
    source_system, source_path = locate(source)
    target_system, target_path = locate(target)
    with opened_for_reading(source):
        fs.copy_files(source_path, target_path, source_filesystem=source_system, destination_filesystem=target_system)


def read_bytes(uri: str | Path, most: int = MAX_FILE_BYTES) -> bytes:
    """Content of a file.

    Args:
        uri: the file.
        most: its size at most, bytes.

    Raises:
        ValueError: it does not exist, is no regular file or is larger; names it.
    """
    filesystem, path = locate(uri)
    with opened_for_reading(uri, most):
        data = bytearray()
        with filesystem.open_input_stream(path) as stream:
            while len(data) <= most and (block := stream.read(1 << 24)):
                data += block
    if len(data) > most:  # files of the system that state no size
        raise ValueError(f"{redacted(str(uri))}: more than {most} bytes")
    return bytes(data)


@contextmanager
def opened_for_reading(uri: str | Path, most: int | None = None) -> Iterator[None]:
    """A block that opens a file: it is looked at first, because opening a pipe waits and a device has no end.

    Raises:
        ValueError: the file does not exist, is no regular file or is larger than ``most`` bytes; names it.
    """
    name = redacted(str(uri))
    filesystem, path = locate(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        try:
            regular_file(Path(path), sys.maxsize if most is None else most)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ValueError(f"{name}: no such file") from error
        except OSError as error:
            raise ValueError(f"{name}: {error.strerror}") from error
    elif most is not None and (size := filesystem.get_file_info(path).size or 0) > most:
        raise ValueError(f"{name}: {size} bytes, wanted at most {most}")
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"{name}: no such file") from error


def write_bytes(uri: str | Path, data: bytes) -> None:
    """Writes a file, whole or not at all; creates its folder."""
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        stream.write(data)


def read_json(uri: str | Path, most: int = MAX_JSON_BYTES) -> Any:
    """Content of a JSON file; ValueError as ``read_bytes``, or when it is not JSON."""
    data = read_bytes(uri, most)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # also numbers of too many digits, and lists in lists too deep
        raise ValueError(f"{redacted(str(uri))}: not JSON ({error})") from error


def write_json(uri: str | Path, value: Any) -> None:
    """Writes indented JSON, whole or not at all; ValueError for NaN and infinities, which JSON does not have."""
    write_bytes(uri, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def refuse_other(uri: str | Path, **wanted: str) -> None:
    """Raises ValueError when the JSON file exists with other values: its folder belongs to another run."""
    held = read_json(uri) if exists(uri) else wanted
    for name, value in wanted.items():
        if (found := str(held.get(name))) != value:
            raise ValueError(
                f"{redacted(str(uri))} has {name} {found[:12]}, wanted {value[:12]}: choose another --name"
            )


@contextmanager
def staged(uri: str | Path, name: Callable[[], str] | None = None) -> Iterator[tuple[fs.FileSystem, str]]:
    """Yields a file system and a hidden path in the folder of ``uri``, to write to.

    The file is renamed to ``uri`` when the block ends, and deleted when it raises. A killed process leaves the hidden
    file, which no reader opens.

    Args:
        uri: the file; its local folder is created.
        name: called when the block has ended; returns a name that replaces the last part of ``uri``. For names that
            hold a hash of the content.

    Raises:
        OSError: it cannot be written; of a local file with its name.
    """
    filesystem, path = locate(uri)
    folder, _, last = path.rpartition("/")
    hidden = f"{folder}/{STAGED}{uuid.uuid4().hex}-{last}"
    try:
        if isinstance(filesystem, fs.LocalFileSystem):  # object storage has no folders
            filesystem.create_dir(folder, recursive=True)
        yield filesystem, hidden
        filesystem.move(hidden, f"{folder}/{name()}" if name else path)
    except BaseException as error:
        if filesystem.get_file_info(hidden).type != fs.FileType.NotFound:
            filesystem.delete_file(hidden)
        if isinstance(error, OSError) and error.errno and isinstance(filesystem, fs.LocalFileSystem):
            # Arrow's own text names the hidden file.
            raise OSError(error.errno, os.strerror(error.errno), str(uri)) from error
        raise
