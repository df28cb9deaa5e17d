"""The making of one Parquet shard by one task: chunks of the source in, a Parquet file and a report out.

The report, in ``_parts/shards/`` of the prepared folder, is a small JSON file beside a Parquet file of the rows' keys
and image hashes. Shard, rows and JSON are written one after another, each as a whole. A rerun takes a shard as finished
when its JSON is there. The shard's name ends in a hash of its rows, so no attempt can write other rows under a name
that a report or a manifest already names.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.prepare.bucket import Copies, copied, in_bucket, state_in_bucket
from pipeline.data.prepare.frames import RecordReader, read_frames, validated_frames
from pipeline.data.record import Record
from pipeline.data.schema import VERSION as SCHEMA_VERSION
from pipeline.data.shards import write_records
from pipeline.data.sources.base import Chunk, DroppedFrame
from pipeline.infra.columns import write_texts
from pipeline.infra.files import MAX_FILE_BYTES, exists, join, read_json, write_json
from pipeline.infra.prefetch import prefetched

# To be raised whenever the same original data would give other rows.
CONVERTER_VERSION = 4

PARTS = "_parts"
"""Folder, in the prepared folder, of what a conversion needs until it is finished."""
REPORTS = (PARTS, "shards")
"""Path of the folder of reports in the prepared folder, as parts."""
ROWS_ENDING, SUMMARY_ENDING = ".parquet", ".json"
"""Endings of a report's two files."""

# A batch of training holds one open row group for each of its places.
_TRAIN_GROUP_BYTES, _GROUP_BYTES = 4 << 20, 16 << 20

