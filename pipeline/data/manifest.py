"""What a prepared folder says about itself: manifest.json, and the list of what stayed in quarantine.

The manifest is written last and names every file that belongs to the data; readers open those and no others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pipeline.data.schema import check_version
from pipeline.infra.files import exists, join, read_json

MANIFEST = "manifest.json"
"""Of a prepared folder; written last, so its presence says that the folder is complete."""
INDEX = "index.parquet"
"""Split, key and image hash of every row of a prepared folder."""
QUARANTINE = "quarantine.parquet"
"""Key, file, reason and detail of every frame that ought to have given a row and did not; absent if none."""
QUARANTINE_COLUMNS = ("split", "key", "file", "reason", "detail")


@dataclass(frozen=True)
class SplitInfo:
    """What a prepared folder holds of one split.

    Attributes:
        images: number of rows. people: people in them, ignore areas and invalid people included.
        ignored: ignore areas. invalid: people whose annotation the source does not stand behind.
        image_bytes: encoded images, bytes.
        drops: frames that a recipe leaves out, by reason. sequences: rows by sequence.
        shards: Parquet files, relative to the prepared folder.
        quarantine: frames that ought to have given a row and did not, by reason.
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


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder is; its presence says that the conversion is finished.

    Attributes:
        schema_version, converter_version, code_version: of what wrote it.
        source: kind of the original data. terms: what their owners ask for.
        skeletons: joint sets of the rows. split_manifest: identity of the split manifest.
        fingerprint: hash of all rows in the order of the listing, joint sets, split manifest and versions,
            whatever the packing.
        inputs: hash of the work list: what a rerun compares.
        splits: what there is, by split.
        reencode_long_side: larger images were made smaller, to this many pixels; None when all bytes are the
            originals'.
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
        """Frames that ought to have given a row and did not, by reason, of all splits."""
        return dict(sorted(sum((Counter(info.quarantine) for info in self.splits.values()), Counter()).items()))

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.source}: fingerprint {self.fingerprint[:12]}, splits {self.split_manifest}"]
        for name, info in self.splits.items():
            size = f"{info.image_bytes / 1e6:.1f} MB in {len(info.shards)} shards"
            lines.append(f"  {name}: {info.images} images, {info.people} people, {size}")
            lines += (f"    left out {n}: {reason}" for reason, n in sorted(info.drops.items()))
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
            malformed, or the rows have a schema version that is not readable; names the command to type.
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
        splits = {
            name: SplitInfo(**{**info, "shards": tuple(info["shards"])}) for name, info in content["splits"].items()
        }
        return Manifest(**{**content, "splits": splits, "skeletons": tuple(content["skeletons"])})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{uri}: not a manifest ({error!r})") from error
