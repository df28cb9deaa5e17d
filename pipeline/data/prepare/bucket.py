"""Originals in object storage: what the driver and the tasks copy of them, so that sources read plain files.

The driver lists the bucket once and makes a temporary *mirror* of it: the files that ``chunks`` of the source opens
(annotations, calibrations, both ends of videos) are copied, all others are holes that have only the right size. The
source lists the mirror as it would list the originals, so the plan is the same. With each task travel the names, sizes
and times of the files that its frames need. The task copies them to a folder of its process, reads them there, and
removes images and pose files; annotations and videos stay for the process's next task, which would otherwise copy and
parse them again.

A file that the listing has and the bucket no longer has is missing, as on a disk. Any other failure to read is an
``OSError`` that names the object: Ray tries the task again, and if it stays, the conversion names it at its end. It
never sends a frame to quarantine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from pyarrow import fs

from pipeline.data.sources.base import Chunk, ChunkFiles
from pipeline.infra.files import locate
from pipeline.infra.image_headers import MAX_IMAGE_BYTES
from pipeline.infra.redaction import redacted

# Threads that copy objects: nearly all of the time is latency.
_READERS = 16
_BLOCK = 1 << 23
# Of the temporary folders, and of the file in one that its process holds.
_PREFIX, _LOCK = "das-originals-", "held"
_VIDEOS = (".mp4", ".avi")
# Bytes at either end of a video that the mirror has. Its header is there, of a megabyte for an hour.
_VIDEO_END = 1 << 23


@dataclass(frozen=True)
class BucketFile:
    """An object below the root, as the driver's listing has it."""

    path: str
    """Relative to the root."""
    size: int
    """Bytes."""
    changed: int
    """Time of its last change, ns."""


@dataclass(frozen=True)
class Copies:
    """The files that one task needs."""

    shared: tuple[BucketFile, ...]
    """Files of many tasks, kept by the process that has copied them."""
    own: tuple[BucketFile, ...]
    """Files of this task alone."""


def in_bucket(root: str) -> bool:
    """Whether the originals lie in object storage."""
    return "://" in root


@contextmanager
def mirrored(root: str, listed: Iterable[str]) -> Iterator[str]:
    """A temporary folder with the names and sizes of all files below ``root``, and the content of those listed.

    Args:
        root: URI of the originals.
        listed: files, relative to it, whose content is needed; of videos only both ends are copied.

    Raises:
        ValueError: there is no object below ``root``, one has a name that no file can have, or it cannot be read;
            also for a ValueError of the block that names the temporary folder: it names ``root`` instead.
    """
    wanted = set(listed)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as temporary:
        folder = os.path.realpath(temporary)
        try:
            found = _listing(root)
            for file in found:
                _make(folder, file)
            _copy_all(root, folder, [file for file in found if file.path in wanted], ends=True)
        except OSError as error:
            raise ValueError(redacted(f"{root}: {_named(error, folder, root)}")) from error
        try:
            yield folder
        except ValueError as error:
            raise ValueError(redacted(_named(error, folder, root))) from error


def needed(find: Callable[[Chunk], ChunkFiles], mirror: str, chunks: Sequence[Chunk]) -> Copies:
    """The files of some chunks that exist.

    Args:
        find: ``files`` of the source.
        mirror: as ``mirrored`` gives it.
        chunks: of one task.
    """
    shared: dict[str, BucketFile] = {}
    own: dict[str, BucketFile] = {}
    for chunk in chunks:
        files = find(replace(chunk, root=mirror))
        for names, known in ((files.shared, shared), (files.own, own)):
            for name in {os.path.normpath(name) for name in names} - known.keys():
                if (file := _mirrored(mirror, name)) is not None:
                    known[name] = file
    return Copies(tuple(shared.values()), tuple(own.values()))


@contextmanager
def copied(root: str, copies: Copies) -> Iterator[str]:
    """A folder of this process with the files of one task; its own files are removed at the end.

    Raises:
        OSError: an object cannot be read or written to the disk; names it.
        ValueError: of the block; one that names the folder names ``root`` instead.
    """
    # Files of another bucket may have the same names, sizes and times.
    folder = Path(os.path.realpath(_folder_of_process().name), hashlib.sha256(root.encode()).hexdigest()[:16])
    kept = {file.path for file in copies.shared}
    _keep_only(folder, kept)
    try:
        folder.mkdir(exist_ok=True)
        _copy_all(root, str(folder), [*copies.shared, *copies.own])
        yield str(folder)
    except ValueError as error:
        raise ValueError(redacted(_named(error, str(folder), root))) from error
    finally:
        _keep_only(folder, kept)


