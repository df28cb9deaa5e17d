"""Confidence intervals by the cluster bootstrap, for one model and for the difference of two on the same images.

Neighbouring frames show nearly the same picture, so images are not independent and an interval that treats them as
independent is far too narrow. Resamples draw clusters with replacement. A cluster is a contiguous block of at least 5
s of frames of one sequence, with all cameras and people of that moment (``blocks``). Every score is a ratio of sums
over images (``Ratio``), so a resample is one product of a matrix of how often each cluster was drawn with the
clusters' sums.

Intervals are studentised (bootstrap-t; Efron and Tibshirani 1993, chapter 12): quantiles of the resamples' distances
from the score, each in units of its own delete-one-cluster standard error. With 40 skewed clusters they contain the
true value in about 95 % of cases; percentile intervals (with or without bias correction and acceleration) are too
short: on log-normal clusters 91.5 to 93 %.

They measure variation between clusters only. Without any (no person was missed anywhere, say) the interval is the
number itself. Fewer than ``FEW`` clusters are not representative of other footage: their intervals are labelled
``WITHIN``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

LEVEL = 0.95
SECONDS = 5.0
FEW = 8
SURE = "95 %"
WITHIN = "within these sequences only"
_RESAMPLES = 1999
# Lower bound of a resample's standard error, as a share of the data's: where few clusters differ, many resamples
# contain none of those, and their standardised distance would be infinite.
_LEAST_ERROR = 0.3
# Resampled delete-one values that are in memory at once.
_CHUNK = 1 << 21


@dataclass(frozen=True)
class Ratio:
    """A number that is a ratio of sums over images, or the plain mean of G such ratios.

    Attributes:
        numerator: (F,) what each image adds above the line, such as the sum of its joints' errors; or (F, G), a column
            for each of what is averaged, such as activities or joints.
        denominator: the same below the line, such as the number of its joints; not negative.

    Raises:
        ValueError: shapes that disagree, numbers that are not finite, a negative denominator.
    """

    numerator: np.ndarray
    denominator: np.ndarray

    def __post_init__(self) -> None:
        for name in ("numerator", "denominator"):
            value: np.ndarray = np.asarray(getattr(self, name), dtype=np.float64)
            if value.ndim not in (1, 2) or value.shape != np.shape(self.denominator):
                raise ValueError(f"{name} has shape {value.shape}, wanted (F,) or (F, G) as the denominator")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite, found {np.count_nonzero(~np.isfinite(value))} other numbers")
            object.__setattr__(self, name, value)
        if (self.denominator < 0).any():
            raise ValueError(f"denominator must not be negative, found {self.denominator.min()}")

    @property
    def value(self) -> float:
        """The number; NaN, "not measured", where every denominator is zero."""
        return float(_mean_of_ratios(self._sums(self.numerator), self._sums(self.denominator)))

    def where(self, images: np.ndarray) -> Ratio:
        """The score of a part of the images, a mask (F,) or indices."""
        return Ratio(self.numerator[images], self.denominator[images])

    def summed(self, group: np.ndarray, groups: int) -> Ratio:
        """The same score from sums over groups of images, which are its images then.

        Args:
            group: (F,) int from 0, the group of every image.
            groups: how many there are.
        """
        sums = []
        for column in (self.numerator, self.denominator):
            sums.append(np.zeros((groups, *column.shape[1:])))
            np.add.at(sums[-1], group, column)
        return Ratio(*sums)

    def mean_over(self, group: np.ndarray) -> Ratio:
        """The plain mean (F, G) of a ratio (F,) over groups; ``group`` (F,) names that of every image."""
        names, column = np.unique(group, return_inverse=True)
        which = np.eye(len(names))[column]  # (F, G), 1 in the image's own group
        return Ratio(self.numerator[:, None] * which, self.denominator[:, None] * which)

    def columns(self) -> list[Ratio]:
        """The G ratios of a mean of ratios, each as a separate score."""
        return [Ratio(above, below) for above, below in zip(self.numerator.T, self.denominator.T, strict=True)]

    @staticmethod
    def _sums(column: np.ndarray) -> np.ndarray:
        return column.sum(axis=0).reshape(-1)


@dataclass(frozen=True)
class Interval:
    """A number with the interval that contains the true value in 95 of 100 cases.

    Attributes:
        value: of all images; a difference is first minus second.
        low, high: ends of the interval; NaN with fewer than two clusters.
        clusters: blocks that have a part in the number.
        label: ``SURE``, or ``WITHIN`` with little footage or fewer than ``FEW`` clusters.
        signs: of a difference, in every sequence that has one: -1, 0 or 1.
    """

    value: float
    low: float
    high: float
    clusters: int
    label: str
    signs: dict[str, int] | None = None

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval is above or below zero, otherwise 0: undecided."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Clusters:
    """Which images are drawn together.

    Attributes:
        of: (F,) int from 0, the cluster of every image.
        sequence: (F,) names; no cluster reaches from one into another.
        label: ``SURE``, or ``WITHIN`` with fewer than ``FEW`` clusters.
    """

    of: np.ndarray
    sequence: np.ndarray
    label: str = SURE

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.of.max(initial=-1)) + 1

    def where(self, images: np.ndarray) -> Clusters:
        """The same clusters of a part of the images, a mask (F,) or indices."""
        return Clusters(self.of[images], self.sequence[images], self.label)


def blocks(
    sequence: np.ndarray, frame: np.ndarray, frames_per_second: float | np.ndarray, seconds: float = SECONDS
) -> Clusters:
    """Blocks of neighbouring images, nested in sequences.

    A sequence is cut into as many blocks of equal duration as have at least ``seconds``; a shorter one is one block.
    All cameras of one moment share its block. Footage that gives a single block is cut in two, for one block says
    nothing of how blocks vary.

    Args:
        sequence: (F,) names.
        frame: (F,) frame numbers within the sequence, in any order and with gaps.
        frames_per_second: of the sequence's frame numbers, one for all or (F,).
        seconds: least duration of a block.

    Raises:
        ValueError: shapes that disagree, or a rate or duration that is not above 0.
    """
    sequence, frame = np.asarray(sequence), np.asarray(frame, dtype=np.int64)
    if sequence.shape != frame.shape or frame.ndim != 1:
        raise ValueError(f"sequence has shape {sequence.shape} and frame {frame.shape}, wanted (F,) of both")
    rate = np.broadcast_to(np.asarray(frames_per_second, dtype=np.float64), frame.shape)
    if not ((rate > 0).all() and seconds > 0):
        raise ValueError(f"frames_per_second and seconds must be above 0, found {rate.min()} and {seconds}")
    of = _cut(sequence, frame, rate * seconds)
    if of.max(initial=-1) == 0:
        of = (2 * (frame - frame.min()) > np.ptp(frame)).astype(np.int64)
    found = Clusters(of, sequence)
    return found if found.count >= FEW else replace(found, label=WITHIN)


def _cut(sequence: np.ndarray, frame: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Sequences cut into blocks of at least ``least`` (F,) frames: (F,) int from 0."""
    _, which = np.unique(sequence, return_inverse=True)
    first = np.full(len(frame), np.iinfo(np.int64).max)
    last = np.full(len(frame), np.iinfo(np.int64).min)
    np.minimum.at(first, which, frame)
    np.maximum.at(last, which, frame)
    length = (last - first + 1)[which]
    count = np.maximum(1, length // np.ceil(least).astype(np.int64))
    block = (frame - first[which]) * count // length
    _, cluster = np.unique(np.stack([which, block], axis=1), axis=0, return_inverse=True)
    return cluster.reshape(-1)


def interval(score: Ratio, clusters: Clusters, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
    """The 95 % interval of a score.

    Args:
        score: of F images.
        clusters: of the images, from ``blocks``.
        bounds: what the number cannot leave, such as (0, 1) for a share; the interval ends there.
    """
    return _studentised([score], clusters, bounds)


def paired_interval(first: Ratio, second: Ratio, clusters: Clusters) -> Interval:
    """The 95 % interval of the difference first - second of two models on the same images.

    Both are measured on the same resampled clusters, so what makes an image hard for both cancels.

    Args:
        first: score of one model on F images.
        second: the same score of the other.
        clusters: of the images, from ``blocks``; the result holds the sign of the difference in each sequence.

    Raises:
        ValueError: scores of different numbers of images or of different kinds.
    """
    if first.numerator.shape != second.numerator.shape:
        shapes = f"{first.numerator.shape} and {second.numerator.shape}"
        raise ValueError(f"scores to be compared have shapes {shapes}, wanted the same images")
    found = _studentised([first, second], clusters, (-np.inf, np.inf))
    signs = {}
    for name in np.unique(clusters.sequence):
        here = clusters.sequence == name
        difference = first.where(here).value - second.where(here).value
        if not np.isnan(difference):
            signs[str(name)] = int(np.sign(difference))
    return replace(found, signs=signs)


def _studentised(scores: list[Ratio], clusters: Clusters, bounds: tuple[float, float]) -> Interval:
    """Interval of one score, or of the difference of two."""
    value = scores[0].value - (scores[1].value if len(scores) == 2 else 0.0)
    sums = [_cluster_sums(score, clusters) for score in scores]
    taken = np.any([below.any(axis=1) for _, below in sums], axis=0)
    sums = [(above[taken], below[taken]) for above, below in sums]
    count = int(taken.sum())
    label = clusters.label if count >= FEW else WITHIN
    if count < 2 or np.isnan(value):
        return Interval(value, np.nan, np.nan, count, label)

    drawn = _draws(count)
    centre, error = _value_and_error(np.ones((1, count)), sums)
    step = max(1, _CHUNK // count)
    parts = [_value_and_error(drawn[i : i + step], sums) for i in range(0, len(drawn), step)]
    values, errors = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    # Resamples without a single cluster that has the number say nothing about it.
    known = np.isfinite(values) & np.isfinite(errors)
    if not np.isfinite(error[0]) or known.sum() < len(drawn) / 2:
        return Interval(value, np.nan, np.nan, count, label)
    if error[0] == 0:
        return Interval(value, value, value, count, label)
    distance = (values[known] - centre[0]) / np.maximum(errors[known], _LEAST_ERROR * error[0])
    tail = (1 - LEVEL) / 2
    near, far = np.quantile(distance, [tail, 1 - tail], method="weibull")
    # Resamples spread as if there were one cluster less.
    error = error[0] * np.sqrt(count / (count - 1))
    low, high = np.clip([value - far * error, value - near * error], *bounds)
    return Interval(value, float(low), float(high), count, label)


def _cluster_sums(score: Ratio, clusters: Clusters) -> tuple[np.ndarray, np.ndarray]:
    """Sums of numerator and denominator over each cluster's images: (C, G) each."""
    if clusters.of.shape != score.numerator.shape[:1]:
        raise ValueError(f"{len(clusters.of)} images have clusters and {len(score.numerator)} have a score")
    columns = [column.reshape(len(column), -1) for column in (score.numerator, score.denominator)]
    of, count = clusters.of, clusters.count
    above, below = (np.stack([np.bincount(of, c, count) for c in column.T], axis=1) for column in columns)
    return above, below


@lru_cache(maxsize=8)
def _draws(clusters: int) -> np.ndarray:
    """How often each resample draws each cluster, (B, C); the same on every call."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=_RESAMPLES).astype(np.float64)
    drawn.setflags(write=False)
    return drawn


def _value_and_error(drawn: np.ndarray, sums: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Score, or difference of two, of resamples (B, C), and its delete-one-cluster standard error: 2 x (B,)."""
    value, change = np.zeros(len(drawn)), np.zeros(drawn.shape)
    for sign, (above, below) in zip((1, -1), sums, strict=False):
        total, whole = drawn @ above, drawn @ below  # (B, G)
        here = _mean_of_ratios(total, whole)
        value += sign * here
        change += sign * (_without_each(above, below, total, whole) - here[:, None])
    # Clusters that a resample does not hold cannot be taken from it.
    change[drawn == 0] = 0.0
    return value, np.sqrt(np.einsum("bc,bc,bc->b", drawn, change, change))


def _without_each(above: np.ndarray, below: np.ndarray, total: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The score of resamples with sums (B, G) once each cluster with sums (C, G) is taken from them: (B, C)."""
    if below.shape[1] == 1 and (below > 0).all():
        # The common case, many times quicker. Division by zero happens only for clusters that a
        # resample does not contain, whose values are discarded.
        with np.errstate(divide="ignore", invalid="ignore"):
            return (total - above.T) / (whole - below.T)
    there = whole > 0
    ratios = np.divide(total, whole, out=np.zeros_like(total), where=there)
    mean = np.repeat(ratios.sum(axis=1, keepdims=True), len(above), axis=1)
    count = np.repeat(there.sum(axis=1, keepdims=True), len(above), axis=1)
    for g in range(above.shape[1]):
        # Of sequences, say, most clusters have a part in one alone.
        touched = np.flatnonzero((below[:, g] > 0) | (above[:, g] != 0))
        left = whole[:, [g]] - below[touched, g]
        some = left > 1e-9 * whole[:, [g]]  # less is what rounding leaves of nothing
        changed = np.divide(total[:, [g]] - above[touched, g], left, out=np.zeros_like(left), where=some)
        mean[:, touched] += changed - ratios[:, [g]]
        count[:, touched] += some.astype(np.int64) - there[:, [g]]
    return np.divide(mean, count, out=np.full_like(mean, np.nan), where=count > 0)


def _mean_of_ratios(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Mean of above / below over the last axis, over entries that have something below; NaN without any."""
    there = below > 0
    ratios = np.where(there, above, 0.0) / np.where(there, below, 1.0)
    count = there.sum(axis=-1)
    return ratios.sum(axis=-1) / np.where(count > 0, count, np.nan)
