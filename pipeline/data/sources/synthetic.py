"""The studio's rendered people (pipeline/studio), read in the same way as CMU Panoptic.

The studio writes Panoptic's layout; only names and terms differ. The split manifest lists every name that the studio
may give a sequence; a rendered data set has some of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from das.skeleton import COCO19, Skeleton
from pipeline.data.record import Record
from pipeline.data.sources import panoptic
from pipeline.data.sources.base import Chunk, ChunkFiles, DroppedFrame
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
    """Chunks of one split; takes and raises what ``panoptic.chunks`` does."""
    return panoptic.chunks(root, split, splits, source="synthetic")


def listed_files(splits: SplitManifest) -> Iterable[str]:
    """As ``panoptic.listed_files``."""
    return panoptic.listed_files(splits)


def files(chunk: Chunk) -> ChunkFiles:
    """As ``panoptic.files``."""
    return panoptic.files(chunk)


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every frame of the chunk; raises what ``panoptic.records`` does."""
    return panoptic.records(chunk)


def unannotated_images(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> Iterator[DroppedFrame]:
    """Images of one split whose pose file is missing between others, see ``panoptic.unannotated_images``."""
    return panoptic.unannotated_images(root, split, splits, source="synthetic")
