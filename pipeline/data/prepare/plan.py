"""The plan of a conversion: all chunks of the source, packed into one task per Parquet shard.

The plan follows from the listing of the originals alone, so the same input gives the same shards on any number of
nodes, in whatever order the tasks finish.

Rows of val and test lie in the order of the listing. Those of train are shuffled once and for all: chunks are cut into
runs of 8 frames, and runs of all sequences and cameras are packed in the order of hashes of their names, so that a
shard, which training reads as a whole, holds a sample of the data and not a few seconds of one camera. Longer runs
would put more neighbouring frames into a shard; shorter ones cost time, because each run is opened by itself: reading
Panoptic's layout takes 0.04 ms a frame longer in runs of 8 than in whole chunks, and 0.22 ms frame by frame. A chunk
that cannot be read in parts (``Chunk.in_order``: frames of a video) stays whole and in the order of the listing; its
shards hold neighbouring frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np

from pipeline.data.prepare.bucket import Copies
from pipeline.data.prepare.shard_task import ShardTask
from pipeline.data.record import key_of
from pipeline.data.sources.base import FRAMES_PER_CHUNK, Chunk, Source
from pipeline.data.splits import SPLITS, Split, SplitManifest

# Limit of frames in one Parquet shard. Without it, megabytes of small images would be too many rows for one report.
_MOST_FRAMES = 8192
FindCopies = Callable[[Sequence[Chunk]], Copies]
"""Which files the task of some chunks has to copy (``bucket.needed``)."""
RUN = 8
"""Frames of training data that stay together when they are shuffled."""


@dataclass(frozen=True)
class Plan:
    """Everything that one conversion does, decided before it starts."""

    source: str
    """Kind of the original data."""
    root: str
    """Folder of the original data."""
    out: str
    """Prepared folder to write."""
    splits: SplitManifest
    """Split manifest, with the changes that the options make."""
    terms: str
    """Terms of use of the original data."""
    tasks: Tasks
    """One for every Parquet shard, by split and number."""
    reencode_long_side: int | None = None
    """Images larger than this many pixels are made smaller."""

    @cached_property
    def inputs(self) -> str:
        """Hash of all tasks: equal for equal originals and options, wherever the folders are."""
        return hashlib.sha256("".join(task.id for task in self.tasks).encode()).hexdigest()


def list_chunks(
    source: Source, name: str, root: str, splits: SplitManifest, chosen: Sequence[Split], as_split: Split | None = None
) -> list[Chunk]:
    """All chunks of the chosen splits of a source, in order.

    Args:
        source: the module that reads the original data.
        name: its name, for the error message.
        root: folder of the original data.
        splits: which sequences and frames belong to which split.
        chosen: splits to convert.
        as_split: the split to put all rows into; None keeps each frame's own.

    Raises:
        ValueError: the source is missing or malformed, or has no frames of these splits.
    """
    in_order = [split for split in SPLITS if split in chosen]
    chunks = [chunk for split in in_order for chunk in source.chunks(root, split, splits)]
    if not chunks:
        expected = list(dict.fromkeys(part.sequence for part in splits.parts if part.split in in_order))
        some = ", ".join(expected[:6]) + (", ..." if len(expected) > 6 else "")
        raise ValueError(f"{name}: {root} holds no frames of {', '.join(in_order)}, wanted any of {some or 'none'}")
    if as_split is not None:
        chunks = [replace(chunk, split=as_split) for chunk in chunks]
    return [replace(chunk, split_manifest=splits.id) for chunk in chunks]


def check_keys_unique(chunks: Sequence[Chunk]) -> None:
    """Checks that no two frames have the same key.

    The frame numbers of one camera are compared at a time, which takes 8 bytes a frame.

    Raises:
        ValueError: a key appears twice; names it and the chunks.
    """
    by_camera: dict[tuple[str, str, str], list[Chunk]] = {}
    for chunk in chunks:
        by_camera.setdefault((chunk.source, chunk.sequence, chunk.camera), []).append(chunk)
    for camera, group in by_camera.items():
        frames, counts = np.unique(np.concatenate([c.frames for c in group]).astype(np.int64), return_counts=True)
        if (counts > 1).any():
            frame = int(frames[counts > 1][0])
            where = [c.name for c in group for _ in range(c.frames.count(frame))]
            raise ValueError(f"{camera[0]}: key {key_of(*camera, frame)} appears twice, in {where[0]} and {where[1]}")


class Tasks(Sequence[ShardTask]):
    """The tasks of a plan, each made when it is asked for: as objects, short runs would take a kilobyte each.

    Args:
        chunks: of the source.
        pieces: (n, 3) int32, the parts of chunks in the order of the rows: index of the chunk, first frame in it, end.
        first: index of the first piece of each task, then n.
        out, rows_per_group, reencode_long_side: of every task.
        copies: for originals in object storage, which files a task has to copy.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk],
        pieces: np.ndarray,
        first: Sequence[int],
        out: str,
        rows_per_group: int,
        reencode_long_side: int | None,
        copies: FindCopies | None = None,
    ) -> None:
        self._copies = copies
        self._chunks, self._pieces, self._first = chunks, pieces, first
        self._out, self._options = out, (rows_per_group, reencode_long_side)
        splits = [chunks[pieces[start, 0]].split for start in first[:-1]]
        begin = {split: splits.index(split) for split in set(splits)}
        self._names = [(split, i - begin[split]) for i, split in enumerate(splits)]

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, i: int) -> ShardTask: ...

    @overload
    def __getitem__(self, i: slice) -> Sequence[ShardTask]: ...

    def __getitem__(self, i: int | slice) -> ShardTask | Sequence[ShardTask]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        split, number = self._names[i]
        i %= len(self)
        parts = self._pieces[self._first[i] : self._first[i + 1]].tolist()
        chunks = tuple(_part(self._chunks[c], start, stop) for c, start, stop in parts)
        return ShardTask(self._out, split, number, chunks, *self._options)

    def complete(self, i: int) -> ShardTask:
        """The task as a worker needs it: with the list of the files that it has to copy."""
        task = self[i]
        return task if self._copies is None else replace(task, copies=self._copies(task.chunks))

    @property
    def frames(self) -> int:
        """Number of frames to read, of all tasks."""
        return int((self._pieces[:, 2] - self._pieces[:, 1]).sum())


