"""Decides promotion from metrics; returns the reasons.

A gate is data: ``Gate`` is read from a JSON file, and every registered model has a default (tasks.py). A promotion is a
statistical decision: the primary metric must improve by the paired cluster bootstrap (das/metrics/bootstrap.py), which
draws the same blocks of frames for both models. With few blocks, it must improve in every sequence as well. F1 must not
get worse: the primary metric counts missed people with the mean pose's error, but no false alarms. Recall and precision
alone pull against each other, by the score threshold. The error must not get worse in any subset of the data, nor the
latency. The first version is compared with the mean pose of the training split. Two models are compared only if
protocol, split, joint set and data are the same.

Subsets of the data are called ``slices`` in gate files, and so are the fields that are read from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from das.fields import check_values
from das.metrics.bootstrap import WITHIN, Interval, paired_interval
from pipeline.evaluation.scores import METRICS, SHARES, SLICES, Evidence, Metric, Scores, SliceKind


@dataclass(frozen=True)
class Check:
    """One condition of a gate: its name, whether it is met, and a sentence with the numbers."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Verdict:
    """A gate's decision: promoted if every check passed."""

    checks: tuple[Check, ...]
    """All checks, in the order in which they were made."""

    @property
    def passed(self) -> bool:
        """Whether the candidate becomes champion."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of all checks; of a refusal, only those of the failed checks."""
        return tuple(check.text for check in self.checks if check.passed == self.passed)

    def __str__(self) -> str:
        return ("promoted: " if self.passed else "refused: ") + "; ".join(self.reasons)

    def markdown(self) -> str:
        """The decision with every check, Markdown for the version's page in MLflow."""
        rows = (f"- {'passed' if c.passed else '**failed**'}, {c.name}: {c.text}" for c in self.checks)
        return "\n".join((f"**{'Promoted' if self.passed else 'Refused'}**", "", *rows))


