"""From original data to Parquet: Ray tasks over pieces of a source, then a manifest that says what there is.

    OUT/manifest.json                  counts, terms, fingerprint, names of all shards; written last
    OUT/index.parquet                  split, key and image hash of every row
    OUT/quarantine.parquet             frames that gave no row though they ought to: key, file, reason; absent if none
    OUT/{train,val,test}/shard-00000-HASH.parquet

Which source frames share a Parquet shard is decided before the work starts, from the listing alone, so the
same input gives the same shards whatever the number of nodes and the order in which they finish. Each shard
is written by one task, row group by row group, and appears whole. A conversion that was interrupted goes on
where it stopped; a finished one is a no-op. What driver and tasks hold in memory does not grow with the number of
frames: reports are read one at a time.

Faults. Refused at once, nothing written: no such folder, a folder that is none of this source, an annotation file or
calibration that is missing or unreadable, a camera that the calibration lacks, a key that appears twice, a folder to
write that is not a conversion's own (output_folder.py). Put in quarantine, one entry a frame: an image that is
missing, damaged or of another size; an annotation that is no JSON, has NaN in it or another number of joints; a row
that ``validate`` refuses, such as a negative depth; in Panoptic's layout also an image whose pose file is missing
between others. The conversion then goes on to its end and fails there, unless ``allow_missing`` takes what there is.
What a recipe leaves out is counted apart (``drops``) and is no fault.

Two at once. Conversions of different inputs exclude each other (pipeline/infra/claims.py); equal ones share their work.
Shards are named by their content and readers open only those that the manifest names, so nothing that a dead attempt's
last task writes late can reach them. All this asks of a file system is that a file appears whole under its name and is
listed from then on: local disks and object storage alike. Originals must not change while they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Annotated, Any

import numpy as np
import ray
from tqdm import tqdm

from das.fields import at_least, check_values
from das.skeleton import skeleton_named
from pipeline.data.catalog import CATALOG, read_splits
from pipeline.data.manifest import INDEX, MANIFEST, QUARANTINE, QUARANTINE_COLUMNS, Manifest, SplitInfo, load_manifest
from pipeline.data.prepare.output_folder import CLAIMS, check_apart, check_own, tidy, writing
from pipeline.data.prepare.shard_task import CONVERTER_VERSION, PARTS, Records, Work, finished, no_rows, write_shard
from pipeline.data.record import key_of
from pipeline.data.schema import VERSION as SCHEMA_VERSION
from pipeline.data.sources.base import Chunk, DroppedFrame, terms_of, unread
from pipeline.data.splits import SPLITS, Split, SplitManifest
from pipeline.infra.claims import Claim, claimed
from pipeline.infra.cluster import ClusterConfig, absolute_storage, connect
from pipeline.infra.code_version import code_version
from pipeline.infra.columns import write_texts
from pipeline.infra.configs import one_of
from pipeline.infra.files import delete, exists, join, read_json, write_json

# Of a Parquet shard; small images would fill its megabytes with too many rows for one report.
_MOST_FRAMES = 8192


@dataclass(frozen=True)
class ConvertConfig:
    """One conversion: which original data become which prepared folder."""

    source: Annotated[str, one_of(CATALOG)]
    """Kind of the original data."""
    root: str
    """Folder of the original data, as their owners ship them; every node must see it."""
    out: str
    """Prepared folder, or URI of object storage, to write."""
    splits: tuple[Split, ...] = SPLITS
    """Splits to convert."""
    split_manifest: str | None = None
    """Which sequences and frames belong to which split: a committed manifest's name (panoptic-release,
    panoptic-smap, muco-release, ...) or a JSON file; None takes the source's own."""
    as_split: Split | None = None
    """Put all rows into this split: to train on photos of a test set, for example."""
    sequences: tuple[str, ...] = ()
    """Only these sequences of the split manifest, of each the same frames as of all; empty means all that exist."""
    cameras: tuple[str, ...] = ()
    """Other cameras than the split manifest's; only for sources in Panoptic's layout."""
    step: int | None = None
    """Take every step-th frame of train and val, instead of what the split manifest says."""
    test_frames: int | None = None
    """Test frames per activity, instead of what the split manifest says."""
    shard_mb: float = 192.0
    """Size of a Parquet shard, MB; a shard is also the unit of work and of reading."""
    rows_per_group: int = 64
    """Rows of a Parquet row group, which is what readers and the converter hold in memory."""
    allow_missing: bool = False
    """Finish without the frames in quarantine, instead of failing because of them."""
    reencode_long_side: int | None = None
    """Make larger images smaller, to this many pixels; by default the files' own bytes are kept."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it runs, when Ray is not running yet."""

    def __post_init__(self) -> None:
        check_values(self, ("source", self.source in CATALOG, f"one of {', '.join(CATALOG)}"))
        if not self.splits:
            raise ValueError("splits is empty, wanted some of train, val, test")
        if "://" in self.root:
            raise ValueError(f"root = {self.root!r}, wanted a folder: original data are read as plain files")
        check_apart(self.root, self.out)
        check_values(self, ("shard_mb", self.shard_mb > 0, "above 0"))
        at_least(self, rows_per_group=1, reencode_long_side=16)


