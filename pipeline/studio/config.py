"""What the studio renders: sizes, sequences, splits, and how the work is cut into chunks.

Sequences are named ``studio_<split>_<activity><number>``: the prefix separates them from recorded sequences, and
the split is part of the name. As in CMU Panoptic, the activities haggling, mafia and ultimatum are in every
split and pizza is in test only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from das.fields import at_least, check_values

VERSION = 3
"""Increased whenever the same configuration gives other files."""
RENDERED_TERMS = "rendered by this project's studio; free of third-party rights"
"""Terms of use of rendered data, in whichever layout it is written."""
Layout = Literal["panoptic", "muco", "coco", "mupots"]
SPLITS = ("train", "val", "test")
ACTIVITIES = ("haggling", "mafia", "ultimatum", "pizza")

MOST_PEOPLE = 8
"""Most people that fit on the stage."""

# Pixels of CMU Panoptic's HD views. Intrinsics are defined at this size and scaled to the picture's.
FULL_WIDTH, FULL_HEIGHT = 1920, 1080


def sequence_names(split: str) -> tuple[str, ...]:
    """All names that a sequence of the split may have; pizza is in test only."""
    activities = ACTIVITIES if split == "test" else ACTIVITIES[:-1]
    return tuple(f"studio_{split}_{activity}{number}" for activity in activities for number in range(1, 10))


def sequence_split(sequence: str) -> str:
    """The split in a sequence's name; ValueError if the name has another form."""
    for split in SPLITS:
        if sequence in sequence_names(split):
            return split
    raise ValueError(f"sequence {sequence!r}: wanted studio_<{'|'.join(SPLITS)}>_<{'|'.join(ACTIVITIES)}><1-9>, "
                     "pizza in test only")  # fmt: skip


def sequence_activity(sequence: str) -> str:
    """The activity in a sequence's name, without its number."""
    return sequence.split("_")[-1].rstrip("0123456789")


@dataclass(frozen=True)
class StudioConfig:
    """A rendered data set. The same configuration gives the same bytes for any number of workers and chunks."""

    width: int = FULL_WIDTH
    """Picture width in pixels; the cameras' intrinsics scale with it."""
    height: int = FULL_HEIGHT
    """Picture height in pixels, 9/16 of the width."""
    train_frames: int = 600
    """Frames of each train sequence; both cameras render every frame."""
    val_frames: int = 60
    """Frames of each val sequence."""
    test_frames: int = 75
    """Frames of each test sequence."""
    train_sequences: tuple[str, ...] = (
        "studio_train_haggling1",
        "studio_train_haggling2",
        "studio_train_mafia1",
        "studio_train_mafia2",
        "studio_train_ultimatum1",
        "studio_train_ultimatum2",
    )
    """Names of the train sequences."""
    val_sequences: tuple[str, ...] = ("studio_val_haggling1", "studio_val_mafia1", "studio_val_ultimatum1")
    """Names of the val sequences."""
    test_sequences: tuple[str, ...] = (
        "studio_test_haggling1",
        "studio_test_mafia1",
        "studio_test_ultimatum1",
        "studio_test_pizza1",
    )
    """Names of the test sequences; the only split with pizza."""
    frame_seconds: float = 0.7
    """Seconds between two frames. 0.0333667 is the recorded 29.97 frames per second, with which long takes are videos;
    a longer step gives more varied poses in the same number of frames."""
    take_frames: int = 8
    """Frames of a take; the next take has other people."""
    people_min: int = 1
    """Fewest people in a take."""
    people_max: int = MOST_PEOPLE
    """Most people in a take; there are fewer where no free place was found."""
    interactions: float = 0.2
    """Share of takes with an interaction: all people sit round a table, sit in a row on a bench, or walk on crossing
    paths."""
    layers: float = 0.25
    """Share of people in coats, hoods, hats or wide trousers, whose silhouettes differ from their bodies."""
    chunk_frames: int = 96
    """Frames of one chunk (a unit of rendering work), rounded up to whole takes."""
    supersampling: int = 2
    """Canvas pixels per picture pixel along each axis; their mean smooths edges."""
    jpeg_quality: int = 92
    """JPEG quality, 1 to 100."""
    seed: int = 0
    """Seed of people, motions and pictures; rooms and the cameras' nominal places do not depend on it."""

    def __post_init__(self) -> None:
        if self.width * FULL_HEIGHT != self.height * FULL_WIDTH or self.width < 64:
            raise ValueError(f"width x height must be 16:9 and at least 64 wide, found {self.width}x{self.height}")
        at_least(
            self, train_frames=1, val_frames=1, test_frames=1, take_frames=1, chunk_frames=1, supersampling=1, seed=0
        )
        if not 1 <= self.people_min <= self.people_max <= MOST_PEOPLE:
            raise ValueError(f"people_min and people_max must satisfy 1 <= min <= max <= {MOST_PEOPLE}, "
                             f"found {self.people_min} and {self.people_max}")  # fmt: skip
        check_values(
            self,
            ("frame_seconds", self.frame_seconds > 0, "above 0"),
            ("interactions", 0 <= self.interactions <= 1, "between 0 and 1"),
            ("layers", 0 <= self.layers <= 1, "between 0 and 1"),
            ("jpeg_quality", 1 <= self.jpeg_quality <= 100, "1 to 100"),
        )
        for split in SPLITS:
            for sequence in self.sequences(split):
                if sequence_split(sequence) != split:
                    raise ValueError(f"{split}_sequences: {sequence!r} belongs to {sequence_split(sequence)}")

    def sequences(self, split: str) -> tuple[str, ...]:
        """Names of the split's sequences."""
        names: tuple[str, ...] = getattr(self, f"{split}_sequences")
        return names

    def frames(self, sequence: str) -> int:
        """Number of frames of a sequence."""
        count: int = getattr(self, f"{sequence_split(sequence)}_frames")
        return count

    def rng(self, sequence: str, *keys: int) -> np.random.Generator:
        """An independent generator per (sequence, keys): no sample depends on what else is rendered."""
        return np.random.default_rng([self.seed, zlib.crc32(sequence.encode()), *keys])


@dataclass(frozen=True)
class StudioChunk:
    """A unit of rendering work: ``count`` frames of a sequence, starting at frame ``first``."""

    sequence: str
    first: int
    count: int


def plan_chunks(config: StudioConfig, splits: tuple[str, ...] = SPLITS) -> list[StudioChunk]:
    """All chunks of the splits, each of whole takes; the last take of a sequence may be cut short."""
    step = -(-config.chunk_frames // config.take_frames) * config.take_frames
    return [
        StudioChunk(sequence, first, min(step, config.frames(sequence) - first))
        for split in splits
        for sequence in config.sequences(split)
        for first in range(0, config.frames(sequence), step)
    ]
