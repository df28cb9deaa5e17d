"""Inventory of the studio's rendered people: Panoptic's layout, and studio.json when rendering is finished."""

from __future__ import annotations

from dataclasses import replace

from pipeline.data.check import panoptic
from pipeline.data.check.base import Inventory, Problem
from pipeline.data.check.listing import Tree
from pipeline.data.sources.json_files import load_json
from pipeline.data.splits import SPLITS as SPLIT_NAMES
from pipeline.data.splits import SplitManifest
from pipeline.infra.regular_files import inside

TITLE = "the studio's rendered people"
LAYOUT = "a folder for each sequence, such as studio_train_haggling1, and studio.json; `das render` makes it"
PAGE = "docs/data/synthetic.md"


def recognises(tree: Tree) -> bool:
    """Whether it has rendered sequences; studio.json alone does not show in which layout they were rendered."""
    return any(_rendered(tree))


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """The sequences that the rendering was configured to make; without studio.json those that exist."""
    here = _rendered(tree)
    configured, problems = _configured(tree)
    # The split manifest lists all names that are possible; no data set has all of them.
    expected = here if configured is None else configured
    parts = tuple(part for part in splits.parts if part.sequence in expected)
    found = panoptic.inventory_of_sequences(tree, replace(splits, parts=parts), here, thorough)
    for part in parts:
        if part.sequence not in here:
            found.absent.append(Problem(f"{part.sequence} ({part.split})", "no folder; render it again"))
    found.problems += problems
    return found


def _rendered(tree: Tree) -> list[str]:
    return [name for name in tree.folders() if name.startswith("studio_") and panoptic.is_sequence(tree, name)]


def _configured(tree: Tree) -> tuple[list[str] | None, list[Problem]]:
    """Names of the sequences in studio.json; without it None, and the problem."""
    if not tree.has("studio.json"):
        what = "missing: rendering has not finished; the same command continues it"
        return None, [Problem("studio.json", what)]
    try:
        config = load_json(inside(tree.root, "studio.json"))["config"]
        return [name for split in SPLIT_NAMES for name in config[f"{split}_sequences"]], []
    except (ValueError, KeyError, TypeError) as error:
        return None, [Problem("studio.json", f"not what the studio writes ({error!r})")]
