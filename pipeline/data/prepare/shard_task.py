"""The making of one Parquet shard by one task: some source shards in, a file and a report out.

A report (`_parts/` in the prepared folder) is what a rerun believes in: it appears after its shard, both whole. The
shard's name ends in a hash of its rows, so no attempt, however late or different, can put other rows under a name
that a report or a manifest has given.

A frame that cannot be used is quarantined with its reason, and the frames after it are asked for. Only when a source
says the very same of two frames in a row is the mistake not the frame's own (a camera that the calibration lacks): it
is raised and ends the conversion.
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

from pipeline.data.prepare.shrink_images import reencoded
from pipeline.data.record import Record, RowError, key_of, validate
from pipeline.data.schema import VERSION as SCHEMA_VERSION
from pipeline.data.shards import write_records
from pipeline.data.sources.base import IMAGE_DAMAGED, Chunk, DroppedFrame, unread
from pipeline.infra.files import exists, join, read_json, write_json
from pipeline.infra.prefetch import prefetched

# Raised whenever the same original data would give other rows.
CONVERTER_VERSION = 2

PARTS = "_parts"
"""Folder of reports, in the prepared folder; gone when the conversion is finished."""

ANNOTATION_UNREADABLE = "annotation unreadable"

# Images read while those before them are checked and hashed.
_ITEMS_AHEAD = 16

# What reading an entry of any other form than the owners' gives, or a file that cannot be read, where the source itself
# does not say more. All come from reading: what is written is written outside of the source's generator.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, OSError)

Records = Callable[[Chunk], Iterator[Record | DroppedFrame]]
"""``records`` of a source."""


@dataclass(frozen=True)
class Work:
    """What goes into one Parquet shard."""

    out: str
    """The prepared folder."""
    split: str
    """train, val or test."""
    number: int
    """Of the Parquet shard within its split."""
    shards: tuple[Chunk, ...]
    """Pieces of the source, in order."""
    rows_per_group: int
    """Rows of a Parquet row group."""
    reencode_long_side: int | None = None
    """Images larger than this are made smaller."""

    @property
    def frames(self) -> int:
        """How many frames there are to read."""
        return sum(len(shard.frames) for shard in self.shards)

    @property
    def id(self) -> str:
        """Hash of all that decides the shard's content, wherever the original data lie."""
        pieces = [{**asdict(shard), "root": ""} for shard in self.shards]
        options = [self.split, self.number, self.rows_per_group, self.reencode_long_side]
        content = json.dumps([SCHEMA_VERSION, CONVERTER_VERSION, *options, pieces], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def report(self) -> str:
        """Where the report goes."""
        return join(self.out, PARTS, f"{self.split}-{self.number:05d}-{self.id[:16]}.json")


def finished(work: Work) -> dict[str, Any] | None:
    """The summary of an earlier attempt at exactly this work, if its shard is there and its faults are as they were.

    A file in quarantine that has been mended since is a reason to do the work again.
    """
    if not exists(work.report):
        return None
    report = read_json(work.report)
    if report["id"] != work.id or not (report["shard"] is None or exists(join(work.out, report["shard"]))):
        return None
    root = work.shards[0].root
    if any(not file or _stamp(root, file) != stamp for _, file, _, _, stamp in report["faults"]):
        return None
    return _summary(report)


def write_shard(work: Work, records: Records) -> dict[str, Any]:
    """Makes one Parquet shard and its report; runs in a Ray task, holding a few row groups in memory.

    Returns:
        the report's summary: split, shard (None when no frame gave a row), counts, and by reason or name: drops,
        quarantine, sequences, skeletons. The report also holds, for every row, key, image hash and content hash
        (``rows``), and for every frame in quarantine key, file, reason, detail and the file's state (``faults``).

    Raises:
        ValueError: the source refuses two frames in a row in the same words.
    """
    rows: list[tuple[str, str, str]] = []
    faults: list[tuple[str, str, str, str, list[int] | None]] = []
    counts = no_rows()
    drops: Counter[str] = Counter()
    sequences: Counter[str] = Counter()
    skeletons: set[str] = set()
    # What decides the file's bytes; the rows follow.
    digest = hashlib.sha256(f"{SCHEMA_VERSION} {work.rows_per_group}".encode())

    def usable() -> Iterator[Record]:
        read = prefetched(chain.from_iterable(items(s, records) for s in work.shards), _ITEMS_AHEAD)
        for item in checked(read, work.reencode_long_side):
            if isinstance(item, DroppedFrame):
                if item.recipe:
                    drops[item.reason] += 1
                else:
                    stamp = _stamp(work.shards[0].root, item.file) if item.file else None
                    faults.append((item.key, item.file, item.reason, item.detail, stamp))
                continue
            counts.update(
                images=1,
                people=len(item),
                ignored=int(item.ignore.sum()),
                invalid=int((~item.valid).sum()),
                image_bytes=len(item.image),
            )
            sequences[item.sequence] += 1
            skeletons.add(item.skeleton)
            content = item.content_hash()
            rows.append((item.key, item.image_sha256, content))
            digest.update(f"{item.key} {content}\n".encode())
            yield item

    shard = None
    usables = usable()
    if (first := next(usables, None)) is not None:

        def name() -> str:
            return f"shard-{work.number:05d}-{digest.hexdigest()[:12]}.parquet"

        folder = join(work.out, work.split)
        write_records(join(folder, "shard"), chain([first], usables), work.rows_per_group, validated=True, name=name)
        shard = f"{work.split}/{name()}"
    report = {
        "id": work.id,
        "split": work.split,
        "shard": shard,
        "counts": counts,
        "drops": drops,
        "quarantine": Counter(reason for _, _, reason, _, _ in faults),
        "sequences": sequences,
        "skeletons": sorted(skeletons),
        "rows": rows,
        "faults": faults,
    }
    write_json(work.report, report)
    return _summary(report)


def no_rows() -> Counter[str]:
    """The counts of a report without rows."""
    return Counter(images=0, people=0, ignored=0, invalid=0, image_bytes=0)


def items(shard: Chunk, records: Records) -> Iterator[Record | DroppedFrame]:
    """One record or drop for every frame of a source shard; an annotation that cannot be read is a drop too.

    Raises:
        ValueError: two frames in a row are refused in the same words.
    """
    frames, at = shard.frames, 0
    said: str | None = None
    while at < len(frames):
        try:
            for item in records(replace(shard, frames=frames[at:])):
                assert item.key == _key(shard, frames[at]), (item.key, shard.name, frames[at])
                yield item
                at, said = at + 1, None
            assert at == len(frames), (shard.name, at)
        except _MALFORMED as error:
            words = _words(error)
            if words == said:
                named = isinstance(error, ValueError | OSError)
                raise ValueError(words if named else f"{shard.name}: {words}") from error
            said = words
            yield DroppedFrame(_key(shard, frames[at]), ANNOTATION_UNREADABLE, *_file_and_fault(words, shard.root))
            at += 1


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return unread(error)
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _file_and_fault(words: str, root: str) -> tuple[str, str]:
    """The file that a message begins with, relative to ``root`` ("" if it names none), and what it says of it."""
    named = words.startswith(f"{root}/")
    words = words.replace(f"{root}/", "")
    file, _, fault = words.partition(": ")
    return (file, fault) if named and fault else ("", words)


def checked(items: Iterable[Record | DroppedFrame], reencode_long_side: int | None) -> Iterator[Record | DroppedFrame]:
    """Records made smaller if asked for, and validated; those that fail become drops."""
    for item in items:
        if isinstance(item, Record):
            try:
                if reencode_long_side is not None:
                    item = reencoded(item, reencode_long_side)
            except ValueError as error:
                yield DroppedFrame(item.key, IMAGE_DAMAGED, detail=str(error))
                continue
            try:
                validate(item, with_image=False)  # its bytes were measured and hashed when they were read
            except RowError as error:
                yield DroppedFrame(item.key, f"{error.column} refused", detail=str(error))
                continue
        yield item


def _key(shard: Chunk, frame: int) -> str:
    return key_of(shard.source, shard.sequence, shard.camera, frame)


def _stamp(root: str, file: str) -> list[int] | None:
    """Size and time of change of an original file; None when there is none."""
    try:
        state = (Path(root) / file).stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """What the driver keeps of a report: nothing that grows with the number of frames."""
    return {name: value for name, value in report.items() if name not in ("rows", "faults")}
