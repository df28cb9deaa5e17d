"""What is there of the studio's rendered people: Panoptic's layout, and studio.json when rendering is finished."""

from __future__ import annotations

from dataclasses import replace

from pipeline.data.check import panoptic
from pipeline.data.check.base import Inventory, Trouble
from pipeline.data.check.listing import Tree
from pipeline.data.sources import synthetic as reader
from pipeline.data.sources.base import Source
from pipeline.data.sources.json_files import load_json
from pipeline.data.splits import SPLITS as SPLIT_NAMES
from pipeline.data.splits import SplitManifest

TITLE = "the studio's rendered people"
LAYOUT = "a folder for each sequence, such as studio_train_haggling1, and studio.json; `das render` makes it"
PAGE = "docs/data/synthetic.md"
SOURCE: Source = reader


def recognises(tree: Tree) -> bool:
    """Whether it holds rendered sequences; studio.json alone does not tell in which layout they were rendered."""
    return any(_rendered(tree))


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """The sequences that were asked for when rendering; without studio.json those that are there."""
    here = _rendered(tree)
    asked, trouble = _asked(tree)
    # The split manifest is a table of all names there may be; no data set has them all.
    expected = here if asked is None else asked
    parts = tuple(part for part in splits.parts if part.sequence in expected)
    found = panoptic.inventory_of(tree, replace(splits, parts=parts), here, thorough)
    for part in parts:
        if part.sequence not in here:
            found.absent.append(Trouble(f"{part.sequence} ({part.split})", "no folder; render it again"))
    found.troubles += trouble
    return found


def _rendered(tree: Tree) -> list[str]:
    return [name for name in tree.folders() if name.startswith("studio_") and panoptic.is_sequence(tree, name)]


def _asked(tree: Tree) -> tuple[list[str] | None, list[Trouble]]:
    """Names of the sequences in studio.json; without it None, and the trouble."""
    if not tree.has("studio.json"):
        return None, [Trouble("studio.json", "missing: rendering has not finished; the same command goes on with it")]
    try:
        config = load_json(tree.root / "studio.json")["config"]
        return [name for split in SPLIT_NAMES for name in config[f"{split}_sequences"]], []
    except (ValueError, KeyError, TypeError) as error:
        return None, [Trouble("studio.json", f"not what the studio writes ({error!r})")]
