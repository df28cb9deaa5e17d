"""Settings of `das import-release`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class ImportConfig:
    """A checkpoint file of the official release, and the folder that it becomes."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The release's checkpoint (.pth), with or without the optimiser's state."""
    out: str
    """Checkpoint folder to write; it must not exist, or be empty."""
    experiment: Literal["panoptic", "mupots"] | None = None
    """Experiment of the release that the file is of; by default the one whose number of joints it has."""
    data: tuple[str, ...] = ()
    """Prepared folders (or URIs) of its training data. The mean pose of their training splits becomes the baseline of
    the model's evaluations, without which no first version can be promoted."""
