"""The interface of a data source: four functions that every source module of this folder has.

``chunks`` lists the frames cheaply, without opening images; ``records`` reads one chunk, image by image, in bounded
memory. ``listed_files`` and ``files`` name the files that these two open, so that data in object storage can be copied
piece by piece (prepare/bucket.py). All are plain functions of picklable values, so any number of machines can share the
work. A frame that cannot be used gives a ``DroppedFrame`` with its reason; no frame is skipped silently.

Errors. A fault of the whole source (wrong folder, no annotation file, a sequence without calibration) is a ValueError
of ``chunks``, and the conversion refuses to start. A fault of one frame is a ``DroppedFrame`` or a ValueError of
``records``, and the frame goes to quarantine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from das.skeleton import Skeleton
from pipeline.data.encoded_image import image_size, orientation, scaled_to_8_bits
from pipeline.data.record import Record, key_of
from pipeline.data.splits import Part, SplitManifest
from pipeline.infra.image_headers import MAX_IMAGE_BYTES
from pipeline.infra.regular_files import check_inside, kept_inside, read_file

# Frames of a chunk: few enough to share the work evenly among workers, enough to hide the overhead of a task.
FRAMES_PER_CHUNK = 256


@dataclass(frozen=True)
class Chunk:
    """Frames of one sequence and camera that one call of ``records`` reads."""

    source: str
    """Name of the data set, the first part of every key."""
    root: str
    """Absolute path of the folder of original data."""
    split: str
    """train, val or test."""
    sequence: str
    """Its name in the split manifest."""
    camera: str
    """Name of the camera."""
    activity: str
    """Group of sequences that a benchmark averages over, or ""."""
    frames: tuple[int, ...]
    """Frame numbers or image ids, in order."""
    image_bytes: int
    """Estimated size of its images; decides how many chunks share a Parquet shard."""
    split_manifest: str = ""
    """Id of the split manifest that chose the frames; the converter fills it in."""
    in_order: bool = False
    """Whether reading a part of it takes nearly as long as reading all of it, as in a video, which is decoded from its
    start. Such chunks are not cut into short runs when training rows are shuffled."""

    @property
    def name(self) -> str:
        """Unique, the same in every run; names sort in the order of the frames."""
        first, last = self.frames[0], self.frames[-1]
        return f"{self.source}/{self.split}/{self.sequence}/{self.camera}/{first:08d}-{last:08d}"


@dataclass(frozen=True)
class DroppedFrame:
    """A frame that gives no record, and why.

    Frames that a recipe leaves out are counted; all others are faults of the data and go to quarantine.
    """

    key: str
    """Key that its row would have."""
    reason: str
    """One of a few constant texts, so that frames can be counted by reason."""
    file: str = field(default="", compare=False)
    """The file at fault, relative to the source's root; "" if it is not known."""
    detail: str = field(default="", compare=False)
    """What was found in it."""
    recipe: bool = False
    """Whether a recipe leaves the frame out, although nothing is wrong with it."""


IMAGE_MISSING = "image missing"
IMAGE_UNREADABLE = "image unreadable"
IMAGE_DAMAGED = "image damaged"
IMAGE_OTHER_SIZE = "image size differs from annotation"
ANNOTATION_MISSING = "image without annotation"


TURNED = "turned by an orientation tag (EXIF)"
NOT_TURNED = "with an orientation tag (EXIF) that is not applied: annotations refer to the stored pixels"


@dataclass(frozen=True)
class EncodedImage:
    """A JPEG or PNG, its (height, width) in pixels, and what is to be said of it, in a few constant texts."""

    data: bytes
    size: tuple[int, int]
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoImage:
    """Why a frame has no usable image: one of the reasons above, the file, and what was found in it."""

    reason: str
    file: Path
    detail: str = ""


@dataclass(frozen=True)
class ChunkFiles:
    """Files that ``records`` opens for a chunk, relative to the root; they need not exist."""

    shared: tuple[str, ...]
    """Files of many chunks: annotations, calibration, videos."""
    own: tuple[str, ...]
    """Files of these frames alone: images, pose files."""