def convert(config: ConvertConfig) -> Manifest:
    """Converts, or finds it done; Ray is started when it is not running.

    Raises:
        ValueError: the source is missing, malformed or empty, two of its images share a key, ``out`` holds a finished
            conversion of something else or files of somebody's, cannot be written or is full, another conversion is
            writing there, or frames went to quarantine and ``allow_missing`` is off. Finished shards stay for the next
            attempt; no manifest is written.
    """
    # Tasks run in folders of their own.
    config = replace(config, out=absolute_storage(config.out))
    try:
        splits, shards = _list(config)
    except OSError as error:
        raise ValueError(f"{config.source}: {unread(error)}") from error
    terms = terms_of(CATALOG[config.source].source, config.root)  # what is wrong with them is told before the long work
    _refuse_duplicates(shards)
    work = _pack(shards, config)
    inputs = hashlib.sha256("".join(w.id for w in work).encode()).hexdigest()
    with writing(config.out):
        return _convert(config, splits, work, inputs, terms)


def _convert(config: ConvertConfig, splits: SplitManifest, work: Sequence[Work], inputs: str, terms: str) -> Manifest:
    """Does the work that is not done yet, in the prepared folder."""
    if (done := _done(config, inputs)) is not None and not exists(join(config.out, PARTS)):
        print(f"{config.out}: converted before, nothing to do")
        return done
    if done is None:
        check_own(config.out)
    with claimed(join(config.out, *CLAIMS), inputs, config.out) as claim:
        if (done := _done(config, inputs)) is not None:  # since we looked, or it was cut off while it tidied up
            if not claim.others():
                tidy(config.out, done)
            return done
        if not ray.is_initialized():
            connect(config.cluster, config.out)
        try:
            summaries = _run(work, CATALOG[config.source].source.records)
            return _finish(config, splits, inputs, terms, work, summaries, claim)
        except (OSError, ValueError):
            # An equal conversion may have finished, and tidied up what this one was working with.
            if (done := _done(config, inputs)) is not None:
                return done
            raise


def _done(config: ConvertConfig, inputs: str) -> Manifest | None:
    """The manifest of the same conversion, finished before; None when there is no manifest.

    Raises:
        ValueError: the folder holds a finished conversion of something else, or one that is incomplete and
            ``allow_missing`` is off.
    """
    if not exists(join(config.out, MANIFEST)):
        return None
    done = load_manifest(config.out)
    if done.inputs != inputs:
        raise ValueError(
            f"{config.out} holds a finished conversion of {done.source} from other files or with other options "
            f"(inputs {done.inputs[:12]}, wanted {inputs[:12]}): choose another folder or delete it"
        )
    if done.quarantine and not config.allow_missing:
        raise ValueError(
            f"{config.out} was converted with --allow-missing and lacks frames ({_listed(done.quarantine)}; listed in "
            f"{QUARANTINE}): to convert files that have been mended since, choose another folder or delete it"
        )
    return done


def _list(config: ConvertConfig) -> tuple[SplitManifest, list[Chunk]]:
    """The split manifest in force, and all pieces of the source, in order."""
    source = CATALOG[config.source].source
    splits = source.SPLITS if config.split_manifest is None else read_splits(config.split_manifest)
    splits = splits.narrowed(config.sequences)
    if config.cameras:
        if not splits.cameras:
            raise ValueError(f"cameras = {config.cameras}, but {config.source} has one camera without a name")
        splits = replace(splits, cameras=config.cameras)
    if config.step is not None:
        splits = replace(splits, step=config.step)
    if config.test_frames is not None:
        splits = replace(splits, test_frames=config.test_frames)
    chosen = [split for split in SPLITS if split in config.splits]
    shards = [shard for split in chosen for shard in source.chunks(config.root, split, splits)]
    if not shards:
        expected = list(dict.fromkeys(part.sequence for part in splits.parts if part.split in chosen))
        some = ", ".join(expected[:6]) + (", ..." if len(expected) > 6 else "")
        raise ValueError(
            f"{config.source}: {config.root} holds no frames of {', '.join(chosen)}, wanted any of {some or 'none'}"
        )
    if config.as_split is not None:
        shards = [replace(shard, split=config.as_split) for shard in shards]
    return splits, [replace(shard, split_manifest=splits.id) for shard in shards]


