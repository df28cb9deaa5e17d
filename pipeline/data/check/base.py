"""The interface of an inventory: what `das doctor data` needs to know about the files of one data source.

Every inventory module of this folder handles one source: ``recognises`` decides from names alone whether a folder is
its root, and ``inventory`` compares the files with what the split manifest takes. Neither opens an image. An annotation
file that cannot be used becomes a ``Problem`` in the inventory, not an error, so that one run finds all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.data.check.listing import Tree
from pipeline.data.splits import Part, SplitManifest


@dataclass(frozen=True)
class ImageFile:
    """An image file that the conversion will read.

    Attributes:
        path: relative to the root.
        bytes: its size on the disk.
        size: (height, width) pixels that its annotation refers to, None if that is unknown.
        displayed: whether the conversion turns it by its orientation tag; otherwise a tag is ignored.
    """

    path: str
    bytes: int
    size: tuple[int, int] | None = None
    displayed: bool = False


@dataclass(frozen=True)
class Problem:
    """A file or folder that is missing or cannot be used, relative to the root, and what is wrong with it."""

    path: str
    what: str


@dataclass(frozen=True)
class VideoFile:
    """A video that frames are read from.

    Attributes:
        path: relative to the root.
        length: how many frames it has according to its header.
        wanted: how many of those can be converted, as far as it has been decoded.
        frame_bytes: size of its first frame as a JPEG, as the prepared rows have it.
    """

    path: str
    length: int
    wanted: int
    frame_bytes: int


@dataclass
class CameraInventory:
    """The images of one part of the split manifest and one camera: one row of the report.

    Attributes:
        sequence, camera, split: as in the keys of the prepared rows.
        annotated: number of frames with an annotation.
        wanted: how many of those the split manifest takes.
        images: image files of wanted frames. missing: paths of wanted image files that do not exist.
        unannotated: number of images of this camera without annotation. Harmless, except for those in
        lost_annotations: images between annotated frames, whose annotation file must have been lost.
        damaged: images, or annotation files of single frames, that cannot be used.
        refused: frames that the conversion would refuse for their annotation, found by reading some of them.
        blocked: why no frame can be converted, or "".
        doubt: why annotations may be paired with other frames than theirs, or "": their conversion is not advised.
        video: the video that frames are read from instead of image files, or None.
    """

    sequence: str
    camera: str
    split: str
    annotated: int
    wanted: int
    images: list[ImageFile]
    missing: list[str]
    unannotated: int = 0
    lost_annotations: list[str] = field(default_factory=list)
    damaged: list[Problem] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)
    blocked: str = ""
    doubt: str = ""
    video: VideoFile | None = None

    @property
    def ready(self) -> int:
        """Number of frames that can be converted, as far as their images have been checked."""
        if self.blocked:
            return 0
        if self.video is not None:
            return max(0, self.video.wanted - len(self.refused))
        damaged = {problem.path for problem in self.damaged}
        return max(0, sum(image.path not in damaged for image in self.images) - len(self.refused))

    @property
    def bytes(self) -> int:
        """Size of the image files; for a video, an estimate of its wanted frames as JPEGs."""
        from_video = self.video.wanted * self.video.frame_bytes if self.video is not None else 0
        return from_video + sum(image.bytes for image in self.images)


@dataclass
class Inventory:
    """The files of one data set.

    Attributes:
        cameras: everything that can be converted, one entry per part and camera, in order.
        absent: parts of the split manifest of which no file exists, and how to get them.
        problems: missing or damaged files that cost more than single images.
        unknown: folders that are not in the split manifest, and what they contain.
        notes: further remarks for the report.
        read: which annotation files were read, for the report.
    """

    cameras: list[CameraInventory] = field(default_factory=list)
    absent: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    read: str = ""

    @property
    def wanted(self) -> int:
        """Number of annotated frames that the split manifest takes."""
        return sum(camera.wanted for camera in self.cameras)

    @property
    def ready(self) -> int:
        """Number of frames that can be converted."""
        return sum(camera.ready for camera in self.cameras)

    @property
    def complete(self) -> bool:
        """Whether all files that the split manifest takes exist and none was found to be damaged."""
        lost = any(camera.lost_annotations or camera.doubt for camera in self.cameras)
        return not (self.absent or self.problems or lost) and 0 < self.wanted == self.ready


class InventoryModule(Protocol):
    """What an inventory module has; the type checker compares the modules with it in pipeline/data/catalog.py."""

    TITLE: str
    """Usual name of the data set."""
    LAYOUT: str
    """What its root contains, in a few words."""
    PAGE: str
    """Documentation page: where to get the data and where to put them."""

    def recognises(self, tree: Tree) -> bool:
        """Whether this looks like the root of the data set, complete or not, judged from names alone."""
        ...

    def inventory(self, tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
        """The inventory of a folder.

        Args:
            tree: the folder.
            splits: decides which frames are wanted.
            thorough: read every annotation file instead of a sample, where there are many.
        """
        ...


def camera_inventory(
    tree: Tree,
    part: Part,
    camera: str,
    frames: Sequence[int],
    splits: SplitManifest,
    path_of: Callable[[int], str],
    size_of: Callable[[int], tuple[int, int] | None],
    unannotated: int = 0,
) -> CameraInventory:
    """Looks for the image files of one part and camera.

    Args:
        tree: folder of the data set.
        part: of the split manifest.
        camera: its name.
        frames: the annotated frames or image ids of the part's sequence, in order.
        splits: decides which of them are taken.
        path_of: path of a frame's image file, relative to the root.
        size_of: (height, width) that a frame's annotation refers to.
        unannotated: see ``CameraInventory``.
    """
    taken = splits.select(part, frames)
    found = CameraInventory(part.sequence, camera, part.split, len(frames), len(taken), [], [], unannotated)
    for frame in taken:
        path = path_of(frame)
        size = tree.size(path)
        if size is None:
            found.missing.append(path)
        else:
            found.images.append(ImageFile(path, size, size_of(frame)))
    return found


def message_of(tree: Tree, error: ValueError) -> str:
    """Message of a source's error in one line, with paths relative to the root."""
    return " ".join(str(error).split()).replace(f"{tree.root}/", "")


def problem_of(tree: Tree, error: ValueError) -> Problem:
    """A source's error as a problem of the file that its message begins with."""
    path, _, what = message_of(tree, error).partition(": ")
    return Problem(path, what)


def archives(tree: Tree, folders: Iterable[str]) -> list[str]:
    """Notes on archives and partial downloads in these folders, a common reason why other files are missing."""
    endings = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".part", ".crdownload")
    found = [f"{folder}/{name}".lstrip("/") for folder in folders for name in tree.names(folder)]
    return [f"{path} is not unpacked, or still being downloaded" for path in found if path.lower().endswith(endings)]


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most ``count`` of the indices 0 to n - 1, evenly spaced, the first and the last among them."""
    return [int(i) for i in np.linspace(0, n - 1, min(n, count)).round()]