@dataclass(frozen=True)
class Gate:
    """When a candidate replaces the champion; a JSON file sets any of these fields, the others keep their default."""

    protocol: str = "strict"
    """The scores must be of this protocol."""
    primary: Metric = "mpjpe_with_misses"
    """Must improve: both ends of the paired difference's 95 % interval are on the better side of zero."""
    guards: Mapping[str, float] = field(default_factory=lambda: {"f1": 0.01})
    """Further metrics (f1, recall, mpjpe, ...) and by how much each may get worse, in its own unit: the worse
    end of the paired interval is compared with it."""
    slices: tuple[SliceKind, ...] = SLICES
    """Kinds of subsets in which the primary metric must not get worse; kinds that the data do not have are skipped."""
    slice_margin: float = 0.05
    """The primary metric may get worse in a subset by this share of the champion's value."""
    slice_people: int = 50
    """Subsets with fewer annotated people are not compared."""
    latency_margin: float | None = 0.2
    """The candidate may take longer for an image by this share, both timed alternately on this machine; null for no
    limit."""
    batch_images: int = 8
    """Images of the fixed batch, on which the registered files must reproduce the scores of the evaluation."""
    batch_tolerance_mm: float = 1.0
    """Largest change of the error on that batch, mm."""
    batch_tolerance: float = 0.02
    """Largest change of recall and precision on that batch."""
    min_f1: float = 0.85
    """The first version's F1 must be above this."""
    max_error: float = 0.9
    """The first version's MPJPE with misses must be below this share of the mean pose's on all people."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        object.__setattr__(self, "guards", dict(self.guards))
        margins = ("slice_margin", "batch_tolerance_mm", "batch_tolerance", "min_f1", "max_error")
        checks = (
            ("primary", self.primary in METRICS, f"one of {', '.join(METRICS)}"),
            ("guards", set(self.guards) <= set(METRICS), f"margins of {', '.join(METRICS)}"),
            ("guards", all(_is_number(m) and m >= 0 for m in self.guards.values()), "margins of at least 0"),
            ("slices", set(self.slices) <= set(SLICES), f"some of {', '.join(SLICES)}"),
            ("latency_margin", self.latency_margin is None or _is_number(self.latency_margin), "a number or null"),
            ("slice_people", isinstance(self.slice_people, int) and self.slice_people >= 1, "at least 1"),
            ("batch_images", isinstance(self.batch_images, int) and self.batch_images >= 1, "at least 1"),
            *((n, _is_number(getattr(self, n)) and getattr(self, n) >= 0, "a number of at least 0") for n in margins),
        )
        check_values(self, *checks, what="gate")

    def to_json(self) -> dict[str, Any]:
        """Plain values: the content of a gate file."""
        return {**asdict(self), "slices": list(self.slices)}

    def changed_by(self, value: Any) -> Gate:
        """This gate with the fields of a gate file; ValueError names an unknown field or a bad value."""
        if not isinstance(value, dict):
            raise ValueError(f"gate: found {value!r}, wanted an object of fields")
        unknown = sorted(set(value) - {f.name for f in fields(self)})
        if unknown:
            raise ValueError(f"gate: unknown fields {unknown}, known: {', '.join(f.name for f in fields(self))}")
        for name, kind in (("guards", dict), ("slices", list)):
            if not isinstance(value.get(name, kind()), kind):
                raise ValueError(f"gate: {name} = {value[name]!r}, wanted {'an object' if kind is dict else 'a list'}")
        return replace(self, **value)

    def compare(self, candidate: Evidence, champion: Evidence | None) -> tuple[Check, ...]:
        """Compares with the champion, or for the first version with the mean pose and a minimum of F1."""
        obstacles = self.incomparable(candidate.scores, None if champion is None else champion.scores)
        if obstacles:
            return obstacles
        if champion is None:
            return self._first(candidate.scores)
        guards = [self._guard(name, margin, candidate, champion) for name, margin in self.guards.items()]
        return (self._improvement(candidate, champion), *guards, *self._subsets(candidate, champion))

    def _first(self, scores: Scores) -> tuple[Check, ...]:
        """The first version: MPJPE with misses below a share of the mean pose's, F1 above its minimum."""
        most = self.max_error * scores.baseline_mpjpe_with_misses_mm
        reference = f"{self.max_error:g} of the mean pose's {scores.baseline_mpjpe_with_misses_mm:.4g} mm"
        rows = (
            ("MPJPE with misses", scores.mpjpe_with_misses_mm, most, reference, " mm", -1),
            ("F1", scores.f1, self.min_f1, "the minimum", "", 1),
        )
        checks = []
        for name, found, wanted, reference, unit, sign in rows:
            good = sign * found > sign * wanted
            text = f"{name} {found:.4g}{unit} is better than {wanted:.4g}{unit}, {reference}"
            if math.isnan(found) or math.isnan(wanted):
                text = f"{name} is undefined: there is no mean pose, or nobody to find"
            elif not good:
                # Six digits: a value just below the minimum must not be printed as the minimum.
                text = f"{name} {found:.6g}{unit} is not better than {wanted:.6g}{unit}, {reference}"
            checks.append(Check(name, good, text))
        return tuple(checks)

    def _improvement(self, candidate: Evidence, champion: Evidence) -> Check:
        """Whether the primary metric is surely better; with few blocks of frames, better in every sequence as well."""
        name = self.primary
        found, before = candidate.metrics[name].value, champion.metrics[name].value
        change = _difference(candidate, champion, name)
        better = _better_sign(name)
        good = change.sign == better
        words = (
            f"{name} {_shown(found, name)} is {'' if good else 'not '}better than the champion's {_shown(before, name)}"
        )
        text = f"{words}: {difference_in_words(change, name)}"
        if math.isnan(found) or math.isnan(before):
            text = f"{name} is undefined: no person was matched"
        elif math.isnan(change.low):
            text += f"; {change.clusters} block of frames gives no interval, wanted at least 2"
        elif good and change.label == WITHIN:
            # Few blocks: the interval is only about these sequences (das/metrics/bootstrap.py).
            worse = sorted(s for s, sign in (change.signs or {}).items() if sign != better)
            if worse:
                good = False
                words = words.replace("is better", "is not surely better")
                text = f"{words}: {difference_in_words(change, name)}; with so few blocks every sequence must improve, "
                text += f"but {_names(worse)} {'does' if len(worse) == 1 else 'do'} not"
        return Check(f"{name} improves", good, text)

    def _guard(self, name: str, margin: float, candidate: Evidence, champion: Evidence) -> Check:
        """Whether a metric is, at the worse end of its paired interval, not worse by more than the margin."""
        change = _difference(candidate, champion, name)
        # The end of the interval on the worse side, positive for a loss.
        worst = -change.low if _better_sign(name) > 0 else change.high
        good = worst <= margin
        text = f"{name} {_shown(candidate.metrics[name].value, name)} is "
        if math.isnan(worst):
            text = f"{name} cannot be compared: {difference_in_words(change, name)}"
        else:
            text += f"{'not worse' if good else 'perhaps worse'} than the champion's by more than {margin:g}: "
            text += difference_in_words(change, name)
        return Check(f"{name} is kept", good, text)

    def _subsets(self, candidate: Evidence, champion: Evidence) -> list[Check]:
        """The primary metric in every subset with enough people; one check per kind of subset."""
        checks = []
        for kind in self.slices:
            if kind not in candidate.slices:
                continue
            losses = {}  # name of the subset -> how much worse it is, as a share of the champion's value
            for name, subset in candidate.slices[kind].items():
                if subset.people < self.slice_people or self.primary not in subset.metrics:
                    continue
                found = subset.metrics[self.primary].value
                before = champion.slices[kind][name].metrics[self.primary].value
                losses[name] = -_better_sign(self.primary) * (found - before) / before if before else 0.0
            if not losses:
                checks.append(Check(f"every {kind}", True, f"no {kind} has {self.slice_people} people to compare by"))
                continue
            # Not "loss > margin": a loss of nan, where the candidate has no value, must fail.
            failed = {name: loss for name, loss in losses.items() if not loss <= self.slice_margin}
            most = f"{100 * self.slice_margin:g} %"
            if failed:
                shown = ", ".join(f"{n} {100 * failed[n]:+.1f} %" for n in sorted(failed, key=lambda n: -failed[n])[:5])
                where = f"in {len(failed)} of {len(losses)} {kind} subsets: {shown}"
                text = f"{self.primary} gets worse by more than {most} {where}"
            else:
                worst = max(losses, key=lambda name: losses[name])
                text = f"{self.primary} gets worse by more than {most} in none of {len(losses)} {kind} subsets"
                text += f" (worst: {worst} {100 * losses[worst]:+.1f} %)"
            checks.append(Check(f"every {kind}", not failed, text))
        return checks

    def incomparable(self, candidate: Scores, champion: Scores | None) -> tuple[Check, ...]:
        """Why the scores cannot be used, one failed check per reason; empty if they can be compared."""
        reasons = []
        if candidate.train_fit:
            reasons.append("the scores are train-fit: measured on data that the model was trained on")
        if candidate.protocol != self.protocol:
            reasons.append(f"protocol is {candidate.protocol}, the gate takes {self.protocol}")
        if champion is not None:
            for name in ("protocol", "split", "skeleton", "data_fingerprint"):
                found, wanted = getattr(candidate, name), getattr(champion, name)
                if found != wanted:
                    reasons.append(f"{name} is {found}, the champion's scores are of {wanted}")
        return tuple(Check("comparable", False, reason) for reason in reasons)


def paired_differences(candidate: Evidence, champion: Evidence) -> dict[str, Interval]:
    """Candidate minus champion, of all metrics, with the interval of the paired cluster bootstrap."""
    return {name: _difference(candidate, champion, name) for name in METRICS}


def _difference(candidate: Evidence, champion: Evidence, name: str) -> Interval:
    first, second = candidate.metrics[name], champion.metrics[name]
    return paired_interval(first, second, candidate.clusters)


def _better_sign(metric: str) -> int:
    """1 where larger is better (shares), -1 for errors."""
    return 1 if metric in SHARES else -1


def _shown(value: float, metric: str) -> str:
    """A value with its unit: shares have none, errors are in mm."""
    return f"{value:.4g}" if metric in SHARES else f"{value:.4g} mm"


def difference_in_words(change: Interval, metric: str) -> str:
    """A difference with its 95 % interval, label and number of blocks, as text."""
    unit, form = ("", "+.4f") if metric in SHARES else (" mm", "+.2f")
    ends = "" if math.isnan(change.low) else f"{change.low:{form}} to {change.high:{form}}, "
    return f"difference {change.value:{form}}{unit} ({ends}{change.label}, {change.clusters} blocks of frames)"


def _names(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
