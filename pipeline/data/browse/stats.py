"""`das data stats PREPARED`: tables and plots of prepared data, without reading an image.

People per image, depths, bone lengths and the visibility of joints are counted over all rows. Pyramid levels and
positives (Section 3.2) depend on a model and on the size of its input; they are counted over evenly spaced rows,
because the assignment is the slow part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from pipeline.data.browse.assignment import Preset, preset_for
from pipeline.data.browse.config import StatsConfig
from pipeline.data.browse.measures import LevelStatistics, SplitStatistics
from pipeline.data.browse.page import statistics_page
from pipeline.data.browse.stats_tables import plots_of, tables_of
from pipeline.data.manifest import Manifest, SplitInfo, load_manifest
from pipeline.data.record import Record
from pipeline.data.shards import list_shards, read_records
from pipeline.data.splits import SPLITS
from pipeline.infra.files import write_bytes
from pipeline.infra.text_tables import Table


@dataclass(frozen=True)
class DataStatistics:
    """The statistics of a prepared folder.

    Attributes:
        prepared: the folder, or its URI.
        manifest: read from it.
        splits: statistics by the split's name.
        page: path of the HTML page.
    """

    prepared: str
    manifest: Manifest
    splits: dict[str, SplitStatistics]
    page: str

    def tables(self) -> list[Table]:
        """All statistics as tables."""
        return list(tables_of(self.splits))

    def summary(self) -> str:
        """Tables and the path of the page, for the terminal."""
        head = f"{self.manifest.source}: {self.prepared}, fingerprint {self.manifest.fingerprint[:12]}"
        return "\n\n".join((head, *(table.text() for table in self.tables()), f"page: {self.page}"))


def stats(config: StatsConfig) -> DataStatistics:
    """Measures the splits and writes the page.

    Raises:
        ValueError: no finished prepared folder, or none of the wanted splits in it.
    """
    manifest = load_manifest(config.prepared)
    names: list[str] = [split for split in SPLITS if split in config.splits and split in manifest.splits]
    if not names:
        raise ValueError(f"splits = {', '.join(config.splits)}, but {config.prepared} has {', '.join(manifest.splits)}")
    preset = preset_for(config.variant, config.recipe, manifest.skeletons)
    splits = {name: _measure(config, name, manifest.splits[name], preset) for name in names}
    found = DataStatistics(config.prepared, manifest, splits, config.out)
    facts = {
        "source": manifest.source,
        "folder": config.prepared,
        "fingerprint": manifest.fingerprint,
        "split manifest": manifest.split_manifest,
        "joint sets": ", ".join(manifest.skeletons),
        "model and recipe": preset.name,
        "terms": manifest.terms,
    }
    page = statistics_page(f"Statistics of {manifest.source}", facts, list(plots_of(splits)), found.tables())
    write_bytes(config.out, page.encode())
    return found


def _measure(config: StatsConfig, split: str, info: SplitInfo, preset: Preset) -> SplitStatistics:
    found = SplitStatistics(info)
    chosen = set(np.linspace(0, info.images - 1, min(config.assigned, info.images)).round().astype(int).tolist())
    if chosen:
        found.levels = LevelStatistics(preset)
    rows = _rows(config.prepared, split)
    for at, record in enumerate(tqdm(rows, total=info.images, unit=" images", desc=split, delay=2)):
        found.add(record)
        if found.levels is not None and at in chosen:
            found.levels.add(record)
    return found


def _rows(prepared: str, split: str) -> Iterator[Record]:
    for shard in list_shards(prepared, split):
        yield from read_records(shard, images=False)
