"""A histogram agrees with NumPy's statistics of all values at once, to within a bin."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.infra.html.histogram import Histogram

VALUES = st.lists(st.floats(0, 9.99, allow_subnormal=False), min_size=1, max_size=60)


@given(VALUES, st.integers(1, 5))
def test_values_added_in_parts_give_the_statistics_of_all_values(values, parts):
    histogram = Histogram(0.25, 10.0)
    for part in np.array_split(np.array(values), parts):
        histogram.add(part)
    assert histogram.n == histogram.counts.sum() == len(values)
    assert math.isclose(histogram.mean, float(np.mean(values)), rel_tol=1e-9, abs_tol=1e-12)
    assert (histogram.least, histogram.most) == (min(values), max(values))
    edges, counts = histogram.bins()
    assert counts.sum() == len(values) and edges[0] <= min(values) + 1e-6 and max(values) < edges[-1] + 1e-6


@given(VALUES, st.floats(0.01, 0.99))
def test_a_quantile_is_within_a_bin_of_the_sorted_value(values, share):
    histogram = Histogram(0.25, 10.0)
    histogram.add(np.array(values))
    inverted = np.sort(values)[min(math.floor(share * len(values)), len(values) - 1)]
    before = np.sort(values)[max(math.ceil(share * len(values)) - 1, 0)]
    assert before - 0.25 - 1e-6 <= histogram.quantile(share) <= inverted + 0.25 + 1e-6


def test_values_beyond_the_last_bin_are_counted_and_an_empty_histogram_gives_nan():
    histogram = Histogram(1, 3)
    assert math.isnan(histogram.mean) and math.isnan(histogram.quantile(0.5))
    histogram.add(np.array([0.5, 7.0, 8.0]))
    assert histogram.counts.tolist() == [1, 0, 0, 2]
    assert histogram.quantile(0.9) == histogram.most == 8.0


@pytest.mark.parametrize("bad", [[-1.0], [np.nan], [np.inf]])
def test_negative_and_infinite_values_are_a_programming_error(bad):
    with pytest.raises(AssertionError):
        Histogram(1, 3).add(np.array(bad))
