"""A distribution in bounded memory: counts in bins of equal width, with exact mean, minimum and maximum."""

from __future__ import annotations

import math

import numpy as np


class Histogram:
    """Counts of values of at least 0, in bins up to ``stop`` and one more for ``[stop, inf)``.

    Attributes:
        width: of a bin, in the unit of the values.
        counts: (bins + 1,) int64, the last for ``[stop, inf)``.
        n: number of values.
        total: sum of the values.
        least, most: minimum and maximum; NaN without values.
    """

    def __init__(self, width: float, stop: float) -> None:
        self.width = width
        self.counts = np.zeros(round(stop / width) + 1, np.int64)
        self.n, self.total = 0, 0.0
        self.least, self.most = math.nan, math.nan

    def add(self, values: np.ndarray) -> None:
        """Counts the values of an array of any shape; all are finite and at least 0."""
        values = np.asarray(values, np.float64).ravel()
        if not values.size:
            return
        assert np.isfinite(values).all() and values.min() >= 0, (values.min(), values.max())
        # A value on the border of two bins belongs to the upper one, even if the division rounds down (0.3 / 0.1 < 3).
        bins = np.minimum(np.floor(values / self.width + 1e-9), len(self.counts) - 1).astype(np.int64)
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.n += values.size
        self.total += float(values.sum())
        self.least = float(np.nanmin([self.least, values.min()]))
        self.most = float(np.nanmax([self.most, values.max()]))

    @property
    def mean(self) -> float:
        """Exact mean; NaN without values."""
        return self.total / self.n if self.n else math.nan

    def quantile(self, share: float) -> float:
        """The quantile of this share (0 to 1), exact to within a bin; NaN without values.

        Within a bin it is interpolated. In the open last bin, where that is not possible, it is the maximum.
        """
        if not self.n:
            return math.nan
        below = np.concatenate([[0], np.cumsum(self.counts)])
        rank = share * self.n
        i = min(int(np.searchsorted(below, rank, side="right")) - 1, len(self.counts) - 1)
        if i == len(self.counts) - 1:
            return self.most
        inside = (rank - below[i]) / max(1, self.counts[i])
        return float(np.clip((i + inside) * self.width, self.least, self.most))

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Edges (n + 1,) and counts (n,) of the bins from the first to the last that is not empty.

        The open bin is given the same width as the others.
        """
        used = np.flatnonzero(self.counts)
        if not used.size:
            return np.array([0.0, self.width]), np.zeros(1, np.int64)
        first, last = int(used[0]), int(used[-1]) + 1
        return np.arange(first, last + 1) * self.width, self.counts[first:last]
