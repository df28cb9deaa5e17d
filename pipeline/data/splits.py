"""Split manifests: which sequences are train, val and test, and which of their frames are taken.

A manifest is committed, named and hashed; its identity travels with every prepared data set, so a number can
always be traced to the frames it was measured on. Validation is held out from training sequences (tuning,
early stopping and calibration see nothing else) and test is touched by evaluation and promotion alone. Sequences that
are absent, or not asked for, change neither its identity nor what is taken of the others; how many images of which
sequence there are stands in the prepared folder's manifest.

The committed manifests are defined in the modules of their sources; pipeline/data/catalog.py finds one by its name or
reads one from a JSON file in the form of ``SplitManifest.to_json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from das.fields import at_least

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

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"{self.sequence}: split = {self.split!r}, wanted one of {', '.join(SPLITS)}")
        if not 0 <= self.start < self.stop <= 1:
            found = f"start = {self.start}, stop = {self.stop}"
            raise ValueError(f"{self.sequence}: {found}, wanted 0 <= start < stop <= 1")


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
    whole: tuple[Part, ...] = ()
    """All parts, where ``parts`` are only those asked for (``narrowed``); empty where they are all."""

    def __post_init__(self) -> None:
        at_least(self, step=1, test_frames=1)

    @property
    def id(self) -> str:
        """``name@hash``: the name and the first 12 digits of the hash of the whole table, also of a narrowed one."""
        content = json.dumps(self.to_json(), sort_keys=True).encode()
        return f"{self.name}@{hashlib.sha256(content).hexdigest()[:12]}"

    def to_json(self) -> dict[str, Any]:
        """The whole table as a plain dict for a JSON file; ``from_json`` inverts it."""
        table = asdict(replace(self, parts=self.whole or self.parts))
        return {name: value for name, value in table.items() if name != "whole"}

    @classmethod
    def from_json(cls, value: Any) -> SplitManifest:
        """Inverse of ``to_json``, defaults may be left out; ValueError names what is unknown, missing or wrong."""
        top = _checked(cls, value, "split manifest")
        parts = top.get("parts")
        if not isinstance(parts, list) or not parts:
            raise ValueError(f"split manifest: parts = {parts!r}, wanted a list of parts")
        read = [Part(**_checked(Part, part, f"parts[{i}]")) for i, part in enumerate(parts)]
        for a, b in pairwise(sorted(read, key=lambda part: (part.sequence, part.start))):
            if a.sequence == b.sequence and b.start < a.stop:
                raise ValueError(f"{a.sequence} is in {a.split} and in {b.split}, wanted every frame once")
        return cls(**{**top, "parts": tuple(read), "cameras": tuple(top.get("cameras", ()))})

    def narrowed(self, sequences: Collection[str], splits: Collection[str] = SPLITS) -> SplitManifest:
        """Only the parts of these sequences (empty: all) and splits.

        What is taken of them, and the identity, stay those of the whole: a part of a benchmark is a part of that one.

        Raises:
            ValueError: a sequence that is none of the manifest's; lists those that are.
        """
        known = {part.sequence for part in self.parts}
        if strangers := set(sequences) - known:
            found, wanted = ", ".join(sorted(strangers)), ", ".join(sorted(known))
            raise ValueError(f"sequences: found {found}, wanted some of {wanted}")
        chosen = (part for part in self.parts if part.split in splits)
        some = tuple(part for part in chosen if not sequences or part.sequence in sequences)
        return replace(self, parts=some, whole=self.whole or self.parts)

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
        sharing = [p for p in self.whole or self.parts if (p.split, p.activity) == ("test", part.activity)]
        wanted = self.test_frames // len(sharing) // max(1, len(self.cameras))
        if wanted >= len(frames):
            return tuple(frames)
        return tuple(frames[int(i)] for i in np.linspace(0, len(frames) - 1, wanted))


def _checked(cls: type[Part] | type[SplitManifest], value: Any, where: str) -> dict[str, Any]:
    """A JSON object with the fields of the class, each of a fitting type."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: found {type(value).__name__}, wanted an object")
    known = {f.name: f for f in fields(cls) if f.name != "whole"}
    if unknown := sorted(set(value) - set(known)):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}, wanted some of {', '.join(known)}")
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,), "Split": (str,), "float": (int, float), "int": (int,), "int | None": (int, type(None)),
        "tuple[str, ...]": (list,), "tuple[Part, ...]": (list,),
    }  # fmt: skip
    for name, item in value.items():
        fits = isinstance(item, kinds[str(known[name].type)]) and not isinstance(item, bool)
        if not fits or (name == "cameras" and not all(isinstance(camera, str) for camera in item)):
            raise ValueError(f"{where}: {name} = {item!r}, wanted {known[name].type}")
    for name in ("name", "parts") if cls is SplitManifest else ("sequence", "split"):
        if not value.get(name):
            raise ValueError(f"{where}: {name} is missing")
    return value
