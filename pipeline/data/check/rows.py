"""Frames read as the conversion reads them: the source's own ``records``, and the check of every row.

So the report cannot call data complete that the conversion refuses. A few frames of each camera are read, or all.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace

from pipeline.data.check.base import CameraInventory, Inventory, Problem, evenly_spaced, problem_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources.base import Chunk, DroppedFrame, Source
from pipeline.data.splits import SplitManifest
from pipeline.data.validate_record import RowError, validate

# Errors of an annotation of another form than the owners', as in prepare/shard_task.py.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


def check_rows(tree: Tree, source: Source, splits: SplitManifest, inventory: Inventory, count: int | None) -> int:
    """Adds frames that the conversion would refuse to ``refused`` of each camera.

    Cameras that are read from videos are left out: their frames would be decoded from the beginning.

    Args:
        tree: folder of the data set.
        source: its reader.
        splits: decides which frames are wanted.
        inventory: its inventory, images checked; it is changed.
        count: how many frames of each camera are read, evenly spaced; None reads all.

    Returns:
        how many frames were read.
    """
    chunks: dict[tuple[str, str], list[Chunk]] = {}
    read = 0
    for line in inventory.cameras:
        if line.video is not None or not line.ready:
            continue
        part = (line.sequence, line.split)
        if part not in chunks:
            chunks[part] = _chunks(tree, source, splits, *part, inventory)
        frames = [(chunk, f) for chunk in chunks[part] if chunk.camera == line.camera for f in chunk.frames]
        for i in evenly_spaced(len(frames), len(frames) if count is None else count):
            read += 1
            _read(tree, source, *frames[i], line)
    return read


def _chunks(
    tree: Tree, source: Source, splits: SplitManifest, sequence: str, split: str, inventory: Inventory
) -> list[Chunk]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the inventory has its own notes
            return source.chunks(tree.root, split, splits.narrowed((sequence,), (split,)))
    except ValueError as error:
        if (problem := problem_of(tree, error)) not in inventory.problems:
            inventory.problems.append(problem)
        return []


def _read(tree: Tree, source: Source, chunk: Chunk, frame: int, line: CameraInventory) -> None:
    """Reads one frame; adds a fault that is not known yet to ``line``."""
    problem = next(_faults(tree, source, replace(chunk, frames=(frame,))), None)
    known = [*line.missing, *(known.path for known in line.damaged)]  # of one file, or of one entry of a file
    if problem is None or f"{problem.path}: {problem.what}".startswith(tuple(f"{path}: " for path in known)):
        return
    images = {image.path for image in line.images}
    (line.damaged if problem.path in images else line.refused).append(problem)


def _faults(tree: Tree, source: Source, chunk: Chunk) -> Iterator[Problem]:
    """Why the one frame of a chunk gives no row; nothing if it does."""
    try:
        for item in source.records(chunk):
            if isinstance(item, DroppedFrame):
                if not item.recipe:
                    yield Problem(item.file or item.key, f"{item.reason}: {item.detail}".rstrip(": "))
            else:
                validate(item)
    except RowError as error:
        yield Problem(error.place.removeprefix("record: "), f"column {error.column}: {error.fault}")
    except ValueError as error:
        yield problem_of(tree, error)
    except _MALFORMED as error:
        yield Problem(f"{chunk.sequence} frame {chunk.frames[0]}", f"malformed annotation ({error!r})")
