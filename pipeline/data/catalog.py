"""The one list of data sources: for each its reader, its inventory and its split manifests by name.

A new source is a reader (sources/NAME.py), an inventory (check/NAME.py) and an entry here. `das prepare`, `das doctor
data` and ``read_splits`` take their names from this list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.check import coco as coco_inventory
from pipeline.data.check import custom as custom_inventory
from pipeline.data.check import mpi_inf_3dhp as mpi_inf_3dhp_inventory
from pipeline.data.check import muco as muco_inventory
from pipeline.data.check import mupots as mupots_inventory
from pipeline.data.check import panoptic as panoptic_inventory
from pipeline.data.check import synthetic as synthetic_inventory
from pipeline.data.check.base import InventoryModule
from pipeline.data.sources import coco, custom, mpi_inf_3dhp, muco, mupots, panoptic, synthetic
from pipeline.data.sources.base import DroppedFrame, Source
from pipeline.data.splits import SplitManifest
from pipeline.infra.regular_files import read_file, unread


@dataclass(frozen=True)
class CatalogEntry:
    """One data source."""

    source: Source
    """Module that reads it."""
    inventory: InventoryModule
    """Module that counts its files."""
    manifests: tuple[SplitManifest, ...]
    """Split manifests that ``read_splits`` finds by name, the source's own first."""
    unannotated_images: Callable[[str, str, SplitManifest], Iterator[DroppedFrame]] | None = None
    """Of (root, split, splits): images whose annotation is lost; None for sources whose files do not show that."""


CATALOG: dict[str, CatalogEntry] = {
    "panoptic": CatalogEntry(
        panoptic,
        panoptic_inventory,
        (panoptic.SPLITS, panoptic.PANOPTIC_RELEASE, panoptic.PANOPTIC_SMAP),
        panoptic.unannotated_images,
    ),
    "muco": CatalogEntry(muco, muco_inventory, (muco.SPLITS, muco.MUCO_RELEASE)),
    "mupots": CatalogEntry(mupots, mupots_inventory, (mupots.SPLITS,)),
    "coco": CatalogEntry(coco, coco_inventory, (coco.SPLITS,)),
    "mpi_inf_3dhp": CatalogEntry(mpi_inf_3dhp, mpi_inf_3dhp_inventory, (mpi_inf_3dhp.SPLITS,)),
    "custom": CatalogEntry(custom, custom_inventory, (custom.SPLITS,)),
    # The studio's manifest lists all names that it may give; only its own source can use it.
    "synthetic": CatalogEntry(synthetic, synthetic_inventory, (), synthetic.unannotated_images),
}
"""Every data source by the name that `--source`, keys and rows have."""

_MAX_MANIFEST_BYTES = 1 << 24
MANIFESTS = {manifest.name: manifest for entry in CATALOG.values() for manifest in entry.manifests}
"""Every committed split manifest by its name."""


def read_splits(name: str) -> SplitManifest:
    """The committed split manifest of that name, or the one in a JSON file of that path.

    Raises:
        ValueError: an unknown name (lists the known ones), or a file that is missing, malformed or has the name of a
            committed manifest.
    """
    if name in MANIFESTS:
        return MANIFESTS[name]
    if not name.endswith(".json"):
        raise ValueError(f"split manifest {name!r} is unknown, wanted a JSON file or one of {', '.join(MANIFESTS)}")
    try:
        manifest = SplitManifest.from_json(json.loads(read_file(Path(name), _MAX_MANIFEST_BYTES)))
    except OSError as error:
        raise ValueError(unread(error)) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from error
    if manifest.name in MANIFESTS:
        raise ValueError(f"{name}: its name {manifest.name!r} is taken by another manifest")
    return manifest