def _part(chunk: Chunk, start: int, stop: int) -> Chunk:
    """Some frames of a chunk as a chunk."""
    frames = chunk.frames[start:stop]
    size = chunk.image_bytes * len(frames) // len(chunk.frames)
    return chunk if frames == chunk.frames else replace(chunk, frames=frames, image_bytes=size)


def pack(
    chunks: Sequence[Chunk],
    out: str,
    shard_mb: float,
    rows_per_group: int,
    reencode_long_side: int | None = None,
    copies: FindCopies | None = None,
) -> Tasks:
    """Packs chunks into tasks: neighbours of one split, or shuffled runs, until the next would make a shard too large.

    Args:
        chunks: in the order of the listing.
        out: prepared folder.
        shard_mb: largest size of a shard, MB; a chunk or run that is larger gets a shard for itself.
        rows_per_group: rows of a Parquet row group.
        reencode_long_side: images larger than this many pixels are made smaller.
        copies: as ``Tasks`` takes it.
    """
    limit = shard_mb * 1e6
    bytes_a_frame = np.array([chunk.image_bytes / len(chunk.frames) for chunk in chunks])
    parts = [part for part in _parts(chunks) if len(part)]
    first = []
    at = 0
    for part in parts:
        size, frames = np.inf, 0  # a part begins with a shard of its own
        counts = part[:, 2] - part[:, 1]
        for n, size_here in zip(counts, counts * bytes_a_frame[part[:, 0]], strict=True):
            if size + size_here > limit or frames + n > _MOST_FRAMES:
                first.append(at)
                size, frames = 0.0, 0
            size += size_here
            frames += n
            at += 1
    pieces = np.concatenate(parts) if parts else np.empty((0, 3), np.int32)
    return Tasks(chunks, pieces, [*first, at], out, rows_per_group, reencode_long_side, copies)


def _parts(chunks: Sequence[Chunk]) -> Iterator[np.ndarray]:
    """Pieces of chunks that may share shards, in the order of their rows, as ``Tasks`` takes them."""
    for split in SPLITS:
        here = [c for c, chunk in enumerate(chunks) if chunk.split == split]
        shuffled = [c for c in here if split == "train" and not chunks[c].in_order]
        yield _cut(chunks, shuffled, RUN)[np.argsort(_places(chunks, shuffled), kind="stable")]
        yield _cut(chunks, [c for c in here if split != "train" or chunks[c].in_order], FRAMES_PER_CHUNK)


def _cut(chunks: Sequence[Chunk], some: Sequence[int], most: int) -> np.ndarray:
    """Chunks as (n, 3) pieces of at most ``most`` frames."""
    cuts = []
    for c in some:
        starts = np.arange(0, len(chunks[c].frames), most, dtype=np.int32)
        stops = np.minimum(starts + most, len(chunks[c].frames))
        cuts.append(np.stack([np.full_like(starts, c), starts, stops], axis=1))
    return np.concatenate([np.empty((0, 3), np.int32), *cuts])


def _places(chunks: Sequence[Chunk], some: Sequence[int]) -> np.ndarray:
    """A number for every run of these chunks: its place in the shuffled order, the same on every machine.

    It follows from the run's own key, so other data do not change it.
    """
    keys = (
        key_of(chunks[c].source, chunks[c].sequence, chunks[c].camera, frame)
        for c in some
        for frame in chunks[c].frames[::RUN]
    )
    return np.fromiter((int.from_bytes(hashlib.sha256(f"run {key}".encode()).digest()[:8]) for key in keys), np.uint64)
