"""What an inventory is: the contract between `das doctor data` and the sources of data.

Every module of this folder looks at one kind of original data: ``recognises`` tells from names alone whether a
folder is its root, and ``inventory`` counts what is there against what the split manifest takes. Neither opens an
image; an annotation file that cannot be used becomes a ``Trouble``, not an error, so that one look tells all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.data.check.listing import Tree
from pipeline.data.sources.base import Source
from pipeline.data.splits import Part, SplitManifest


@dataclass(frozen=True)
class Picture:
    """An image file that the conversion will read.

    Attributes:
        path: relative to the root.
        bytes: its size on the disk.
        size: (height, width) pixels that its annotation refers to, None if that is unknown.
    """

    path: str
    bytes: int
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Trouble:
    """A file or folder that is missing or cannot be used, relative to the root, and what is wrong with it."""

    path: str
    what: str


@dataclass(frozen=True)
class Film:
    """A video that frames are read from.

    Attributes:
        path: relative to the root.
        length: how many frames it has, as its header says.
        wanted: how many of those are converted.
        frame_bytes: size of its first frame as the JPEG that a row holds.
    """

    path: str
    length: int
    wanted: int
    frame_bytes: int


@dataclass
class View:
    """The images of one part of the split manifest as one camera sees them: a line of the report.

    Attributes:
        sequence, camera, split: as in the keys of the rows that they become.
        annotated: frames with an annotation.
        wanted: how many of those the split manifest takes.
        pictures: image files of wanted frames. missing: paths of those that are not there.
        unannotated: how many images of this camera no annotation describes; no reason to worry, unless they are
        strays: those among annotated frames, whose annotation must have been lost on the way.
        damaged: images, or annotation files of single frames, that cannot be used.
        blocked: why none of it can be converted, or "".
        film: the video that stands for the pictures, or None.
    """

    sequence: str
    camera: str
    split: str
    annotated: int
    wanted: int
    pictures: list[Picture]
    missing: list[str]
    unannotated: int = 0
    strays: list[str] = field(default_factory=list)
    damaged: list[Trouble] = field(default_factory=list)
    blocked: str = ""
    film: Film | None = None

    @property
    def ready(self) -> int:
        """Images that can be converted, as far as they have been looked at."""
        if self.blocked:
            return 0
        if self.film is not None:
            return self.film.wanted
        broken = {trouble.path for trouble in self.damaged}
        return sum(picture.path not in broken for picture in self.pictures)

    @property
    def bytes(self) -> int:
        """Size of the image files; of a video's frames, what they will take as JPEGs."""
        filmed = self.film.wanted * self.film.frame_bytes if self.film is not None else 0
        return filmed + sum(picture.bytes for picture in self.pictures)


@dataclass
class Inventory:
    """What is there of one data set.

    Attributes:
        views: everything that could be converted, in order.
        absent: parts of the split manifest of which nothing is there, and how to get them.
        troubles: files whose absence or damage costs more than single images.
        strangers: what lies there and the split manifest does not know.
        notes: what else is worth knowing.
        read: what annotation files were opened, in words.
    """

    views: list[View] = field(default_factory=list)
    absent: list[Trouble] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    read: str = ""

    @property
    def wanted(self) -> int:
        """Images that the split manifest takes of what is annotated."""
        return sum(view.wanted for view in self.views)

    @property
    def ready(self) -> int:
        """Images that can be converted."""
        return sum(view.ready for view in self.views)

    @property
    def complete(self) -> bool:
        """Whether everything that the split manifest takes is there and whole, as far as it was looked at."""
        lost = any(view.strays for view in self.views)
        return not (self.absent or self.troubles or lost) and 0 < self.wanted == self.ready


class Inventorist(Protocol):
    """What each module of this folder offers (modules are checked against it where they are listed)."""

    TITLE: str
    """Name of the data set, as people say it."""
    LAYOUT: str
    """What its root holds, in a few words."""
    PAGE: str
    """Page of the documentation that says where its owners give it out and what goes where."""
    SOURCE: Source
    """Who reads the data, with their terms and split manifest."""

    def recognises(self, tree: Tree) -> bool:
        """Whether this looks like the root of the data set, complete or not; from names alone."""
        ...

    def inventory(self, tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
        """What is there. ``thorough`` reads every annotation file instead of a sample, where there are many."""
        ...


def view_of(
    tree: Tree,
    part: Part,
    camera: str,
    frames: Sequence[int],
    splits: SplitManifest,
    place: Callable[[int], str],
    size: Callable[[int], tuple[int, int] | None],
    unannotated: int = 0,
) -> View:
    """The line of one part and camera.

    Args:
        tree: where to look.
        part: of the split manifest.
        camera: its name.
        frames: the annotated frames or image ids of the part's sequence, in order.
        splits: decides which of them are taken.
        place: path of a frame's image file.
        size: (height, width) that a frame's annotation refers to.
        unannotated: see ``View``.
    """
    taken = splits.select(part, frames)
    view = View(part.sequence, camera, part.split, len(frames), len(taken), [], [], unannotated)
    for frame in taken:
        path = place(frame)
        found = tree.size(path)
        if found is None:
            view.missing.append(path)
        else:
            view.pictures.append(Picture(path, found, size(frame)))
    return view


def words_of(tree: Tree, error: ValueError) -> str:
    """What a reader says in one line, with paths relative to the root."""
    return " ".join(str(error).split()).replace(f"{tree.root}/", "")


def trouble_of(tree: Tree, error: ValueError) -> Trouble:
    """What a reader says of the file that its message begins with."""
    path, _, what = words_of(tree, error).partition(": ")
    return Trouble(path, what)


def archives(tree: Tree, folders: Iterable[str]) -> list[str]:
    """Notes on archives that lie in these folders: a common reason why nothing else does."""
    endings = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".part", ".crdownload")
    found = [f"{folder}/{name}".lstrip("/") for folder in folders for name in tree.names(folder)]
    return [f"{path} is not unpacked, or still on its way" for path in found if path.lower().endswith(endings)]


def spread(items: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the items, evenly spread from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)] if count > 1 else [items[0]]