def _refuse_duplicates(shards: Sequence[Chunk]) -> None:
    """ValueError when a key appears twice; 8 bytes for every frame of one camera are all that is held."""
    groups: dict[tuple[str, str, str], list[Chunk]] = {}
    for shard in shards:
        groups.setdefault((shard.source, shard.sequence, shard.camera), []).append(shard)
    for place, group in groups.items():
        frames, counts = np.unique(np.concatenate([s.frames for s in group]).astype(np.int64), return_counts=True)
        if (counts > 1).any():
            frame = int(frames[counts > 1][0])
            where = [s.name for s in group for _ in range(s.frames.count(frame))]
            raise ValueError(f"{place[0]}: key {key_of(*place, frame)} appears twice, in {where[0]} and {where[1]}")


def _pack(shards: Sequence[Chunk], config: ConvertConfig) -> list[Work]:
    """Neighbouring source shards of one split fill a Parquet shard until the next would exceed its size."""
    limit = config.shard_mb * 1e6
    work: list[Work] = []
    for split in SPLITS:
        groups: list[list[Chunk]] = []
        size, frames = 0.0, 0
        for shard in (s for s in shards if s.split == split):
            if not groups or size + shard.image_bytes > limit or frames + len(shard.frames) > _MOST_FRAMES:
                groups.append([])
                size, frames = 0.0, 0
            groups[-1].append(shard)
            size += shard.image_bytes
            frames += len(shard.frames)
        work += (
            Work(config.out, split, i, tuple(group), config.rows_per_group, config.reencode_long_side)
            for i, group in enumerate(groups)
        )
    return work


def _run(work: Sequence[Work], records: Records) -> list[dict[str, Any]]:
    """Summaries of all work, in order; what an earlier attempt finished is not done again."""
    summaries: dict[int, dict[str, Any]] = {}
    todo = []
    progress = tqdm(total=sum(w.frames for w in work), unit=" images", delay=2, desc="convert")
    for i, w in enumerate(work):
        if (summary := finished(w)) is None:
            todo.append(i)
        else:
            summaries[i] = summary
            progress.update(w.frames)
    task = ray.remote(num_cpus=1)(write_shard)
    running: dict[Any, int] = {}
    most = max(4, 2 * int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(todo)
    with progress:
        try:
            while len(summaries) < len(work):
                for i in islice(waiting, most - len(running)):
                    running[task.remote(work[i], records)] = i
                (ready,), _ = ray.wait([*running], num_returns=1)
                i = running.pop(ready)
                summaries[i] = ray.get(ready)
                progress.update(work[i].frames)
        except ray.exceptions.RayTaskError as error:
            # The user's mistake, without the stack of the worker.
            raise error.cause from error
        finally:
            for ref in running:
                ray.cancel(ref)
    return [summaries[i] for i in range(len(work))]


def _finish(
    config: ConvertConfig,
    splits: SplitManifest,
    inputs: str,
    terms: str,
    work: Sequence[Work],
    summaries: Sequence[dict[str, Any]],
    claim: Claim,
) -> Manifest:
    """Writes the list of faults, index and manifest, in this order, and tidies up."""
    summaries = [*summaries, *_summaries_of_strays(config, splits)]
    quarantine = _total(summaries, "quarantine")
    if quarantine and any(summary["shard"] for summary in summaries):
        write_texts(join(config.out, QUARANTINE), QUARANTINE_COLUMNS, _faults(config, splits, work))
        if not config.allow_missing:
            raise ValueError(_failure(config, quarantine, _faults(config, splits, work)))
    else:
        delete(join(config.out, QUARANTINE))
    if not any(summary["shard"] for summary in summaries):
        found = _listed(quarantine | _total(summaries, "drops"))
        if not claim.others():
            for w in work:
                delete(w.report)
        raise ValueError(f"{config.source}: {config.root} gives no image: {found}")

    skeletons = sorted({name for summary in summaries for name in summary["skeletons"]})
    joints = [skeleton_named(name).to_json() for name in skeletons]
    versions = [SCHEMA_VERSION, CONVERTER_VERSION, splits.id, config.reencode_long_side, joints]
    fingerprint = hashlib.sha256(json.dumps(versions, sort_keys=True).encode())

    def rows() -> Iterator[tuple[str, str, str]]:
        for w in work:
            for key, image, content in read_json(w.report)["rows"]:
                fingerprint.update(f"{key} {content}\n".encode())
                yield w.split, key, image

    write_texts(join(config.out, INDEX), ("split", "key", "image_sha256"), rows())
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        converter_version=CONVERTER_VERSION,
        code_version=code_version(),
        source=config.source,
        terms=terms,
        skeletons=tuple(skeletons),
        split_manifest=splits.id,
        fingerprint=fingerprint.hexdigest(),
        inputs=inputs,
        splits={
            split: _split_info([s for s in summaries if s["split"] == split])
            for split in SPLITS
            if any(s["split"] == split and (s["shard"] or s["quarantine"]) for s in summaries)
        },
        reencode_long_side=config.reencode_long_side,
    )
    write_json(join(config.out, MANIFEST), asdict(manifest))
    if not claim.others():
        tidy(config.out, manifest)
    return manifest


