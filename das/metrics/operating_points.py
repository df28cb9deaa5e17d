"""What each score threshold gives under the strict protocol, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from das.metrics.strict import f1, only_ignored, within_reach
from das.metrics.tables import Predictions, Truth


@dataclass(frozen=True)
class OperatingPoint:
    """A score threshold and what the predictions above it give: fractions 0 to 1.

    ``score`` is the lowest of the predictions that are kept, ``threshold`` the highest of those that are dropped, or
    just below the lowest of all if none is.
    """

    score: float
    threshold: float
    f1: float
    recall: float
    precision: float


def best_threshold(truth: Truth, predictions: Predictions, root: Sequence[int]) -> OperatingPoint | None:
    """The score threshold with the best F1 under the strict protocol, the highest of equally good ones.

    To be chosen on val. None where there are no people, or no predictions of people who count, to choose by.
    """
    return max(operating_points(truth, predictions, root), key=lambda point: point.f1, default=None)


def operating_points(truth: Truth, predictions: Predictions, root: Sequence[int]) -> list[OperatingPoint]:
    """Every score threshold that makes a difference, the highest first; none without people or predictions that count.

    Exact for all thresholds in one sweep.
    """
    gained, counted = matches_gained(truth, predictions, root), ~only_ignored(truth, predictions, root)
    return points_of(gained[counted], predictions.scores[counted], int(truth.counted(root).sum()))


def matches_gained(truth: Truth, predictions: Predictions, root: Sequence[int]) -> np.ndarray:
    """(P,) bool: predictions with which there is one match more than with those of higher score alone.

    The number of matches is the size of a maximum matching: with predictions entering by falling score it grows by one
    exactly when the newcomer finds an augmenting path (Berge). That depends on the prediction's frame alone.
    """
    t, p, _ = within_reach(truth, predictions, truth.counted(root), root)
    reach: list[list[int]] = [[] for _ in range(len(predictions))]
    for person, candidate in zip(t.tolist(), p.tolist(), strict=True):
        reach[candidate].append(person)
    owner: dict[int, int] = {}

    def place(candidate: int, tried: set[int]) -> bool:
        for person in reach[candidate]:
            if person not in tried:
                tried.add(person)
                if person not in owner or place(owner[person], tried):
                    owner[person] = candidate
                    return True
        return False

    gained = np.zeros(len(predictions), dtype=bool)
    for candidate in np.argsort(-predictions.scores, kind="stable").tolist():
        gained[candidate] = place(candidate, set())
    return gained


def points_of(gained: np.ndarray, scores: np.ndarray, people: int) -> list[OperatingPoint]:
    """The points of ``operating_points``.

    Args:
        gained: (P,) bool from ``matches_gained``, of the predictions that count.
        scores: (P,) of the same.
        people: who count.
    """
    if not people or not len(scores):
        return []
    order = np.argsort(-scores, kind="stable")
    scores, matched = scores[order], np.cumsum(gained[order])
    following = np.append(scores[1:], np.nextafter(scores[-1], -np.inf))
    return [
        OperatingPoint(
            score=float(scores[i]),
            threshold=float(following[i]),
            f1=f1(int(matched[i]), people, i + 1),
            recall=float(matched[i] / people),
            precision=float(matched[i] / (i + 1)),
        )
        for i in np.flatnonzero(scores != following).tolist()  # no threshold separates equal scores
    ]
