"""The gate in front of the alias ``champion``: numbers in, a verdict in sentences out.

A candidate must be better in MPJPE, recall and precision at once, because a model that finds fewer people can have
the smaller error on those it finds. The first version is judged against the training split's mean pose. Nothing is
compared unless protocol, split, skeleton and data are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Scores:
    """What one evaluation found, as far as a gate needs it; stored as JSON on the evaluation run and the version."""

    protocol: str
    """Name of the protocol; ``strict`` decides promotions."""
    split: str
    """Evaluated split, with its sources: for example ``panoptic/test``."""
    skeleton: str
    """Joint set of the predictions."""
    data_fingerprint: str
    """Fingerprint of the evaluated data."""
    model_fingerprint: str
    """``fingerprint`` of the evaluated checkpoint folder."""
    train_fit: bool
    """The data overlap with the model's training data."""
    mpjpe_mm: float
    """Root-aligned mean per-joint position error over matched people, mm; nan when nobody was matched."""
    recall: float
    """Matched people / annotated people, 0 to 1; nan without annotated people."""
    precision: float
    """Matched people / predicted people, 0 to 1; nan without predictions."""
    baseline_mpjpe_mm: float
    """MPJPE of the training split's mean pose on the same matched people, mm; nan when nobody was matched."""

    def __post_init__(self) -> None:
        for name in ("protocol", "split", "skeleton", "data_fingerprint", "model_fingerprint"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"scores: {name} = {getattr(self, name)!r}, wanted a text")
        if not isinstance(self.train_fit, bool):
            raise ValueError(f"scores: train_fit = {self.train_fit!r}, wanted true or false")
        for name, most in (("recall", 1), ("precision", 1), ("mpjpe_mm", 1e6), ("baseline_mpjpe_mm", 1e6)):
            value = getattr(self, name)
            if not (math.isnan(value) or 0 <= value <= most):
                raise ValueError(f"scores: {name} = {value!r}, wanted nan or 0 to {most:g}")

    def to_json(self) -> dict[str, Any]:
        """Plain values; nan becomes null."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scores:
        """Inverse of ``to_json``; ValueError names unknown, missing or bad fields."""
        known = {field.name for field in fields(cls)}
        if set(value) != known:
            unknown, missing = sorted(set(value) - known), sorted(known - set(value))
            raise ValueError(f"scores: unknown fields {unknown}, missing fields {missing}")
        values = dict(value)
        for name in ("mpjpe_mm", "recall", "precision", "baseline_mpjpe_mm"):
            values[name] = math.nan if values[name] is None else float(values[name])
        return cls(**values)


@dataclass(frozen=True)
class Verdict:
    """A gate's decision and, in sentences, why."""

    passed: bool
    """Whether the candidate becomes champion."""
    reasons: tuple[str, ...]
    """What was compared, one sentence each; of a refusal only what spoke against it."""

    def __str__(self) -> str:
        return ("promoted: " if self.passed else "refused: ") + "; ".join(self.reasons)


@dataclass(frozen=True)
class Gate:
    """When a candidate replaces the champion: MPJPE, recall and precision must each be better."""

    protocol: str = "strict"
    """The only protocol that decides."""
    min_recall: float = 0.9
    """The first version's recall must be above this."""
    min_precision: float = 0.8
    """The first version's precision must be above this."""

    def judge(self, candidate: Scores, champion: Scores | None) -> Verdict:
        """Compares with the champion, or for the first version with the mean pose and the two minima."""
        barred = self._incomparable(candidate, champion)
        if barred:
            return Verdict(False, tuple(barred))
        if champion is None:
            rows = [
                ("MPJPE", candidate.mpjpe_mm, candidate.baseline_mpjpe_mm, "the mean pose's", " mm", -1),
                ("recall", candidate.recall, self.min_recall, "the minimum", "", 1),
                ("precision", candidate.precision, self.min_precision, "the minimum", "", 1),
            ]
        else:
            rows = [
                ("MPJPE", candidate.mpjpe_mm, champion.mpjpe_mm, "the champion's", " mm", -1),
                ("recall", candidate.recall, champion.recall, "the champion's", "", 1),
                ("precision", candidate.precision, champion.precision, "the champion's", "", 1),
            ]
        good, bad = [], []
        for name, found, wanted, whose, unit, sign in rows:
            # A recall or precision of 1 cannot be bettered: there, equal is enough.
            if sign * found > sign * wanted or (sign == 1 and found == wanted == 1):
                good.append(f"{name} {found:.4g}{unit} is better than {whose} {wanted:.4g}{unit}")
            elif math.isnan(found) or math.isnan(wanted):
                bad.append(f"{name} is undefined: nobody was matched")
            else:
                bad.append(f"{name} {found:.6g}{unit} is not better than {whose} {wanted:.6g}{unit}")
        return Verdict(not bad, tuple(bad or good))

    def _incomparable(self, candidate: Scores, champion: Scores | None) -> list[str]:
        """Why the numbers decide nothing."""
        reasons = []
        if candidate.train_fit:
            reasons.append("the scores are train-fit: measured on data that the model was trained on")
        if candidate.protocol != self.protocol:
            reasons.append(f"protocol is {candidate.protocol}, the gate decides by {self.protocol}")
        if champion is not None:
            for name in ("protocol", "split", "skeleton", "data_fingerprint"):
                found, wanted = getattr(candidate, name), getattr(champion, name)
                if found != wanted:
                    reasons.append(f"{name} is {found}, the champion's scores are of {wanted}")
        return reasons
