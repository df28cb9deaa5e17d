"""The studio's rendered people (pipeline/studio), read exactly as CMU Panoptic is.

The studio writes Panoptic's original layout; only names and terms differ. The split manifest is a table of every
name the studio may give a sequence; a data set holds some of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from das.skeleton import COCO19, Skeleton
from pipeline.data.record import Record
from pipeline.data.sources import panoptic
from pipeline.data.sources.base import Chunk, DroppedFrame
from pipeline.data.splits import SPLITS as SPLIT_NAMES
from pipeline.data.splits import Part, SplitManifest
from pipeline.studio.cameras import CAMERAS
from pipeline.studio.config import RENDERED_TERMS, sequence_activity, sequence_names

TERMS = RENDERED_TERMS
SKELETONS: tuple[Skeleton, ...] = (COCO19,)
SPLITS = SplitManifest(
    "studio",
    tuple(
        Part(sequence, split, sequence_activity(sequence))
        for split in SPLIT_NAMES
        for sequence in sequence_names(split)
    ),
    cameras=CAMERAS,
)


def chunks(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> list[Chunk]:
    """The work of one split, as ``panoptic.chunks`` gives it; raises likewise."""
    return panoptic.chunks(root, split, splits, source="synthetic")


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every frame of the shard seen by its camera, as ``panoptic.records`` gives it; raises likewise."""
    return panoptic.records(chunk)


def strays(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> Iterator[DroppedFrame]:
    """Images without annotation, as ``panoptic.strays`` gives them."""
    return panoptic.strays(root, split, splits, source="synthetic")
