"""The making of one Parquet shard by one task: chunks of the source in, a Parquet file and a report out.

The report, in ``_parts/`` of the prepared folder, is written after its shard, each as a whole. A rerun takes a shard
as finished when its report is there. The shard's name ends in a hash of its rows, so no attempt can write other rows
under a name that a report or a manifest already names.

A frame that cannot be used goes to quarantine with its reason, and reading goes on at the next frame. Only when two
frames in a row are refused with the same message is the fault not that of a single frame (a camera that the
calibration lacks, for example): the error is raised and ends the conversion.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.prepare.shrink_images import shrink
from pipeline.data.record import Record, key_of
from pipeline.data.schema import VERSION as SCHEMA_VERSION
from pipeline.data.shards import write_records
from pipeline.data.sources.base import IMAGE_DAMAGED, Chunk, DroppedFrame
from pipeline.data.validate_record import RowError, validate
from pipeline.infra.files import MAX_FILE_BYTES, exists, join, read_json, write_json
from pipeline.infra.prefetch import prefetched
from pipeline.infra.regular_files import unread

# To be raised whenever the same original data would give other rows.
CONVERTER_VERSION = 4

REPORTS = "_parts"
"""Folder of reports, in the prepared folder; removed when the conversion is finished."""

ANNOTATION_UNREADABLE = "annotation unreadable"

# Frames read ahead in a thread, while those before them are validated and hashed.
_FRAMES_AHEAD = 16

# What a source's ``records`` raises for an entry of another form than the owners', or for a file that cannot be read,
# where the source has no message for it. Errors of writing are not caught: writing happens outside of that generator.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, OSError)

RecordReader = Callable[[Chunk], Iterator[Record | DroppedFrame]]
"""``records`` of a source."""

# A frame in quarantine, as the report lists it: key, file, reason, detail, and the file's size and time of change.
_Fault = tuple[str, str, str, str, list[int] | None]


@dataclass(frozen=True)
class ShardTask:
    """What goes into one Parquet shard."""

    out: str
    """The prepared folder."""
    split: str
    """train, val or test."""
    number: int
    """Number of the Parquet shard within its split."""
    chunks: tuple[Chunk, ...]
    """Chunks of the source, in order."""
    rows_per_group: int
    """Rows of a Parquet row group."""
    reencode_long_side: int | None = None
    """Images larger than this many pixels are made smaller."""

    @property
    def frames(self) -> int:
        """Number of frames to read."""
        return sum(len(chunk.frames) for chunk in self.chunks)

    @property
    def id(self) -> str:
        """Hash of all that decides the shard's content; the folder of the originals is left out."""
        pieces = [{**asdict(chunk), "root": ""} for chunk in self.chunks]
        options = [self.split, self.number, self.rows_per_group, self.reencode_long_side]
        content = json.dumps([SCHEMA_VERSION, CONVERTER_VERSION, *options, pieces], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def report(self) -> str:
        """Path or URI of the report."""
        return join(self.out, REPORTS, f"{self.split}-{self.number:05d}-{self.id[:16]}.json")


def finished_summary(task: ShardTask) -> dict[str, Any] | None:
    """The summary of an earlier attempt at exactly this task, or None when it has to be done (again).

    It has to be done again when its shard is gone, or when a file whose frame went to quarantine has changed since:
    it may have been mended.
    """
    if not exists(task.report):
        return None
    report = read_json(task.report, MAX_FILE_BYTES)
    if report["id"] != task.id or not (report["shard"] is None or exists(join(task.out, report["shard"]))):
        return None
    root = task.chunks[0].root
    if any(not file or _file_state(root, file) != state for _, file, _, _, state in report["faults"]):
        return None
    return _summary(report)


def write_shard(task: ShardTask, read_records: RecordReader) -> dict[str, Any]:
    """Makes one Parquet shard and its report; runs in a Ray task, holding a few row groups in memory.

    Args:
        task: what goes into the shard.
        read_records: ``records`` of the source.

    Returns:
        the report's summary: split, shard (None when no frame gave a row), rows of each row group, counts, statistics
        of joints, and by reason or name: drops, changes, quarantine, sequences, skeletons. The report also holds, for
        every row, key, image hash and content hash (``rows``), and for every frame in quarantine key, file, reason,
        detail and the file's state (``faults``).

    Raises:
        ValueError: the source refuses two frames in a row with the same message.
    """
    root = task.chunks[0].root
    rows: list[tuple[str, str, str]] = []
    faults: list[_Fault] = []
    counts = zero_counts()
    drops: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    sequences: Counter[str] = Counter()
    skeletons: set[str] = set()
    statistics = JointStatistics()
    # Hash of what decides the bytes of the file: the layout here, every row below.
    digest = hashlib.sha256(f"{SCHEMA_VERSION} {task.rows_per_group}".encode())

    def usable_records() -> Iterator[Record]:
        frames = prefetched(chain.from_iterable(read_frames(c, read_records) for c in task.chunks), _FRAMES_AHEAD)
        for frame in validated_frames(frames, task.reencode_long_side):
            if isinstance(frame, DroppedFrame):
                if frame.recipe:
                    drops[frame.reason] += 1
                else:
                    state = _file_state(root, frame.file) if frame.file else None
                    faults.append((frame.key, frame.file, frame.reason, frame.detail, state))
                continue
            counts.update(
                images=1,
                people=len(frame),
                ignored=int(frame.ignore.sum()),
                invalid=int((~frame.valid).sum()),
                image_bytes=len(frame.image),
            )
            sequences[frame.sequence] += 1
            changes.update(frame.changes)
            skeletons.add(frame.skeleton)
            statistics.add(frame)
            content = frame.content_hash()
            rows.append((frame.key, frame.image_sha256, content))
            digest.update(f"{frame.key} {content}\n".encode())
            yield frame

    shard = None
    row_groups: tuple[int, ...] = ()
    records = usable_records()
    # The first record is taken here, because a shard without any row must not be written.
    if (first := next(records, None)) is not None:

        def name() -> str:
            return f"shard-{task.number:05d}-{digest.hexdigest()[:12]}.parquet"

        target = join(task.out, task.split, "shard")
        whole = chain([first], records)
        row_groups = write_records(target, whole, task.rows_per_group, validated=True, name=name)
        shard = f"{task.split}/{name()}"
    statistics.flush()
    report = {
        "id": task.id,
        "split": task.split,
        "shard": shard,
        "row_groups": row_groups,
        "counts": counts,
        "statistics": statistics.to_json(),
        "drops": drops,
        "changes": changes,
        "quarantine": Counter(reason for _, _, reason, _, _ in faults),
        "sequences": sequences,
        "skeletons": sorted(skeletons),
        "rows": rows,
        "faults": faults,
    }
    write_json(task.report, report)
    return _summary(report)


def zero_counts() -> Counter[str]:
    """The counts of a report without rows."""
    return Counter(images=0, people=0, ignored=0, invalid=0, image_bytes=0)


def read_frames(chunk: Chunk, read_records: RecordReader) -> Iterator[Record | DroppedFrame]:
    """Reads a chunk: one record or drop for every frame. An annotation that cannot be read is a drop too.

    An error ends a source's generator, so reading starts again at the frame after the one that failed.

    Raises:
        ValueError: two frames in a row are refused with the same message.
    """
    frames, at = chunk.frames, 0
    last_message: str | None = None
    while at < len(frames):
        try:
            for frame in read_records(replace(chunk, frames=frames[at:])):
                assert frame.key == _key(chunk, frames[at]), (frame.key, chunk.name, frames[at])
                yield frame
                at, last_message = at + 1, None
            assert at == len(frames), (chunk.name, at)
        except _MALFORMED as error:
            message = _message(error)
            if message == last_message:
                names_place = isinstance(error, ValueError | OSError)
                raise ValueError(message if names_place else f"{chunk.name}: {message}") from error
            last_message = message
            file, fault = _split_message(message, chunk.root)
            yield DroppedFrame(_key(chunk, frames[at]), ANNOTATION_UNREADABLE, file, fault)
            at += 1


def _message(error: Exception) -> str:
    """An error of reading as text; the type is named where the error is not one of a source's own."""
    if isinstance(error, OSError):
        return unread(error)
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _split_message(message: str, root: str) -> tuple[str, str]:
    """Splits ``ROOT/FILE: FAULT`` into the file relative to ``root`` and the fault; the file is "" where none is named.

    A message without a file keeps its text, with paths relative to ``root``.
    """
    names_file = message.startswith(f"{root}/")
    message = message.replace(f"{root}/", "")
    file, _, fault = message.partition(": ")
    return (file, fault) if names_file and fault else ("", message)


def validated_frames(
    frames: Iterable[Record | DroppedFrame], reencode_long_side: int | None
) -> Iterator[Record | DroppedFrame]:
    """Shrinks the images of records, if asked for, and validates the records; those that fail become drops.

    Args:
        frames: records and drops.
        reencode_long_side: images larger than this many pixels are made smaller; None keeps all.
    """
    for frame in frames:
        if isinstance(frame, Record):
            try:
                if reencode_long_side is not None:
                    frame = shrink(frame, reencode_long_side)
            except ValueError as error:
                yield DroppedFrame(frame.key, IMAGE_DAMAGED, detail=str(error).removeprefix(f"{frame.key}: "))
                continue
            try:
                validate(frame, with_image=False)  # the source has read the image's size and hash from its bytes
            except RowError as error:
                yield DroppedFrame(frame.key, f"{error.column} refused", detail=error.fault)
                continue
        yield frame


def _key(chunk: Chunk, frame: int) -> str:
    return key_of(chunk.source, chunk.sequence, chunk.camera, frame)


def _file_state(root: str, file: str) -> list[int] | None:
    """Size in bytes and time of change in ns of an original file; None when there is none."""
    try:
        state = (Path(root) / file).stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """The part of a report that the driver keeps: nothing that grows with the number of frames."""
    return {name: value for name, value in report.items() if name not in ("rows", "faults")}