# Frames read ahead in a thread, while those before them are validated and hashed.
_FRAMES_AHEAD = 16

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
    """Chunks of the source, in the order in which they are read."""
    rows_per_group: int
    """Rows of a Parquet row group."""
    reencode_long_side: int | None = None
    """Images larger than this many pixels are made smaller."""
    copies: Copies | None = None
    """What to copy of originals in object storage; None for those that are read where they are."""

    @property
    def frames(self) -> int:
        """Number of frames to read."""
        return sum(len(chunk.frames) for chunk in self.chunks)

    @property
    def bytes_per_group(self) -> int:
        """Bytes of images after which a row group ends."""
        return _TRAIN_GROUP_BYTES if self.split == "train" else _GROUP_BYTES

    @cached_property
    def id(self) -> str:
        """Hash of all that decides the shard's content; the folder of the originals is left out."""
        pieces = [[c.source, c.sequence, c.camera, c.activity, c.split_manifest, c.frames] for c in self.chunks]
        options = [self.split, self.number, self.rows_per_group, self.reencode_long_side]
        content = json.dumps([SCHEMA_VERSION, CONVERTER_VERSION, *options, pieces], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Split and number, for messages."""
        return f"{self.split}-{self.number:05d}"

    @property
    def report(self) -> str:
        """Name of the report's files without their endings."""
        return f"{self.name}-{self.id[:16]}"


def finished_summary(task: ShardTask) -> dict[str, Any] | None:
    """The summary of an earlier attempt at exactly this task, or None when it has to be done (again).

    It has to be done again when its shard is gone, or when a file whose frame went to quarantine has changed since:
    it may have been mended.
    """
    path = report_path(task.out, task.report, SUMMARY_ENDING)
    if not exists(path):
        return None
    report = read_json(path, MAX_FILE_BYTES)
    if report["id"] != task.id or not (report["shard"] is None or exists(join(task.out, report["shard"]))):
        return None
    root = task.chunks[0].root
    if any(not file or _file_state(root, file) != state for _, file, _, _, state in report["faults"]):
        return None
    return _summary(report)


def write_shard(task: ShardTask, read_records: RecordReader) -> dict[str, Any]:
    """As ``_write_shard``, of originals in object storage from copies.

    Raises:
        OSError: an original cannot be copied; names it.
    """
    if task.copies is None:
        return _write_shard(task, read_records, task.chunks[0].root)
    with copied(task.chunks[0].root, task.copies) as folder:
        return _write_shard(task, read_records, folder)


def _write_shard(task: ShardTask, read_records: RecordReader, folder: str) -> dict[str, Any]:
    """Makes one Parquet shard and its report; runs in a Ray task.

    Rows of val and test are written as they are read, so a few row groups are in memory. Those of train are shuffled
    within the shard, which is in memory as a whole: 192 MB of images by default (``ConvertConfig.shard_mb``).

    Args:
        task: what goes into the shard.
        read_records: ``records`` of the source.
        folder: where the originals are read: their root, or that of the copies.

    Returns:
        the report's summary: split, shard (None when no frame gave a row), rows of each row group, counts, sum of the
        rows' contents (``add_contents``), statistics of joints, and by reason or name: drops, changes, quarantine,
        sequences, skeletons. The JSON of the report also holds, for every frame in quarantine, key, file, reason,
        detail and the file's state (``faults``).

    Raises:
        ValueError: the source refuses two frames in a row with the same message.
    """
    root = task.chunks[0].root
    rows: list[tuple[str, str]] = []
    content_sum = "0"
    faults: list[_Fault] = []
    counts = zero_counts()
    drops: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    sequences: Counter[str] = Counter()
    skeletons: set[str] = set()
    statistics = JointStatistics()
    # Hash of what decides the bytes of the file: the layout here, every row below.
    digest = hashlib.sha256(f"{SCHEMA_VERSION} {task.rows_per_group} {task.bytes_per_group}".encode())

    def usable_records() -> Iterator[Record]:
        """Records as they are read; other frames are counted or listed."""
        chunks = (replace(chunk, root=folder) for chunk in task.chunks)
        frames = prefetched(chain.from_iterable(read_frames(c, read_records) for c in chunks), _FRAMES_AHEAD)
        for frame in validated_frames(frames, task.reencode_long_side):
            if isinstance(frame, DroppedFrame):
                if frame.recipe:
                    drops[frame.reason] += 1
                else:
                    state = _file_state(root, frame.file) if frame.file else None
                    faults.append((frame.key, frame.file, frame.reason, frame.detail, state))
            else:
                yield frame

    def counted(records: Iterable[Record]) -> Iterator[Record]:
        """Records as they are written."""
        nonlocal content_sum
        for frame in records:
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
            rows.append((frame.key, frame.image_sha256))
            content_sum = add_contents(content_sum, _row_content(frame.key, content))
            digest.update(f"{frame.key} {content}\n".encode())
            yield frame

    shard = None
    row_groups: tuple[int, ...] = ()
    records: Iterator[Record] = usable_records()
    if task.split == "train":
        records = iter(sorted(records, key=_place_in_shard))
    records = counted(records)
    # The first record is taken here, because a shard without any row must not be written.
    if (first := next(records, None)) is not None:

        def name() -> str:
            return f"shard-{task.number:05d}-{digest.hexdigest()[:12]}.parquet"

        target = join(task.out, task.split, "shard")
        whole = chain([first], records)
        groups = (task.rows_per_group, task.bytes_per_group)
        row_groups = write_records(target, whole, *groups, validated=True, name=name)
        shard = f"{task.split}/{name()}"
    statistics.flush()
    if rows:
        texts = report_path(task.out, task.report, ROWS_ENDING)
        write_texts(texts, ("key", "image_sha256"), rows)
    report = {
        "report": task.report,
        "id": task.id,
        "split": task.split,
        "shard": shard,
        "row_groups": row_groups,
        "counts": counts,
        "content_sum": content_sum,
        "statistics": statistics.to_json(),
        "drops": drops,
        "changes": changes,
        "quarantine": Counter(reason for _, _, reason, _, _ in faults),
        "sequences": sequences,
        "skeletons": sorted(skeletons),
        "faults": faults,
    }
    write_json(report_path(task.out, task.report, SUMMARY_ENDING), report)
    return _summary(report)


def _place_in_shard(record: Record) -> bytes:
    """Orders the rows of a training shard at random, and the same on every machine."""
    return hashlib.sha256(record.key.encode()).digest()


def add_contents(*sums: str) -> str:
    """The sum of rows' contents modulo 2**256, hex: the same in whatever order rows and shards are added.

    It tells apart data that differ by mistake; it does not resist someone who looks for rows of equal sums.
    """
    return f"{sum(int(value, 16) for value in sums) % 2**256:064x}"


def _row_content(key: str, content: str) -> str:
    return hashlib.sha256(f"{key} {content}".encode()).hexdigest()


def report_path(out: str, report: str, ending: str) -> str:
    """Path or URI of one of the two files of a report."""
    return join(out, *REPORTS, report + ending)


def zero_counts() -> Counter[str]:
    """The counts of a report without rows."""
    return Counter(images=0, people=0, ignored=0, invalid=0, image_bytes=0)


def _file_state(root: str, file: str) -> list[int] | None:
    """Size in bytes and time of change in ns of an original file; None when there is none."""
    if in_bucket(root):
        return state_in_bucket(root, file)
    try:
        state = (Path(root) / file).stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """The part of a report that the driver keeps: nothing that grows with the number of frames."""
    return {name: value for name, value in report.items() if name != "faults"}
