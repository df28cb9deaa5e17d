"""From original data to Parquet: Ray tasks over pieces of a source, then a manifest that says what there is.

    OUT/manifest.json                  counts, drops by reason, terms, fingerprint; written last
    OUT/index.parquet                  split, key and image hash of every row
    OUT/{train,val,test}/shard-00000.parquet

Which source frames share a Parquet shard is decided before the work starts, from the listing alone, so the
same input gives the same shards whatever the number of nodes and the order in which they finish. Each shard
is written by one task, row group by row group, and appears whole. A conversion that was interrupted goes on
where it stopped; a finished one is a no-op.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import ray
from tqdm import tqdm

from das.skeleton import skeleton_named
from pipeline.cluster import ClusterConfig, absolute_storage, connect
from pipeline.datasets import coco, muco, mupots, panoptic, synthetic
from pipeline.datasets.source import Drop, Shard, Source
from pipeline.schema import VERSION as SCHEMA_VERSION
from pipeline.schema import Record
from pipeline.splits import SPLITS, Split, SplitManifest
from pipeline.storage import clean, delete, exists, join, names, read_json, write_columns, write_json, write_records
from pipeline.tracking import code_version

# Raised whenever the same original data would give other rows.
CONVERTER_VERSION = 1

SOURCES: dict[str, Source] = {
    "panoptic": panoptic,
    "muco": muco,
    "mupots": mupots,
    "coco": coco,
    "synthetic": synthetic,
}

_PARTS = "_parts"


@dataclass(frozen=True)
class ConvertConfig:
    """One conversion: which original data become which prepared folder."""

    source: Literal["panoptic", "muco", "mupots", "coco", "synthetic"]
    """Kind of the original data."""
    root: str
    """Folder of the original data, as their owners ship them; every node must see it."""
    out: str
    """Prepared folder, or URI of object storage, to write."""
    splits: tuple[Split, ...] = SPLITS
    """Splits to convert."""
    as_split: Split | None = None
    """Put all rows into this split: to train on photos of a test set, for example."""
    sequences: tuple[str, ...] = ()
    """Only these sequences of the split manifest; empty means all that exist."""
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
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it runs, when Ray is not running yet."""

    def __post_init__(self) -> None:
        if not self.splits:
            raise ValueError("splits is empty, wanted some of train, val, test")
        if "://" in self.root:
            raise ValueError(f"root = {self.root!r}, wanted a folder: original data are read as plain files")
        if self.shard_mb <= 0:
            raise ValueError(f"shard_mb = {self.shard_mb}, wanted above 0")
        if self.rows_per_group < 1:
            raise ValueError(f"rows_per_group = {self.rows_per_group}, wanted at least 1")