class Source(Protocol):
    """What a source module has; the type checker compares the modules with it in pipeline/data/catalog.py."""

    TERMS: str
    """Terms under which the owners publish the data, in a sentence, and where to read them."""
    SKELETONS: tuple[Skeleton, ...]
    """Joint sets that its records may have; empty for data that define their own."""
    SPLITS: SplitManifest
    """Split manifest that is used when none is given."""

    def chunks(self, root: str | Path, split: str, splits: SplitManifest = ...) -> list[Chunk]:
        """The chunks of one split, in the same order in every run; empty when the source has no such split.

        Raises:
            ValueError: the folder, or an annotation or calibration file in it, is missing or unreadable.
        """
        ...

    def listed_files(self, splits: SplitManifest) -> Iterable[str]:
        """Files that ``chunks`` opens, relative to the root, where they exist; of all others it needs name and size."""
        ...

    def files(self, chunk: Chunk) -> ChunkFiles:
        """Files that ``records`` opens for a chunk, of those that exist; opens none but ``listed_files``.

        Raises:
            ValueError: as ``chunks``.
        """
        ...

    def records(self, chunk: Chunk) -> Iterator[Record | DroppedFrame]:
        """Exactly one record or dropped frame per frame of the chunk, in order.

        Raises:
            ValueError: the annotation of the next frame is malformed; the message names its file. The converter puts
                that frame in quarantine and goes on with a chunk of the frames after it.
        """
        ...


@dataclass
class Person:
    """One annotated person; ``make_record`` stacks them.

    Attributes:
        id: as in the source.
        joints_uv: (J, 2) pixels of the stored image. joints_cam, joints_cam_univ: (J, 3) mm of the camera, or None.
        state: (J,) 0 unlabelled, 1 occluded, 2 visible. confidence: (J,) or None.
        bbox: (4,) x0 y0 x1 y1 pixels.
        ignore: whether it is a crowd or a person without joints. valid: whether the annotation may be used.
    """

    id: int
    joints_uv: np.ndarray
    state: np.ndarray
    bbox: np.ndarray
    joints_cam: np.ndarray | None = None
    joints_cam_univ: np.ndarray | None = None
    confidence: np.ndarray | None = None
    ignore: bool = False
    valid: bool = True


def require_folder(root: str | Path, what: str) -> Path:
    """``root`` as an absolute path; ValueError naming it when it is not a folder."""
    folder = Path(root).resolve()
    if not folder.is_dir():
        raise ValueError(f"{what}: no folder {folder}")
    return folder


def require_file(root: Path, names: Iterable[str], what: str) -> Path:
    """The first of these files of a folder that exists.

    Raises:
        ValueError: none exists (names all of them), or the file leads out of the folder.
    """
    paths = [root / name for name in names]
    for path in paths:
        if path.is_file():
            return kept_inside(root, path)
    raise ValueError(f"{what}: no file {' or '.join(map(str, paths))}")


def pinhole(intrinsic: Sequence[float] | np.ndarray) -> np.ndarray:
    """Intrinsics K (3, 3) of fx, fy, cx, cy in pixels."""
    fx, fy, cx, cy = intrinsic
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)


