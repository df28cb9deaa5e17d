"""DAS: backbone, feature pyramid, head and recursive update."""

from __future__ import annotations

from dataclasses import dataclass

from das.head import LevelOutput
from das.recursive_update import UpdateState


@dataclass
class HeadOutput:
    """All predictions of a batch; both lists have one entry per pyramid level, finest first."""

    levels: list[LevelOutput]
    updates: list[UpdateState]