@dataclass(frozen=True)
class SplitInfo:
    """What a prepared folder holds of one split.

    Attributes:
        images: number of rows. people: people in them, ignore areas and invalid people included.
        ignored: ignore areas. invalid: people whose annotation the source does not stand behind.
        image_bytes: encoded images, bytes.
        drops: frames without a row, by reason. sequences: rows by sequence.
        shards: Parquet files, relative to the prepared folder.
    """

    images: int
    people: int
    ignored: int
    invalid: int
    image_bytes: int
    drops: dict[str, int]
    sequences: dict[str, int]
    shards: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder is; its presence says that the conversion is finished.

    Attributes:
        schema_version, converter_version, code_version: of what wrote it.
        source: kind of the original data. terms: what their owners ask for.
        skeletons: joint sets of the rows. split_manifest: identity of the split manifest.
        fingerprint: hash of all rows, joint sets, split manifest and versions, whatever the order and
        packing.
        inputs: hash of the work list: what a rerun compares.
        splits: what there is, by split.
    """

    schema_version: int
    converter_version: int
    code_version: str
    source: str
    terms: str
    skeletons: tuple[str, ...]
    split_manifest: str
    fingerprint: str
    inputs: str
    splits: dict[str, SplitInfo]

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.source}: fingerprint {self.fingerprint[:12]}, splits {self.split_manifest}"]
        for name, info in self.splits.items():
            size = f"{info.image_bytes / 1e6:.1f} MB in {len(info.shards)} shards"
            lines.append(f"  {name}: {info.images} images, {info.people} people, {size}")
            lines += (f"    dropped {n}: {reason}" for reason, n in sorted(info.drops.items()))
        return "\n".join((*lines, f"  terms: {self.terms}"))


def load_manifest(prepared: str) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        ValueError: the folder or its manifest is missing (the conversion did not finish), the manifest is
            malformed, or the rows have another schema version.
    """
    uri = join(prepared, "manifest.json")
    if not exists(uri):
        state = "holds no manifest: its conversion did not finish" if exists(prepared) else "does not exist"
        raise ValueError(f"{prepared} {state}; wanted a folder made by `das prepare`")
    content = read_json(uri)
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version") if isinstance(content, dict) else content
        raise ValueError(f"{uri}: schema version {found}, wanted {SCHEMA_VERSION}: prepare the data again")
    try:
        splits = {
            name: SplitInfo(**{**info, "shards": tuple(info["shards"])})
            for name, info in content["splits"].items()
        }
        return Manifest(**{**content, "splits": splits, "skeletons": tuple(content["skeletons"])})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{uri}: not a manifest ({error!r})") from error


def split_info(prepared: str, split: str) -> SplitInfo:
    """What a prepared folder holds of one split; ValueError when it holds none, or from ``load_manifest``."""
    manifest = load_manifest(prepared)
    if split not in manifest.splits:
        raise ValueError(f"{prepared}: no split {split!r}, found {', '.join(manifest.splits)}")
    return manifest.splits[split]


def convert(config: ConvertConfig) -> Manifest:
    """Converts, or finds it done; Ray is started when it is not running.

    Raises:
        ValueError: the source is missing, malformed or empty, two of its images share a key, or ``out`` holds
            a finished conversion of something else. Finished shards stay for the next attempt; no manifest is
            written.
    """
    # Tasks run in folders of their own.
    config = replace(config, out=absolute_storage(config.out))
    splits, shards = _list(config)
    work = _pack(shards, config)
    inputs = hashlib.sha256("".join(w.id for w in work).encode()).hexdigest()
    if exists(join(config.out, "manifest.json")):
        done = load_manifest(config.out)
        if done.inputs != inputs:
            raise ValueError(
                f"{config.out} holds a finished conversion of {done.source} from other files or with other options "
                f"(inputs {done.inputs[:12]}, wanted {inputs[:12]}): choose another folder or delete it"
            )
        print(f"{config.out}: converted before, nothing to do")
        return done
    if not ray.is_initialized():
        connect(config.cluster)
    reports = _run(work, sum(len(s.frames) for s in shards))
    return _finish(config, splits, inputs, reports)


def _list(config: ConvertConfig) -> tuple[SplitManifest, list[Shard]]:
    """The split manifest in force, and all pieces of the source, in order."""
    source = SOURCES[config.source]
    splits = source.SPLITS
    if config.sequences:
        known = {part.sequence for part in splits.parts}
        if strangers := set(config.sequences) - known:
            found, wanted = ", ".join(sorted(strangers)), ", ".join(sorted(known))
            raise ValueError(f"sequences: found {found}, wanted some of {wanted}")
        splits = replace(splits, parts=tuple(p for p in splits.parts if p.sequence in config.sequences))
    if config.cameras:
        if not splits.cameras:
            raise ValueError(f"cameras = {config.cameras}, but {config.source} has one camera without a name")
        splits = replace(splits, cameras=config.cameras)
    if config.step is not None:
        splits = replace(splits, step=config.step)
    if config.test_frames is not None:
        splits = replace(splits, test_frames=config.test_frames)
    chosen = [split for split in SPLITS if split in config.splits]
    shards = [shard for split in chosen for shard in source.shards(config.root, split, splits)]
    if not shards:
        expected = list(dict.fromkeys(part.sequence for part in splits.parts if part.split in chosen))
        some = ", ".join(expected[:6]) + (", ..." if len(expected) > 6 else "")
        raise ValueError(
            f"{config.source}: {config.root} holds no frames of {', '.join(chosen)}, wanted any of {some or 'none'}"
        )
    if config.as_split is not None:
        shards = [replace(shard, split=config.as_split) for shard in shards]
    return splits, shards