def clipped_box(uv: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Tight box (4,) x0 y0 x1 y1 of the points (M, 2), clipped to (height, width) pixels; zeros without points."""
    if not len(uv):
        return np.zeros(4)
    limit = np.array([size[1] - 1.0, size[0] - 1.0])
    return np.concatenate([np.clip(uv.min(axis=0), 0, limit), np.clip(uv.max(axis=0), 0, limit)])


def make_chunks(
    source: str,
    root: Path,
    part: Part,
    camera: str,
    frames: Sequence[int],
    images: Sequence[Path] | int,
    in_order: bool = False,
) -> list[Chunk]:
    """Chunks of at most ``FRAMES_PER_CHUNK`` frames.

    Args:
        source: name of the data set.
        root: absolute path of its folder.
        part: of the split manifest, that the frames belong to.
        camera: its name.
        frames: numbers of the frames, in order.
        images: their image files, or the typical size of an image in bytes.
        in_order: see ``Chunk``.

    Raises:
        ValueError: an image file is a link out of the folder, or in a folder that is; names it.
    """
    if not isinstance(images, int):
        check_inside(root, images)
    chunks = []
    for at in range(0, len(frames), FRAMES_PER_CHUNK):
        some = tuple(frames[at : at + FRAMES_PER_CHUNK])
        if isinstance(images, int):
            size = images * len(some)
        else:
            size = _estimated_bytes(images[at : at + FRAMES_PER_CHUNK])
        place = (source, str(root), part.split, part.sequence, camera, part.activity)
        chunks.append(Chunk(*place, some, size, in_order=in_order))
    return chunks


def _estimated_bytes(images: Sequence[Path], samples: int = 8) -> int:
    """Size of all images, estimated from a few evenly spaced ones: a stat of each is slow on network disks."""
    some = images[:: max(1, len(images) // samples)]
    sizes = 0
    for path in some:
        with suppress(OSError):  # ``records`` reports the image
            sizes += path.stat().st_size
    return sizes * len(images) // len(some)


def _within(file: Path, root: str) -> str:
    """The path relative to the root; unchanged if it is outside."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def read_image(path: Path, root: str | Path, most: int = MAX_IMAGE_BYTES) -> EncodedImage | NoImage:
    """An image file's bytes, or why they cannot be used; ``root`` and ``most`` as in ``regular_file``.

    They are unchanged, except for 16-bit files whose values do not fill them: these become 8-bit files.
    """
    try:
        data = read_file(path, most, root)
        size = image_size(data)
        changes: tuple[str, ...] = () if orientation(data) == 1 else (NOT_TURNED,)
        data, bits = scaled_to_8_bits(data)
        if bits is not None:
            changes += (f"{bits}-bit values in a 16-bit file, scaled by {2**bits - 1}",)
        return EncodedImage(data, size, changes)
    except (FileNotFoundError, NotADirectoryError):
        return NoImage(IMAGE_MISSING, path, "a link to a file that does not exist" if path.is_symlink() else "")
    except OSError as error:
        return NoImage(IMAGE_UNREADABLE, path, error.strerror or str(error))
    except ValueError as error:
        return NoImage(IMAGE_DAMAGED, path, str(error))


def drop_frame(chunk: Chunk, frame: int, why: NoImage) -> DroppedFrame:
    """The dropped frame for a frame of the chunk that has no usable image."""
    key = key_of(chunk.source, chunk.sequence, chunk.camera, frame)
    return DroppedFrame(key, why.reason, _within(why.file, chunk.root), why.detail)


def make_record(
    chunk: Chunk,
    frame: int,
    image: Path | EncodedImage | NoImage,
    size: tuple[int, int],
    skeleton: Skeleton,
    people: Sequence[Person],
    K: np.ndarray | None = None,
    distortion: np.ndarray | None = None,
    R: np.ndarray | None = None,
    t_mm: np.ndarray | None = None,
) -> Record | DroppedFrame:
    """The record of one frame, its image as ``read_image`` gives it, or the dropped frame if the image cannot be used.

    Args:
        chunk: that the frame belongs to.
        frame: its number, one of the chunk's.
        image: path of the image file, the image itself, or why there is none.
        size: (height, width) pixels that the annotation refers to.
        skeleton: joint set of the people.
        people: may be empty; an optional field must be given for all of them or for none.
        K: (3, 3) pixels, or None for an unknown camera.
        distortion: (5,) or (12,) in OpenCV's order, or None.
        R: (3, 3) world to camera, or None for sources without a world frame.
        t_mm: (3,) with R, mm.
    """
    key = key_of(chunk.source, chunk.sequence, chunk.camera, frame)
    file = image if isinstance(image, Path) else None
    if isinstance(image, Path):
        image = read_image(image, chunk.root)
    if isinstance(image, NoImage):
        return drop_frame(chunk, frame, image)
    if image.size != size:
        sizes = f"found {image.size[1]}x{image.size[0]} pixels, wanted {size[1]}x{size[0]}"
        return DroppedFrame(key, IMAGE_OTHER_SIZE, _within(file, chunk.root) if file else "", sizes)
    joints = len(skeleton)

    def stack(name: str, dtype: type[np.generic], *shape: int) -> np.ndarray:
        return np.array([getattr(p, name) for p in people], dtype).reshape(len(people), *shape)

    def stack_if_any(name: str, *shape: int) -> np.ndarray | None:
        present = [getattr(p, name) is not None for p in people]
        assert all(present) or not any(present), (key, name)
        return stack(name, np.float32, *shape) if any(present) else None

    return Record(
        key=key,
        source=chunk.source,
        sequence=chunk.sequence,
        camera=chunk.camera,
        frame=frame,
        split=chunk.split,
        split_manifest=chunk.split_manifest,
        activity=chunk.activity,
        skeleton=skeleton.text,
        image=image.data,
        image_sha256=hashlib.sha256(image.data).hexdigest(),
        height=size[0],
        width=size[1],
        K=K,
        distortion=distortion,
        R=R,
        t_mm=t_mm,
        person_id=stack("id", np.int64),
        joints_uv=stack("joints_uv", np.float32, joints, 2),
        joints_cam=stack_if_any("joints_cam", joints, 3),
        joints_cam_univ=stack_if_any("joints_cam_univ", joints, 3),
        confidence=stack_if_any("confidence", joints),
        state=stack("state", np.uint8, joints),
        bbox=stack("bbox", np.float32, 4),
        ignore=stack("ignore", np.bool_),
        valid=stack("valid", np.bool_),
        changes=image.changes,
    )
