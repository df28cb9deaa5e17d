"""Settings of `das prepare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated

from das.fields import at_least, check_values
from pipeline.data.catalog import CATALOG
from pipeline.data.splits import SPLITS, Split
from pipeline.infra.cluster import ClusterConfig, absolute_storage
from pipeline.infra.configs import one_of


@dataclass(frozen=True)
class ConvertConfig:
    """Options of one conversion, from original data to a prepared folder."""

    source: Annotated[str, one_of(CATALOG)]
    """Kind of the original data."""
    root: str
    """Original data, as their owners distribute them: a folder that every node can read at this path, or a URI of
    object storage such as s3://bucket/panoptic."""
    out: str
    """Prepared folder, or URI of object storage, to write."""
    splits: tuple[Split, ...] = SPLITS
    """Splits to convert."""
    split_manifest: str | None = None
    """Which sequences and frames belong to which split: a committed manifest's name (panoptic-release,
    panoptic-smap, muco-release, ...) or a JSON file; None takes the source's own."""
    as_split: Split | None = None
    """Put all rows into this split, for example to train on photos of a test set."""
    sequences: tuple[str, ...] = ()
    """Convert only these sequences of the split manifest, with the same frames of each; empty means all that exist."""
    cameras: tuple[str, ...] = ()
    """Cameras to convert in place of the split manifest's; only for sources in Panoptic's layout."""
    step: int | None = None
    """Take every step-th frame of train and val, in place of the split manifest's step."""
    test_frames: int | None = None
    """Test frames per activity, in place of the split manifest's number."""
    shard_mb: float = 192.0
    """Size of a Parquet shard, MB; a shard is the unit of work, and a task holds one of training data in memory."""
    rows_per_group: int = 64
    """Rows of a Parquet row group, the unit that readers hold in memory; of training data at most 4 MB of images."""
    allow_missing: bool = False
    """Finish without the frames in quarantine, instead of failing because of them."""
    reencode_long_side: int | None = None
    """Resize larger images to this many pixels on the longer side; by default all files are stored byte by byte."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where to run when Ray is not running yet."""

    def __post_init__(self) -> None:
        check_values(self, ("source", self.source in CATALOG, f"one of {', '.join(CATALOG)}"))
        if not self.splits:
            raise ValueError("splits is empty, wanted some of train, val, test")
        check_outside_originals(self.root, self.out)
        check_values(self, ("shard_mb", self.shard_mb > 0, "above 0"))
        at_least(self, rows_per_group=1, reencode_long_side=16)


def check_outside_originals(root: str, out: str) -> None:
    """Checks that the prepared folder and the folder of the originals are apart.

    Raises:
        ValueError: ``out`` is ``root``, is inside of it, or contains it.
    """
    place, source = absolute_storage(out), absolute_storage(root)
    if ("://" in place) != ("://" in source):
        return
    originals, prepared = (PurePosixPath(name.partition("?")[0] if "://" in name else name) for name in (source, place))
    if prepared == originals:
        relation = "is"
    elif prepared.is_relative_to(originals):
        relation = "is inside of"
    elif originals.is_relative_to(prepared):
        relation = "contains"
    else:
        return
    raise ValueError(f"out = {out!r} {relation} the folder of the originals ({root}), wanted a folder apart from it")