def state_in_bucket(root: str, path: str) -> list[int] | None:
    """Size in bytes and time of change in ns of an object; None when there is none.

    Raises:
        OSError: the storage does not answer.
    """
    system, base = locate(root)
    info = system.get_file_info(f"{base}/{path}")
    return [info.size, info.mtime_ns] if info.type == fs.FileType.File else None


@lru_cache(maxsize=1)
def _folder_of_process() -> tempfile.TemporaryDirectory[str]:
    """The folder of this process's copies, which is removed when it ends; those of killed processes are removed now.

    Ray kills its workers. The lock of a process that has ended is free, whoever ended it.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open("rb") as file:  # held by its process, or of another user
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    folder = tempfile.TemporaryDirectory(prefix=_PREFIX)
    held = os.open(Path(folder.name, _LOCK), os.O_CREAT | os.O_RDWR)  # never closed
    fcntl.flock(held, fcntl.LOCK_SH)
    return folder


def _keep_only(folder: Path, kept: set[str]) -> None:
    """Removes all but some files of a folder, and the folders beside it."""
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir():
            shutil.rmtree(other)
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            if path.relative_to(folder).as_posix() not in kept:
                path.unlink()


def _listing(root: str) -> list[BucketFile]:
    system, base = locate(root)
    infos = system.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    found = []
    for info in infos:
        if info.type == fs.FileType.File:
            path = info.path.removeprefix(f"{base}/")
            if {"", ".", ".."} & set(path.split("/")):
                raise ValueError(f"{root}: found an object {path!r}, wanted names that files can have")
            found.append(BucketFile(path, info.size, info.mtime_ns))
    if not found:
        raise ValueError(f"no folder {root}")
    return found


def _mirrored(mirror: str, path: str) -> BucketFile | None:
    try:
        found = os.stat(os.path.join(mirror, path))
    except (OSError, ValueError):  # no file of that name, or no name of a file
        return None
    return BucketFile(path, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _make(folder: str, file: BucketFile) -> Path:
    """A file that takes no room on the disk, with the size and time of an object."""
    target = Path(folder, file.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()
    os.truncate(target, file.size)
    os.utime(target, ns=(file.changed, file.changed))
    return target


def _copy_all(root: str, folder: str, files: Sequence[BucketFile], ends: bool = False) -> None:
    system, base = locate(root)

    def copy(file: BucketFile) -> None:
        try:
            _copy(system, base, folder, file, ends)
        except OSError as error:
            raise OSError(redacted(f"{root.partition('?')[0]}/{file.path}: {error}")) from error

    with ThreadPoolExecutor(_READERS) as pool:
        for _ in pool.map(copy, files):
            pass


def _copy(system: fs.FileSystem, base: str, folder: str, file: BucketFile, ends: bool) -> None:
    if not ends and _mirrored(folder, file.path) == file:
        return  # copied for an earlier task
    parts = [(0, file.size)]
    if file.path.lower().endswith(_VIDEOS):
        if ends and file.size > 2 * _VIDEO_END:
            parts = [(0, _VIDEO_END), (file.size - _VIDEO_END, file.size)]
    elif file.size > MAX_IMAGE_BYTES and file.path.lower().endswith((".jpg", ".jpeg", ".png")):
        parts = []  # the source refuses it by its size
    try:
        with system.open_input_file(f"{base}/{file.path}") as stream:
            if (size := stream.size()) != file.size:
                raise OSError(f"found {size} bytes, the listing {file.size}: wanted files that do not change meanwhile")
            target = _make(folder, file)
            # In place of the time of the object, until it is complete: a later task takes it as it is.
            os.utime(target, ns=(0, 0))
            with target.open("r+b") as out:
                for start, stop in parts:
                    stream.seek(start)
                    out.seek(start)
                    while start < stop and (block := stream.read(min(_BLOCK, stop - start))):
                        start += out.write(block)
                    if start < stop:
                        raise OSError(f"it ended after {start} of {file.size} bytes")
            os.utime(target, ns=(file.changed, file.changed))
    except FileNotFoundError:
        Path(folder, file.path).unlink(missing_ok=True)


def _named(error: Exception, folder: str, root: str) -> str:
    """The text of an error with the URI of the originals in place of their copy's folder."""
    return str(error).replace(folder, root.partition("?")[0].rstrip("/"))
