"""Names and sizes of the files below a folder; folders are listed when they are first needed, files never opened."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm


class Tree:
    """Names and sizes below ``root``. Paths are relative to it, with ``/``; the root itself is ``""``.

    Every folder is listed once and kept in memory; later changes on the disk are not seen. Folders outside of ``root``,
    which an annotation may name or a link may lead to, are empty, and so are links to a folder that they are in;
    ``links`` collects both kinds of links. With ``inside``, a folder below ``root``, those above it are not listed
    either: they have the next folder on the way to it, and of ``names`` those files that exist.
    """

    def __init__(
        self, root: Path, progress: tqdm | None = None, inside: Path | None = None, names: Sequence[str] = ()
    ) -> None:
        self.root = root
        self._inside = () if inside is None else inside.relative_to(root).parts
        self._known = names
        self._progress = progress
        self._names: dict[str, tuple[list[str], list[str]]] = {}
        self._files: dict[str, dict[str, int]] = {}
        self._real: dict[str, str] = {}
        self.links: list[str] = []

    def folders(self, folder: str = "") -> list[str]:
        """Sorted names of the folders in a folder; none if there is no such folder."""
        return self._list(folder)[0]

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the files in a folder; much faster than ``files``, which reads each size."""
        return self._list(folder)[1]

    def files(self, folder: str = "") -> dict[str, int]:
        """Size in bytes of every file in a folder, by name."""
        if folder not in self._files:
            where = self.root / folder
            found = {}
            for name in self.names(folder):
                found[name] = _size(where / name)
                if self._progress is not None:
                    self._progress.update()
            self._files[folder] = found
        return self._files[folder]

    def size(self, path: str) -> int | None:
        """Size in bytes of one file, None if there is none."""
        folder, _, name = path.rpartition("/")
        return self.files(folder).get(name)

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        folder, _, name = path.rpartition("/")
        return name in self.names(folder) or name in self.folders(folder)

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        parts = PurePosixPath(folder).parts
        if ".." in parts or folder.startswith("/"):
            return [], []
        if self._inside and parts[: len(self._inside)] != self._inside:
            if parts != self._inside[: len(parts)]:
                return [], []
            known = [name for name in self._known if (self.root / folder / name).is_file()]
            return [self._inside[len(parts)]], known
        if folder not in self._names and self._leads_away(folder):
            self.links.append(folder)
            self._names[folder] = [], []
        if folder not in self._names:
            folders: list[str] = []
            files: list[str] = []
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        (folders if entry.is_dir() else files).append(entry.name)
            except (FileNotFoundError, NotADirectoryError, ValueError):
                pass  # scandir raises ValueError for a name with a zero byte
            except OSError as error:
                # An annotation may name a file that no disk can have: it is missing, not an error.
                if error.errno == errno.ENAMETOOLONG:
                    return [], []
                raise ValueError(f"{self.root / folder}: cannot be listed ({error.strerror})") from error
            self._names[folder] = sorted(folders), sorted(files)
        return self._names[folder]

    def _leads_away(self, folder: str) -> bool:
        """Whether a folder is outside of the root, or one of those above it, when links are followed."""
        try:
            here = self._real_path(folder)
        except ValueError:
            return False  # a name with a zero byte: there is no such folder
        above = [str(parent) for parent in PurePosixPath(folder).parents] if folder else []
        real = [self._real_path("" if name == "." else name) for name in above]
        return here in real or (bool(folder) and not Path(here).is_relative_to(self._real_path("")))

    def _real_path(self, folder: str) -> str:
        if folder not in self._real:
            self._real[folder] = os.path.realpath(self.root / folder)
        return self._real[folder]


def _size(path: Path) -> int:
    """Size in bytes; 0, as of an empty file, for a link to a file that does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
