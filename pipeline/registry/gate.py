"""The gate in front of the alias ``champion``: numbers in, a verdict in sentences out.

A gate is data: ``Gate`` is a JSON file, and every registered model has its default (``gate_for``). A promotion is a
statistical decision: the primary metric must improve by the paired cluster bootstrap (das/metrics/bootstrap.py), which
draws the same blocks of frames for both models; with few blocks, every sequence must agree as well. Recall and
precision must not get lost on the way, because a model that finds fewer people can have the smaller error on those it
finds; nor may any slice of the data, nor the latency. The first version is judged against the training split's mean
pose. Nothing is compared unless protocol, split, skeleton and data are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from das.fields import check_values
from das.metrics.bootstrap import WITHIN, Interval, paired_interval
from pipeline.evaluation.scores import METRICS, SLICES, Evidence, Metric, Scores, SliceKind


@dataclass(frozen=True)
class Check:
    """One condition of a gate: its name, whether it holds, and what was found, as a sentence."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Verdict:
    """A gate's decision and all that it rests on."""

    checks: tuple[Check, ...]
    """What was looked at, in order."""

    @property
    def passed(self) -> bool:
        """Whether the candidate becomes champion."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences; of a refusal only what spoke against it."""
        return tuple(check.text for check in self.checks if check.passed == self.passed)

    def __str__(self) -> str:
        return ("promoted: " if self.passed else "refused: ") + "; ".join(self.reasons)

    def markdown(self) -> str:
        """The decision with every check, for the version's page."""
        rows = (f"- {'passed' if c.passed else '**failed**'}, {c.name}: {c.text}" for c in self.checks)
        return "\n".join((f"**{'Promoted' if self.passed else 'Refused'}**", "", *rows))


