"""The manifest of a prepared folder (manifest.json): counts, versions, terms and the names of all shards.

It is written last and names every file of the data; readers open those files and no others. The names of the other
files of a prepared folder are here too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.schema import check_version
from pipeline.infra.files import exists, join, read_json

MANIFEST = "manifest.json"
"""File name of the manifest; it is written last, so a folder that has one is complete."""
INDEX = "index.parquet"
"""File of split, key and image hash of every row."""
TRAIN_DIGEST = "train-digest.parquet"
"""File of the digest (digest.py) of the split train; absent without that split."""
QUARANTINE = "quarantine.parquet"
"""File of the frames that should have given a row and did not; absent if there are none."""
QUARANTINE_COLUMNS = ("split", "key", "file", "reason", "detail")
"""Columns of that file, all texts; ``file`` is relative to the folder of the originals."""


@dataclass(frozen=True)
class SplitInfo:
    """Contents of one split of a prepared folder.

    Attributes:
        images: number of rows. people: number of people in them, ignore areas and invalid people included.
        ignored: number of ignore areas. invalid: number of people whose annotation the source marks as unusable.
        image_bytes: size of all encoded images, bytes.
        drops: number of frames that a recipe leaves out, by reason. sequences: number of rows by sequence.
        shards: Parquet files, relative to the prepared folder.
        quarantine: number of frames that should have given a row and did not, by reason.
        changes: number of images of which something is to be said, such as that they were turned, by that.
        row_groups: for every shard, in the order of ``shards``, the number of rows of each Parquet row group. Empty in
            manifests of converter versions before 4.
        statistics: ``JointStatistics.to_json`` of all rows; empty in manifests of converter versions before 4.
        digest: file of the rows' digest, relative to the prepared folder; "" for val and test, and in manifests of
            converter versions before 4.
    """

    images: int
    people: int
    ignored: int
    invalid: int
    image_bytes: int
    drops: dict[str, int]
    sequences: dict[str, int]
    shards: tuple[str, ...]
    quarantine: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    row_groups: tuple[tuple[int, ...], ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json.

    Attributes:
        schema_version, converter_version, code_version: versions of the code that wrote the folder.
        source: kind of the original data. terms: terms of use of the original data.
        skeletons: joint sets of the rows. split_manifest: ``SplitManifest.id``.
        fingerprint: hash of the sum of all rows' hashes, joint sets, split manifest and versions; it depends neither on
            the order of the rows nor on how they are packed into shards.
        inputs: hash of the conversion's tasks; a rerun compares it to find out whether it would do the same.
        splits: contents by split.
        reencode_long_side: larger images were made smaller, to this many pixels; None when all images have their
            original bytes.
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
    reencode_long_side: int | None = None

    @property
    def quarantine(self) -> dict[str, int]:
        """Number of frames that should have given a row and did not, by reason, in all splits together."""
        return dict(sorted(sum((Counter(info.quarantine) for info in self.splits.values()), Counter()).items()))

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.source}: fingerprint {self.fingerprint[:12]}, splits {self.split_manifest}"]
        for name, info in self.splits.items():
            size = f"{info.image_bytes / 1e6:.1f} MB in {len(info.shards)} shards"
            lines.append(f"  {name}: {info.images} images, {info.people} people, {size}")
            lines += (f"    left out {n}: {reason}" for reason, n in sorted(info.drops.items()))
            lines += (f"    {n} images {what}" for what, n in sorted(info.changes.items()))
            lines += (f"    in quarantine {n}: {reason}" for reason, n in sorted(info.quarantine.items()))
        if self.quarantine:
            lines.append(f"  incomplete: {QUARANTINE} beside the manifest lists what is missing and why")
        if self.reencode_long_side is not None:
            lines.append(f"  images encoded again where larger than {self.reencode_long_side} pixels")
        return "\n".join((*lines, f"  terms: {self.terms}"))


def load_manifest(prepared: str) -> Manifest:
    """The manifest of a prepared folder, of any schema version that this code reads.

    Raises:
        ValueError: the folder or its manifest is missing (the conversion did not finish), the manifest is
            malformed, or its schema version is not readable.
    """
    uri = join(prepared, MANIFEST)
    if not exists(uri):
        state = "holds no manifest: its conversion did not finish" if exists(prepared) else "does not exist"
        raise ValueError(f"{prepared} {state}; wanted a folder made by `das prepare`")
    content = read_json(uri)
    if not isinstance(content, dict):
        raise ValueError(f"{uri}: schema version {content}, wanted a manifest of `das prepare`")
    check_version(content.get("schema_version"), uri, str(content.get("source", "SOURCE")))
    try:
        splits = {name: _split_info(info) for name, info in content["splits"].items()}
        return Manifest(**{**content, "splits": splits, "skeletons": tuple(content["skeletons"])})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{uri}: not a manifest ({error!r})") from error


def _split_info(info: dict[str, Any]) -> SplitInfo:
    """One split of the JSON; ValueError when its row groups do not add up to its images."""
    groups = tuple(tuple(rows) for rows in info.get("row_groups", ()))
    if groups and (len(groups) != len(info["shards"]) or sum(map(sum, groups)) != info["images"]):
        found = f"{sum(map(sum, groups))} rows in the row groups of {len(groups)} shards"
        raise ValueError(f"{found}, wanted {info['images']} in {len(info['shards'])}")
    return SplitInfo(**{**info, "shards": tuple(info["shards"]), "row_groups": groups})
