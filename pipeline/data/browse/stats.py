"""`das data stats PREPARED`: what is in prepared data, in numbers and plots, without reading an image.

People per image, depths, bone lengths and the visibility of joints come from all rows. Pyramid levels and feature
points (Section 3.2) depend on a model and on the size at which it sees images; they are counted on evenly spread
rows, because the assignment is the slow part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from tqdm import tqdm

from das.config import VARIANTS
from das.fields import at_least
from das.recipe import RECIPES
from pipeline.data.browse.assignment import Network, network
from pipeline.data.browse.measures import LevelStatistics, SplitStatistics
from pipeline.data.browse.page import page_of
from pipeline.data.browse.stats_tables import plots_of, tables_of
from pipeline.data.manifest import Manifest, SplitInfo, load_manifest
from pipeline.data.record import Record
from pipeline.data.shards import list_shards, read_records
from pipeline.data.splits import SPLITS, Split
from pipeline.infra.configs import one_of
from pipeline.infra.files import write_bytes
from pipeline.infra.text_tables import Table


@dataclass(frozen=True)
class StatsConfig:
    """Which prepared data are measured, and through which network's eyes."""

    prepared: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PREPARED")]
    """Prepared folder, or its URI."""
    splits: tuple[Split, ...] = SPLITS
    """Splits to measure; those that the folder lacks are left out."""
    variant: Annotated[str, one_of(VARIANTS)] | None = None
    """Model whose levels and feature points are counted; None takes the released one for these joints."""
    recipe: Annotated[str, one_of(RECIPES)] | None = None
    """Recipe whose size the network sees images at; None takes the one that belongs to these joints."""
    assigned: int = 1000
    """Images of each split whose feature points are assigned, evenly spread; 0 for none."""
    out: str = "data-stats.html"
    """Page with tables and plots, in one file without any other."""

    def __post_init__(self) -> None:
        at_least(self, assigned=0)
        if not self.splits:
            raise ValueError("splits is empty, wanted some of train, val, test")


@dataclass(frozen=True)
class DataStatistics:
    """What was measured of a prepared folder.

    Attributes:
        prepared: the folder. manifest: its own. splits: by name. page: where the page was written.
    """

    prepared: str
    manifest: Manifest
    splits: dict[str, SplitStatistics]
    page: str

    def tables(self) -> list[Table]:
        """Everything as numbers."""
        return list(tables_of(self.splits))

    def summary(self) -> str:
        """Tables for the terminal, and where the page is."""
        head = f"{self.manifest.source}: {self.prepared}, fingerprint {self.manifest.fingerprint[:12]}"
        return "\n\n".join((head, *(table.text() for table in self.tables()), f"page: {self.page}"))


def stats(config: StatsConfig) -> DataStatistics:
    """Measures and writes the page.

    Raises:
        ValueError: no finished prepared folder, or none of the splits in it.
    """
    manifest = load_manifest(config.prepared)
    names: list[str] = [split for split in SPLITS if split in config.splits and split in manifest.splits]
    if not names:
        raise ValueError(f"splits = {', '.join(config.splits)}, but {config.prepared} has {', '.join(manifest.splits)}")
    eyes = network(config.variant, config.recipe, manifest.skeletons)
    splits = {name: _measure(config, name, manifest.splits[name], eyes) for name in names}
    found = DataStatistics(config.prepared, manifest, splits, config.out)
    facts = {
        "source": manifest.source,
        "folder": config.prepared,
        "fingerprint": manifest.fingerprint,
        "split manifest": manifest.split_manifest,
        "joint sets": ", ".join(manifest.skeletons),
        "seen by": eyes.name,
        "terms": manifest.terms,
    }
    page = page_of(f"What is in {manifest.source}", facts, list(plots_of(splits)), found.tables())
    write_bytes(config.out, page.encode())
    return found


def _measure(config: StatsConfig, split: str, info: SplitInfo, eyes: Network) -> SplitStatistics:
    found = SplitStatistics(info)
    chosen = set(np.linspace(0, info.images - 1, min(config.assigned, info.images)).round().astype(int).tolist())
    if chosen:
        found.levels = LevelStatistics(eyes)
    rows = _rows(config.prepared, split)
    for at, record in enumerate(tqdm(rows, total=info.images, unit=" images", desc=split, delay=2)):
        found.add(record)
        if found.levels is not None and at in chosen:
            found.levels.add(record)
    return found


def _rows(prepared: str, split: str) -> Iterator[Record]:
    for shard in list_shards(prepared, split):
        yield from read_records(shard, images=False)