@dataclass(frozen=True)
class Gate:
    """When a candidate replaces the champion; a JSON file holds any of these fields, the others keep their default."""

    protocol: str = "strict"
    """The only protocol that decides."""
    primary: Metric = "mpjpe_with_misses"
    """Must improve: the 95 % interval of the paired difference lies on the better side of zero altogether."""
    guards: Mapping[str, float] = field(default_factory=lambda: {"recall": 0.01, "precision": 0.01})
    """Further metrics (recall, precision, mpjpe, ...) that must not get worse by more than this: the worse end of their
    paired interval counts."""
    slices: tuple[SliceKind, ...] = SLICES
    """Kinds of parts of the data, where it has them, in which the primary metric must not get worse,"""
    slice_margin: float = 0.05
    """by more than this share of the champion's value."""
    slice_people: int = 50
    """Slices with fewer people decide nothing."""
    latency_margin: float | None = 0.2
    """The candidate may take longer for an image by this share, both timed in turn on this machine; null: any time."""
    batch_images: int = 8
    """Images of the fixed batch, on which the registered files must give the scores of the evaluation again."""
    batch_tolerance_mm: float = 1.0
    """Largest change of the error on that batch."""
    batch_tolerance: float = 0.02
    """Largest change of recall and precision on that batch."""
    min_recall: float = 0.9
    """The first version's recall must be above this."""
    min_precision: float = 0.8
    """The first version's precision must be above this."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        object.__setattr__(self, "guards", dict(self.guards))
        shares = ("slice_margin", "batch_tolerance_mm", "batch_tolerance", "min_recall", "min_precision")
        checks = (
            ("primary", self.primary in METRICS, f"one of {', '.join(METRICS)}"),
            ("guards", set(self.guards) <= set(METRICS), f"margins of {', '.join(METRICS)}"),
            ("guards", all(_is_number(m) and m >= 0 for m in self.guards.values()), "margins of at least 0"),
            ("slices", set(self.slices) <= set(SLICES), f"some of {', '.join(SLICES)}"),
            ("latency_margin", self.latency_margin is None or _is_number(self.latency_margin), "a number or null"),
            ("slice_people", isinstance(self.slice_people, int) and self.slice_people >= 1, "at least 1"),
            ("batch_images", isinstance(self.batch_images, int) and self.batch_images >= 1, "at least 1"),
            *((n, _is_number(getattr(self, n)) and getattr(self, n) >= 0, "a number of at least 0") for n in shares),
        )
        check_values(self, *checks, what="gate")

    def to_json(self) -> dict[str, Any]:
        """Plain values; what a gate file holds."""
        return {**asdict(self), "slices": list(self.slices)}

    def changed_by(self, value: Any) -> Gate:
        """This gate with the fields of a gate file; ValueError names what is no field or no good value."""
        if not isinstance(value, dict):
            raise ValueError(f"gate: found {value!r}, wanted an object of fields")
        unknown = sorted(set(value) - {f.name for f in fields(self)})
        if unknown:
            raise ValueError(f"gate: unknown fields {unknown}, known: {', '.join(f.name for f in fields(self))}")
        for name, kind in (("guards", dict), ("slices", list)):
            if not isinstance(value.get(name, kind()), kind):
                raise ValueError(f"gate: {name} = {value[name]!r}, wanted {'an object' if kind is dict else 'a list'}")
        return replace(self, **value)

    def judge(self, candidate: Evidence, champion: Evidence | None) -> tuple[Check, ...]:
        """Compares with the champion, or for the first version with the mean pose and the two minima."""
        barred = self.incomparable(candidate.scores, None if champion is None else champion.scores)
        if barred:
            return barred
        if champion is None:
            return self._first(candidate.scores)
        guards = [self._guard(name, margin, candidate, champion) for name, margin in self.guards.items()]
        return (self._improvement(candidate, champion), *guards, *self._slices(candidate, champion))

    def _first(self, scores: Scores) -> tuple[Check, ...]:
        rows = (
            ("MPJPE", scores.mpjpe_mm, scores.baseline_mpjpe_mm, "the mean pose's", " mm", -1),
            ("recall", scores.recall, self.min_recall, "the minimum", "", 1),
            ("precision", scores.precision, self.min_precision, "the minimum", "", 1),
        )
        checks = []
        for name, found, wanted, whose, unit, sign in rows:
            good = sign * found > sign * wanted
            text = f"{name} {found:.4g}{unit} is better than {whose} {wanted:.4g}{unit}"
            if math.isnan(found) or math.isnan(wanted):
                text = f"{name} is undefined: nobody was matched"
            elif not good:
                text = f"{name} {found:.6g}{unit} is not better than {whose} {wanted:.6g}{unit}"
            checks.append(Check(name, good, text))
        return tuple(checks)

    def _improvement(self, candidate: Evidence, champion: Evidence) -> Check:
        name = self.primary
        found, held = candidate.metrics[name].value, champion.metrics[name].value
        change = _difference(candidate, champion, name)
        better = _better_sign(name)
        good = change.sign == better
        words = (
            f"{name} {_shown(found, name)} is {'' if good else 'not '}better than the champion's {_shown(held, name)}"
        )
        text = f"{words}: {difference_in_words(change, name)}"
        if math.isnan(found) or math.isnan(held):
            text = f"{name} is undefined: nobody was matched"
        elif math.isnan(change.low):
            text += f"; {change.clusters} block of frames gives no interval, wanted at least 2"
        elif good and change.label == WITHIN:
            against = sorted(s for s, sign in (change.signs or {}).items() if sign != better)
            if against:
                good = False
                words = words.replace("is better", "is not surely better")
                text = (
                    f"{words}: {difference_in_words(change, name)}; with so little footage every sequence must agree, "
                )
                text += f"but {_names(against)} {'does' if len(against) == 1 else 'do'} not"
        return Check(f"{name} improves", good, text)

    def _guard(self, name: str, margin: float, candidate: Evidence, champion: Evidence) -> Check:
        change = _difference(candidate, champion, name)
        # The end of the interval on the worse side.
        worst = -change.low if _better_sign(name) > 0 else change.high
        good = worst <= margin
        text = f"{name} {_shown(candidate.metrics[name].value, name)} is "
        if math.isnan(worst):
            text = f"{name} cannot be compared: {difference_in_words(change, name)}"
        else:
            text += f"{'not worse' if good else 'perhaps worse'} than the champion's by more than {margin:g}: "
            text += difference_in_words(change, name)
        return Check(f"{name} is kept", good, text)

    def _slices(self, candidate: Evidence, champion: Evidence) -> list[Check]:
        """The primary metric in every slice that is large enough; one check per kind."""
        checks = []
        for kind in self.slices:
            if kind not in candidate.slices:
                continue
            changes = {}
            for name, here in candidate.slices[kind].items():
                there = champion.slices[kind][name]
                if here.people < self.slice_people or self.primary not in here.metrics:
                    continue
                found, held = here.metrics[self.primary].value, there.metrics[self.primary].value
                changes[name] = -_better_sign(self.primary) * (found - held) / held if held else 0.0
            if not changes:
                checks.append(Check(f"every {kind}", True, f"no {kind} has {self.slice_people} people to compare by"))
                continue
            bad = {name: change for name, change in changes.items() if not change <= self.slice_margin}
            worst = max(changes, key=lambda name: changes[name])
            most = f"{100 * self.slice_margin:g} %"
            if bad:
                shown = ", ".join(f"{n} {100 * bad[n]:+.1f} %" for n in sorted(bad, key=lambda n: -bad[n])[:5])
                where = f"in {len(bad)} of {len(changes)} {kind} slices: {shown}"
                text = f"{self.primary} gets worse by more than {most} {where}"
            else:
                text = f"{self.primary} gets worse by more than {most} in none of {len(changes)} {kind} slices"
                text += f" (worst: {worst} {100 * changes[worst]:+.1f} %)"
            checks.append(Check(f"every {kind}", not bad, text))
        return checks

    def incomparable(self, candidate: Scores, champion: Scores | None) -> tuple[Check, ...]:
        """Why the numbers decide nothing; empty if they can be compared."""
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
        return tuple(Check("comparable", False, reason) for reason in reasons)


def gate_for(name: str) -> Gate:
    """The default gate of a registered model."""
    if name == "das-demo":
        # A small test set of rendered people, on whatever machine somebody tries the demo: sequences and timings vary.
        return Gate(slice_margin=0.15, latency_margin=0.5)
    if name == "das-mupots":
        return Gate(slice_margin=0.1)  # twenty short sequences in the wild, some of two people
    return Gate()


def paired_differences(candidate: Evidence, champion: Evidence) -> dict[str, Interval]:
    """The paired differences, candidate minus champion, of all metrics."""
    return {name: _difference(candidate, champion, name) for name in METRICS}


def _difference(candidate: Evidence, champion: Evidence, name: str) -> Interval:
    first, second = candidate.metrics[name], champion.metrics[name]
    return paired_interval(first, second, candidate.clusters)


def _better_sign(metric: str) -> int:
    return 1 if metric in ("recall", "precision") else -1


def _shown(value: float, metric: str) -> str:
    return f"{value:.4g}" if metric in ("recall", "precision") else f"{value:.4g} mm"


def difference_in_words(change: Interval, metric: str) -> str:
    """A difference in words."""
    unit, form = ("", "+.4f") if metric in ("recall", "precision") else (" mm", "+.2f")
    ends = "" if math.isnan(change.low) else f"{change.low:{form}} to {change.high:{form}}, "
    return f"difference {change.value:{form}}{unit} ({ends}{change.label}, {change.clusters} blocks of frames)"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
