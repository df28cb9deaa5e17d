"""Average precision of finding people: AP-root at 25 cm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from das.metrics.tables import MISSED, Predictions, Truth, distances, greedy, pairs_within_frames, ratio, root_of


def root_average_precision(
    truth: Truth,
    predictions: Predictions,
    root: Sequence[int],
    radius: float = 250.0,
    ignored: np.ndarray | None = None,
) -> float:
    """Average precision of finding people: a prediction is right when its root is within ``radius`` mm.

    AP-root at 25 cm as RootNet (Moon et al. 2019) names it: by falling score, over all frames, each
    prediction takes the nearest person of its frame who is still free; AP is the area under the
    precision-recall curve, precision made monotone. Ignored people are left out. Returns a fraction 0 to
    1, NaN without people.

    Args:
        truth: people who count, and others.
        predictions: all candidates.
        root: indices of the joints whose mean is the root.
        radius: mm.
        ignored: (P,) bool, predictions that are not wrong where they are not right, because they may be of a person
            who does not count; None: no prediction.
    """
    right = near_roots(truth, predictions, root, radius)
    counted = slice(None) if ignored is None else right | ~ignored
    return average_precision(right[counted], predictions.scores[counted], int(truth.counted(root).sum()))


def near_roots(truth: Truth, predictions: Predictions, root: Sequence[int], radius: float = 250.0) -> np.ndarray:
    """(P,) bool: the predictions that are right in ``root_average_precision``, which depends on their frame alone."""
    truth = truth.where(truth.counted(root))
    t, p = pairs_within_frames(truth, predictions)
    gap = distances(root_of(truth.joints_cam, root)[t], root_of(predictions.joints_cam, root)[p])
    t, p, gap = t[gap < radius], p[gap < radius], gap[gap < radius]
    order = np.lexsort((gap, p, -predictions.scores[p]))
    match = greedy(len(truth), len(predictions), t[order], p[order])
    right = np.zeros(len(predictions), dtype=bool)
    right[match[match != MISSED]] = True
    return right


def average_precision(right: np.ndarray, scores: np.ndarray, people: int) -> float:
    """Area under the precision-recall curve, precision made monotone: a fraction 0 to 1, NaN without people.

    Args:
        right: (P,) bool, the predictions that are right.
        scores: (P,), higher is surer; of equal ones the first comes first.
        people: to be found.
    """
    right = right[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return ratio(float(envelope[right].sum()), people)
