"""Video metrics: identity switches, and jitter as the error of acceleration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from das.metrics.tables import ratio


def identity_switches(frame: np.ndarray, person: np.ndarray, identity: np.ndarray) -> int:
    """How often a person's identity differs from the one before (CLEAR MOT, Bernardin and Stiefelhagen, 2008).

    Args:
        frame: (N,) int, of each matched person of each frame.
        person: (N,) int, who it is in truth.
        identity: (N,) int, the track that it was given; below 0 for none, which is no switch by itself.
    """
    known = identity >= 0
    order = np.lexsort((frame[known], person[known]))
    who, tracks = person[known][order], identity[known][order]
    return int(((who[1:] == who[:-1]) & (tracks[1:] != tracks[:-1])).sum())


def acceleration_error(
    predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], seconds: float, counted: Sequence[np.ndarray]
) -> float:
    """Mean length of the difference of predicted and true acceleration, m/s^2 (Kanazawa et al., CVPR 2019).

    Args:
        predicted: of each person, (T, J, 3) mm, the joints in consecutive frames.
        true: of each person, (T, J, 3) mm.
        seconds: between two frames.
        counted: of each person, (T, J) bool; an acceleration counts where its three positions do.

    Returns:
        NaN where none counts.
    """
    above, below = 0.0, 0
    for mine, truth, known in zip(predicted, true, counted, strict=True):
        difference = np.diff(mine - truth, n=2, axis=0) / seconds**2 / 1000
        three = known[:-2] & known[1:-1] & known[2:]
        above += float(np.linalg.norm(difference, axis=-1)[three].sum())
        below += int(three.sum())
    return ratio(above, below)
