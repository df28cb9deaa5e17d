"""The plan of a conversion: all chunks of the source, packed into one task per Parquet shard.

The plan follows from the listing of the originals alone, so the same input gives the same shards on any number of
nodes, in whatever order the tasks finish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.data.prepare.shard_task import ShardTask
from pipeline.data.record import key_of
from pipeline.data.sources.base import Chunk, Source
from pipeline.data.splits import SPLITS, Split, SplitManifest

# Limit of frames in one Parquet shard. Without it, megabytes of small images would be too many rows for one report,
# which the driver reads as a whole.
_MOST_FRAMES = 8192


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
    tasks: tuple[ShardTask, ...]
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


def pack(
    chunks: Sequence[Chunk], out: str, shard_mb: float, rows_per_group: int, reencode_long_side: int | None = None
) -> tuple[ShardTask, ...]:
    """Packs chunks into tasks: neighbours of one split share a Parquet shard until the next would make it too large.

    Args:
        chunks: in the order in which their rows are to be stored.
        out: prepared folder.
        shard_mb: largest size of a shard, MB; a chunk that is larger gets a shard for itself.
        rows_per_group: rows of a Parquet row group.
        reencode_long_side: images larger than this many pixels are made smaller.
    """
    limit = shard_mb * 1e6
    tasks: list[ShardTask] = []
    for split in SPLITS:
        groups: list[list[Chunk]] = []
        size, frames = 0.0, 0
        for chunk in (c for c in chunks if c.split == split):
            if not groups or size + chunk.image_bytes > limit or frames + len(chunk.frames) > _MOST_FRAMES:
                groups.append([])
                size, frames = 0.0, 0
            groups[-1].append(chunk)
            size += chunk.image_bytes
            frames += len(chunk.frames)
        tasks += (
            ShardTask(out, split, number, tuple(group), rows_per_group, reencode_long_side)
            for number, group in enumerate(groups)
        )
    return tuple(tasks)
