"""Files of this machine that others wrote or named: only regular ones are opened, of bounded size, inside their folder.

A file's name may be content of the data (an image's in a list of annotations), and a link may lead anywhere. Opening a
pipe waits for ever, a device has no end, and a file without content may have any size.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

MAX_ANNOTATION_BYTES = 1 << 32
"""Largest annotation file that is read, bytes: several times those of MuCo-3DHP and COCO, the largest known."""


def inside(root: str | Path, name: str | Path) -> Path:
    """``root/name``, which stays inside ``root`` after all links are followed; it need not exist.

    Raises:
        ValueError: it leads out of ``root``; names the file.
    """
    return kept_inside(root, Path(root) / name)


def kept_inside(root: str | Path, path: Path) -> Path:
    """A path that has its root already, as ``inside`` gives it; the same ValueError."""
    try:
        fault = leads_out(root, path)
    except ValueError as error:
        fault = str(error)
    else:
        fault = fault and f"{fault}, to {os.path.realpath(path)}: wanted a file inside of it"
    if fault is not None:
        raise ValueError(f"{path}: {fault}")
    return path


def check_inside(root: str | Path, paths: Iterable[Path]) -> None:
    """Checks that no file leads out of ``root``; their folders are listed, which is faster than a look at every file.

    A folder that cannot be listed is passed over, and so is a path that names ``root`` itself, as an empty name does:
    whoever opens it reports it.

    Raises:
        ValueError: as ``inside``, of the first file that leads out.
    """
    folders: dict[str, set[str]] = {}
    for path in map(str, paths):
        if path == str(root):
            continue
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, set()).add(name)
    for folder, wanted in folders.items():
        try:
            with os.scandir(folder) as entries:
                links = sorted(entry.name for entry in entries if entry.is_symlink() and entry.name in wanted)
        except (OSError, ValueError):
            continue
        kept_inside(root, Path(folder))
        for name in links:
            kept_inside(root, Path(folder, name))


def leads_out(root: str | Path, path: Path) -> str | None:
    """What is wrong with a path that leads out of a folder, by its names or by links; None if it stays inside.

    Raises:
        ValueError: a name that no file can have: it holds a zero byte.
    """
    stays = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    return None if stays else f"leads out of {root}"


def regular_file(path: Path, most: int = MAX_ANNOTATION_BYTES, root: str | Path | None = None) -> Path:
    """The path of a file that may be opened.

    Args:
        path: of the file.
        most: its size at most, bytes.
        root: folder that must contain it after all links are followed; None for names that a user gives.

    Raises:
        OSError: it does not exist, leads out of ``root``, is no regular file or is larger.
        ValueError: a name that no file can have.
    """
    if root is not None and (fault := leads_out(root, path)) is not None:
        raise OSError(errno.EACCES, fault, str(path))
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "a pipe or device, wanted a regular file", str(path))
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"{found.st_size} bytes, wanted at most {most}", str(path))
    return path


def read_file(path: Path, most: int = MAX_ANNOTATION_BYTES, root: str | Path | None = None) -> bytes:
    """Content of a file; arguments and OSError as ``regular_file``."""
    with regular_file(path, most, root).open("rb") as file:
        data = file.read(os.fstat(file.fileno()).st_size + 1)  # a reader takes memory for as many bytes as it is asked
        while len(data) <= most and (more := file.read(1 << 20)):  # files of the system that state no size
            data += more
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
    return data


def sha256_of(path: Path) -> str:
    """sha256 of a file's content, 64 hex digits; the file may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unread(error: OSError) -> str:
    """Text of an error of the operating system, beginning with the file: ``FILE: Permission denied``."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