@dataclass(frozen=True)
class Work:
    """The making of one Parquet shard, by one task."""

    out: str
    split: str
    number: int
    shards: tuple[Shard, ...]
    rows_per_group: int

    @property
    def name(self) -> str:
        """The Parquet shard, relative to the prepared folder."""
        return f"{self.split}/shard-{self.number:05d}.parquet"

    @property
    def note(self) -> str:
        """Where the task reports; the presence of the file says that the shard is finished."""
        return join(self.out, _PARTS, f"{self.split}-{self.number:05d}.json")

    @property
    def id(self) -> str:
        """Hash of all that decides the shard's content, wherever the original data lie."""
        pieces = [{**asdict(shard), "root": ""} for shard in self.shards]
        content = [SCHEMA_VERSION, CONVERTER_VERSION, self.name, self.rows_per_group, pieces]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _pack(shards: Sequence[Shard], config: ConvertConfig) -> list[Work]:
    """Neighbouring source shards of one split fill a Parquet shard until the next would exceed its size."""
    limit = config.shard_mb * 1e6
    work: list[Work] = []
    for split in SPLITS:
        groups: list[list[Shard]] = []
        size = 0.0
        for shard in (s for s in shards if s.split == split):
            if not groups or size + shard.image_bytes > limit:
                groups.append([])
                size = 0.0
            groups[-1].append(shard)
            size += shard.image_bytes
        work += (
            Work(config.out, split, i, tuple(group), config.rows_per_group) for i, group in enumerate(groups)
        )
    return work


def _run(work: Sequence[Work], images: int) -> list[dict[str, Any]]:
    """Reports of all work, in order; what an earlier attempt finished is not done again."""
    reports: dict[str, dict[str, Any]] = {}
    todo = []
    progress = tqdm(total=images, unit=" images", delay=2, desc="convert")
    for w in work:
        if (report := _finished(w)) is None:
            todo.append(w)
        else:
            reports[w.name] = report
            progress.update(sum(len(s.frames) for s in w.shards))
    task = ray.remote(num_cpus=1)(write_shard)
    running: dict[Any, Work] = {}
    most = max(4, 2 * int(ray.cluster_resources().get("CPU", 1)))
    with progress:
        try:
            while todo or running:
                while todo and len(running) < most:
                    w = todo.pop(0)
                    running[task.remote(w)] = w
                (ready,), _ = ray.wait([*running], num_returns=1)
                w = running.pop(ready)
                reports[w.name] = ray.get(ready)
                progress.update(sum(len(s.frames) for s in w.shards))
        except ray.exceptions.RayTaskError as error:
            # The user's mistake, without the stack of the worker.
            raise error.cause from error
        finally:
            for ref in running:
                ray.cancel(ref)
    return [reports[w.name] for w in work]


def _finished(work: Work) -> dict[str, Any] | None:
    """The report of an earlier attempt at exactly this work, if its shard is there."""
    if not exists(work.note):
        return None
    report: dict[str, Any] = read_json(work.note)
    whole = report["shard"] is None or exists(join(work.out, work.name))
    return report if report["id"] == work.id and whole else None