def _faults(config: ConvertConfig, splits: SplitManifest, work: Iterable[Work]) -> Iterator[tuple[str, ...]]:
    """All frames in quarantine, in order, and then images without annotation."""
    for w in work:
        for key, file, reason, detail, _ in read_json(w.report)["faults"]:
            yield w.split, key, file, reason, detail
    for split, drop in _strays(config, splits):
        yield split, drop.key, drop.file, drop.reason, drop.detail


def _strays(config: ConvertConfig, splits: SplitManifest) -> Iterator[tuple[str, DroppedFrame]]:
    """Images that ought to have an annotation and have none, with the split that their rows would be in."""
    if (find := CATALOG[config.source].unannotated_images) is not None:
        for split in (split for split in SPLITS if split in config.splits):
            for drop in find(config.root, split, splits):
                yield config.as_split or split, drop


def _summaries_of_strays(config: ConvertConfig, splits: SplitManifest) -> list[dict[str, Any]]:
    """Their counts, as of work that gave no row."""
    found: dict[str, Counter[str]] = {}
    for split, drop in _strays(config, splits):
        found.setdefault(split, Counter())[drop.reason] += 1
    nothing: dict[str, Any] = {"shard": None, "counts": no_rows(), "drops": {}, "sequences": {}, "skeletons": []}
    return [{**nothing, "split": split, "quarantine": counts} for split, counts in found.items()]


def _failure(config: ConvertConfig, quarantine: Mapping[str, int], faults: Iterable[tuple[str, ...]]) -> str:
    """One line: how many frames are in quarantine, an example of each reason, where the list is, what to do."""
    examples: dict[str, str] = {}
    folders: Counter[tuple[str, str]] = Counter()
    for _, key, file, reason, detail in faults:
        examples.setdefault(reason, ": ".join(part for part in (file or key, detail) if part))
        folders[reason, str(PurePosixPath(file).parent) if file else ""] += 1
    parts = []
    for reason, count in quarantine.items():
        places = [(folder, n) for (r, folder), n in folders.most_common() if r == reason and folder]
        inside = ""
        if places and len(places) < count:
            inside = f" ({'all' if places[0][1] == count else f'{places[0][1]} of them'} in {places[0][0]})"
        parts.append(f"{count} x {reason}{inside}, such as {examples[reason]}")
    return (
        f"{config.source}: {sum(quarantine.values())} frames in quarantine: {'; '.join(parts)}. "
        f"All are listed in {join(config.out, QUARANTINE)}: mend them and run this again, "
        "or add --allow-missing to do without them"
    )


def _split_info(summaries: Sequence[dict[str, Any]]) -> SplitInfo:
    return SplitInfo(
        **_total(summaries, "counts"),
        drops=_total(summaries, "drops"),
        sequences=_total(summaries, "sequences"),
        shards=tuple(summary["shard"] for summary in summaries if summary["shard"]),
        quarantine=_total(summaries, "quarantine"),
    )


def _total(summaries: Iterable[dict[str, Any]], name: str) -> dict[str, int]:
    """The counts of that name, added up, in alphabetical order."""
    summed: Counter[str] = Counter()
    for summary in summaries:
        summed.update(summary[name])
    return dict(sorted(summed.items()))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} x {reason}" for reason, n in sorted(counts.items())) or "no frames"
