"""Split manifests: which sequences are train, val and test, and which of their frames are taken.

A manifest is committed, named and hashed; its identity travels with every prepared data set, so a number can
always be traced to the frames it was measured on. Validation is held out from training sequences (tuning,
early stopping and calibration see nothing else) and test is touched by evaluation and promotion alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Part:
    """One sequence, or a part of it, in one split."""

    sequence: str
    """Folder or file group of the source: a Panoptic sequence, TS1, train2017, unaugmented_set."""
    split: Split
    """Where its frames go."""
    activity: str = ""
    """What a benchmark scores together."""
    start: float = 0.0
    """First frame, as a fraction of the sequence's frames in order."""
    stop: float = 1.0
    """End (exclusive), as such a fraction."""


@dataclass(frozen=True)
class SplitManifest:
    """A named table of parts and the sampling of frames within them."""

    name: str
    """How people call it."""
    parts: tuple[Part, ...]
    """Every part of every split."""
    cameras: tuple[str, ...] = ()
    """Cameras that are read of every sequence; empty for sources of one camera."""
    step: int = 1
    """Of train and val parts, every step-th frame is taken."""
    test_frames: int | None = None
    """Frames per test activity, spread evenly over its sequences, cameras and time; None takes all."""

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ValueError(f"step = {self.step}, wanted at least 1")
        if self.test_frames is not None and self.test_frames < 1:
            raise ValueError(f"test_frames = {self.test_frames}, wanted at least 1")

    @property
    def id(self) -> str:
        """``name@hash``: the name and the first 12 digits of the hash of the whole table."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return f"{self.name}@{hashlib.sha256(content).hexdigest()[:12]}"

    def of(self, split: str) -> tuple[Part, ...]:
        """The parts of one split; ValueError for an unknown split."""
        if split not in SPLITS:
            raise ValueError(f"split = {split!r}, wanted one of {', '.join(SPLITS)}")
        return tuple(part for part in self.parts if part.split == split)

    def select(self, part: Part, frames: Sequence[int]) -> tuple[int, ...]:
        """The frames of ``part`` that are taken.

        Args:
            part: one of ``parts``.
            frames: all frames of its sequence, in order; every camera sees them.

        Returns:
            For test with ``test_frames``: int(linspace(0, n - 1, N)) of the n frames, where N is the
            activity's share of this sequence and camera (the rule of the release), or all of them when there
            are fewer.
        """
        n = len(frames)
        # Rounding and not truncation, so that adjoining parts meet at one frame.
        frames = frames[round(part.start * n) : round(part.stop * n)]
        if part.split != "test":
            return tuple(frames[:: self.step])
        if self.test_frames is None:
            return tuple(frames)
        sharing = [p for p in self.of("test") if p.activity == part.activity]
        wanted = self.test_frames // len(sharing) // max(1, len(self.cameras))
        if wanted >= len(frames):
            return tuple(frames)
        return tuple(frames[int(i)] for i in np.linspace(0, len(frames) - 1, wanted))


def _panoptic() -> tuple[Part, ...]:
    train = ("haggling1", "mafia1", "ultimatum1", "ultimatum2")
    test = ("160226_haggling1", "160422_haggling1", "160226_mafia1", "160422_mafia2", "160422_ultimatum1",
            "160906_pizza1")  # fmt: skip
    return (
        *(Part(f"160224_{name}", "train", name[:-1]) for name in train),
        Part("160226_mafia2", "train", "mafia"),
        Part("160224_mafia2", "val", "mafia"),
        *(Part(name, "test", name[7:-1]) for name in test),
    )


# The released sequences and cameras, one training sequence held out for validation. Pizza is in test alone.
PANOPTIC = SplitManifest("panoptic", _panoptic(), cameras=("00_16", "00_30"), step=2, test_frames=2400)

# A test set by its protocol. Training on some of its photos is possible by naming the split (convert's
# as_split).
MUPOTS = SplitManifest("mupots", tuple(Part(f"TS{i}", "test", f"TS{i}") for i in range(1, 21)))

# The owners ship no split. Neighbouring images share their source frames, so val is the end of each set,
# whole.
MUCO = SplitManifest(
    "muco",
    tuple(
        part
        for name in ("unaugmented_set", "augmented_set")
        for part in (Part(name, "train", stop=0.98), Part(name, "val", start=0.98))
    ),
)

# The labels of the test images are not public.
COCO = SplitManifest("coco", (Part("train2017", "train"), Part("val2017", "val")))