def write_shard(work: Work) -> dict[str, Any]:
    """Makes one Parquet shard and its report; runs in a Ray task, holding one row group in memory.

    Returns:
        the report: id, shard (None when every frame was dropped), counts, and ``rows``: key, image hash and
        content hash of every row.
    """
    source = next(SOURCES[shard.source] for shard in work.shards)
    report: dict[str, Any] = {"id": work.id, "split": work.split, "shard": None, "rows": []}
    counts: Counter[str] = Counter(images=0, people=0, ignored=0, invalid=0, image_bytes=0)
    drops: Counter[str] = Counter()
    sequences: Counter[str] = Counter()
    skeletons: set[str] = set()

    def usable() -> Iterator[Record]:
        for item in chain.from_iterable(map(source.records, work.shards)):
            if isinstance(item, Drop):
                drops[item.reason] += 1
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
            report["rows"].append((item.key, item.image_sha256, item.content_hash()))
            yield item

    records = usable()
    first = next(records, None)
    if first is not None:
        write_records(join(work.out, work.name), chain([first], records), work.rows_per_group)
        report["shard"] = work.name
    report |= {"counts": counts, "drops": drops, "sequences": sequences, "skeletons": sorted(skeletons)}
    write_json(work.note, report)
    return report


def _finish(
    config: ConvertConfig, splits: SplitManifest, inputs: str, reports: Sequence[dict[str, Any]]
) -> Manifest:
    """Checks the whole, writes index and manifest, and tidies up."""
    seen: dict[str, str] = {}
    for report in reports:
        for key, _, _ in report["rows"]:
            if key in seen:
                raise ValueError(f"{config.source}: key {key} appears twice, in {seen[key]} and {report['shard']}")
            seen[key] = report["shard"]
    if not seen:
        drops = sum((Counter(report["drops"]) for report in reports), Counter())
        delete(join(config.out, _PARTS))
        raise ValueError(f"{config.source}: {config.root} gives no image: {_listed(drops)}")
    skeletons = sorted({name for report in reports for name in report["skeletons"]})
    rows = [(report["split"], *row) for report in reports for row in report["rows"]]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        converter_version=CONVERTER_VERSION,
        code_version=code_version(),
        source=config.source,
        terms=SOURCES[config.source].TERMS,
        skeletons=tuple(skeletons),
        split_manifest=splits.id,
        fingerprint=_fingerprint(rows, skeletons, splits),
        inputs=inputs,
        splits={
            split: _split_info([r for r in reports if r["split"] == split])
            for split in SPLITS
            if any(r["split"] == split and r["shard"] for r in reports)
        },
    )
    index = {"split": [r[0] for r in rows], "key": [r[1] for r in rows], "image_sha256": [r[2] for r in rows]}
    write_columns(join(config.out, "index.parquet"), index)
    for split in SPLITS:
        clean(join(config.out, split))
        # An interrupted attempt with other options may have left shards that belong to nothing.
        kept = {shard for info in manifest.splits.values() for shard in info.shards}
        for name in names(join(config.out, split)):
            if name.startswith("shard-") and f"{split}/{name}" not in kept:
                delete(join(config.out, split, name))
    write_json(join(config.out, "manifest.json"), asdict(manifest))
    delete(join(config.out, _PARTS))
    return manifest


def _split_info(reports: Sequence[dict[str, Any]]) -> SplitInfo:
    def total(name: str) -> dict[str, int]:
        summed: Counter[str] = Counter()
        for report in reports:
            summed.update(report[name])
        return dict(sorted(summed.items()))

    return SplitInfo(
        **total("counts"),
        drops=total("drops"),
        sequences=total("sequences"),
        shards=tuple(report["shard"] for report in reports if report["shard"]),
    )


def _fingerprint(rows: Sequence[tuple[str, ...]], skeletons: Sequence[str], splits: SplitManifest) -> str:
    """Hash of what the rows are, in the order of their keys; packing, paths and the time do not enter."""
    joints = [skeleton_named(name).to_json() for name in skeletons]
    digest = hashlib.sha256(
        json.dumps([SCHEMA_VERSION, CONVERTER_VERSION, splits.id, joints], sort_keys=True).encode()
    )
    for _, key, _, content in sorted(rows, key=lambda row: row[1]):
        digest.update(f"{key} {content}\n".encode())
    return digest.hexdigest()


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{n} x {reason}" for reason, n in sorted(counts.items())) or "no frames"
