"""Settings of `das data stats` and `das data show`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from das.config import VARIANTS
from das.fields import at_least
from das.recipe import RECIPES
from pipeline.data.splits import SPLITS, Split
from pipeline.infra.configs import one_of


@dataclass(frozen=True)
class ShowConfig:
    """Which frames of prepared data are drawn, and for which model and recipe feature points are assigned."""

    prepared: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PREPARED")]
    """Prepared folder, or its URI."""
    split: Split | None = None
    """Split to draw; None takes the first one in the folder."""
    keys: tuple[str, ...] = ()
    """Keys (source/sequence/camera/frame) of the frames to draw, instead of evenly spaced frames."""
    count: int = 12
    """Frames on the contact sheet."""
    single: int = 3
    """How many of those are also drawn as single frames."""
    columns: int = 4
    """Frames side by side on the contact sheet."""
    variant: Annotated[str, one_of(VARIANTS)] | None = None
    """Model whose positives are shown; None takes the released one for these joints."""
    recipe: Annotated[str, one_of(RECIPES)] | None = None
    """Recipe whose test size images are resized to; None takes the one for these joints."""
    out: str = "data-show"
    """Folder for the pictures."""
    format: Literal["jpg", "png"] = "jpg"
    """File format of the pictures."""

    def __post_init__(self) -> None:
        at_least(self, count=1, single=0, columns=1)


@dataclass(frozen=True)
class StatsConfig:
    """Which prepared data are measured, and for which model and recipe feature points are assigned."""

    prepared: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PREPARED")]
    """Prepared folder, or its URI."""
    splits: tuple[Split, ...] = SPLITS
    """Splits to measure; those that the folder lacks are left out."""
    variant: Annotated[str, one_of(VARIANTS)] | None = None
    """Model whose pyramid levels and positives are counted; None takes the released one for these joints."""
    recipe: Annotated[str, one_of(RECIPES)] | None = None
    """Recipe whose test size images are resized to; None takes the one for these joints."""
    assigned: int = 1000
    """Images of each split, evenly spaced, whose feature points are assigned; 0 for none."""
    out: str = "data-stats.html"
    """Self-contained HTML page with plots and tables."""

    def __post_init__(self) -> None:
        at_least(self, assigned=0)
        if not self.splits:
            raise ValueError("splits is empty, wanted some of train, val, test")
