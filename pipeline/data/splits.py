"""Split manifests: which sequences are train, val and test, and which of their frames are taken.

A manifest has a name and a hash of its content, its id. Every prepared data set records the id, so a metric can be
traced to the frames it was measured on. Validation is held out from the training sequences and used for tuning, early
stopping and calibration; test is used by evaluation and promotion only. Absent sequences, and a selection of
sequences, change neither the id nor which frames are taken of the others; the manifest of the prepared folder has the
number of images of each sequence.

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

from das.fields import NAME, at_least, is_name, json_kind

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Part:
    """One sequence, or a part of it, in one split."""

    sequence: str
    """Folder or file group of the source: a Panoptic sequence, TS1, train2017, unaugmented_set."""
    split: Split
    """Split of its frames."""
    activity: str = ""
    """Group of sequences that a benchmark averages over; may be empty."""
    start: float = 0.0
    """First frame, as a fraction of the sequence's frames in order."""
    stop: float = 1.0
    """End (exclusive), as a fraction of the sequence's frames."""

    def __post_init__(self) -> None:
        _check_folder("sequence", self.sequence)
        if self.split not in SPLITS:
            raise ValueError(f"{self.sequence}: split = {self.split!r}, wanted one of {', '.join(SPLITS)}")
        if not 0 <= self.start < self.stop <= 1:
            found = f"start = {self.start}, stop = {self.stop}"
            raise ValueError(f"{self.sequence}: {found}, wanted 0 <= start < stop <= 1")


@dataclass(frozen=True)
class SplitManifest:
    """A named list of parts, and which of their frames are taken."""

    name: str
    """Unique name, such as panoptic-release."""
    parts: tuple[Part, ...]
    """Every part of every split."""
    cameras: tuple[str, ...] = ()
    """Cameras that are read of every sequence; empty for sources with one unnamed camera."""
    step: int = 1
    """Every step-th frame of train and val parts is taken."""
    test_frames: int | None = None
    """Frames per test activity, evenly spaced over its sequences, cameras and time; None takes all."""
    whole: tuple[Part, ...] = ()
    """All parts, if ``parts`` is a selection of them (``narrowed``); otherwise empty."""

    def __post_init__(self) -> None:
        for camera in self.cameras:
            _check_folder("cameras", camera)
        at_least(self, step=1, test_frames=1)

    @property
    def id(self) -> str:
        """``name@hash``: the first 12 hex digits of the SHA-256 of ``to_json``, which has all parts."""
        content = json.dumps(self.to_json(), sort_keys=True).encode()
        return f"{self.name}@{hashlib.sha256(content).hexdigest()[:12]}"

    def to_json(self) -> dict[str, Any]:
        """All parts and fields as a plain dict for a JSON file; ``from_json`` inverts it."""
        table = asdict(replace(self, parts=self.whole or self.parts))
        return {name: value for name, value in table.items() if name != "whole"}

    @classmethod
    def from_json(cls, value: Any) -> SplitManifest:
        """Inverse of ``to_json``; fields with defaults may be absent.

        Raises:
            ValueError: naming the field that is unknown, missing or malformed, or the sequence whose parts overlap.
        """
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
        """The manifest with only the parts of these sequences (empty: all) and splits.

        The frames taken of them and the id stay those of the whole manifest: results on a selection of a benchmark
        belong to that benchmark.

        Raises:
            ValueError: a sequence that is not in the manifest; lists those that are.
        """
        known = {part.sequence for part in self.parts}
        if unknown := set(sequences) - known:
            found, wanted = ", ".join(sorted(unknown)), ", ".join(sorted(known))
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
            For test with ``test_frames``: int(linspace(0, n - 1, N)) of the n frames, as the release computes them,
            where N is ``test_frames`` divided by the number of sequences of the activity and of cameras; all
            frames if there are fewer. Otherwise every ``step``-th frame (train, val) or all (test).
        """
        n = len(frames)
        # Rounded, not truncated: adjoining parts then neither share nor miss a frame.
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


def _check_folder(field: str, name: str) -> None:
    """Refuses a name that becomes a folder of the data and a part of keys, and would lead elsewhere."""
    if not is_name(name):
        raise ValueError(f"split manifest: {field}: found {name!r}, wanted {NAME}")


def _checked(cls: type[Part] | type[SplitManifest], value: Any, where: str) -> dict[str, Any]:
    """``value`` if it is a JSON object with the class's fields in their types; ValueError otherwise."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: found {json_kind(value)}, wanted an object")
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
