"""Intervals: against simulations whose truth is known, and the properties of clusters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das.metrics.bootstrap import FEW, SURE, WITHIN, Clusters, Ratio, blocks, interval, paired_interval

seeds = st.integers(0, 2**32 - 1)
CLUSTERS, REPLICATIONS = 40, 2000


# ---- what 95 % means ------------------------------------------------------------------------------------------------


def images(rng, clusters=CLUSTERS, most=12):
    """Clusters of 1 to ``most`` images: the cluster of every image."""
    return np.repeat(np.arange(clusters), rng.integers(1, most, clusters))


def alone(cluster):
    """Clusters without sequences to speak of."""
    return Clusters(np.asarray(cluster), np.zeros(len(cluster)))


def skewed_errors(rng):
    """Errors whose level is log-normal over clusters: long tail, equal within; mean 80 exp(0.125) mm per joint."""
    cluster = images(rng)
    level = 80 * np.exp(rng.normal(0, 0.5, CLUSTERS))[cluster]
    joints = rng.poisson(3, len(cluster))
    return alone(cluster), Ratio(level * joints * rng.gamma(2, 0.5, len(cluster)), joints)


def found_people(rng):
    """Recall: the chance to be found differs between clusters, mostly near 1, sometimes low; mean 0.9."""
    cluster = images(rng)
    chance = rng.beta(9 * 0.3, 0.3, CLUSTERS)[cluster]
    people = rng.poisson(3, len(cluster))
    return alone(cluster), Ratio(rng.binomial(people, chance), people)


def two_models(rng):
    """The second is worse by a tenth of a skewed level common to both: mean difference -8 exp(0.125) mm."""
    cluster = images(rng)
    level = 80 * np.exp(rng.normal(0, 0.5, CLUSTERS))[cluster]
    joints = rng.poisson(3, len(cluster))
    first, second = (share * level * joints * rng.gamma(20, 0.05, len(cluster)) for share in (1.0, 1.1))
    return alone(cluster), Ratio(first, joints), Ratio(second, joints)


@pytest.mark.parametrize(
    ("simulate", "truth", "bounds", "replications"),
    [(skewed_errors, 80 * np.exp(0.125), (0, np.inf), REPLICATIONS), (found_people, 0.9, (0, 1), REPLICATIONS // 2)],
)
def test_95_of_100_intervals_hold_the_truth(simulate, truth, bounds, replications):
    held = 0
    for i in range(replications):
        cluster, score = simulate(np.random.default_rng([0, i]))
        found = interval(score, cluster, bounds)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / replications <= 0.97, held / replications


def test_95_of_100_paired_intervals_hold_the_true_difference():
    held, width = 0, 0
    truth = -8 * np.exp(0.125)
    for i in range(REPLICATIONS // 2):
        cluster, first, second = two_models(np.random.default_rng([1, i]))
        found = paired_interval(first, second, cluster)
        held += found.low <= truth <= found.high
        if i < 50:
            single = interval(first, cluster)
            width += (found.high - found.low) / (single.high - single.low) / 50
    assert 0.93 <= held / (REPLICATIONS // 2) <= 0.97, held
    assert width < 0.5, "what is hard for both must cancel"


def test_an_interval_that_took_images_for_independent_would_be_too_short():
    """The reason for clusters: the same data, every image a cluster of its own, hold the truth far less often."""
    held = 0
    for i in range(40):
        cluster, score = skewed_errors(np.random.default_rng([0, i]))
        found = interval(score, alone(np.arange(len(cluster.of))))
        held += found.low <= 80 * np.exp(0.125) <= found.high
    assert held < 34


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_the_value_is_that_of_all_images_and_the_same_on_every_call():
    rng = np.random.default_rng(0)
    cluster, score = skewed_errors(rng)
    found = interval(score, cluster)
    assert found.value == score.numerator.sum() / score.denominator.sum() == score.value
    assert found.low < found.value < found.high and found.clusters == CLUSTERS and found.label == SURE
    assert interval(score, cluster) == found


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_neither_names_nor_order_of_clusters_nor_empty_ones_matter(seed):
    rng = np.random.default_rng(seed)
    cluster, score = skewed_errors(rng)
    order = rng.permutation(len(cluster.of))
    found = interval(score, cluster)
    shuffled = interval(score.where(order), cluster.where(order))
    assert (shuffled.low, shuffled.high) == pytest.approx((found.low, found.high), rel=1e-9)
    gaps = interval(score, alone(3 * cluster.of + 1))
    assert (gaps.low, gaps.high) == pytest.approx((found.low, found.high), rel=1e-9)
    assert gaps.clusters == found.clusters


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.01, 100), st.floats(-50, 50))
def test_intervals_move_and_scale_with_the_score(seed, scale, shift):
    cluster, score = skewed_errors(np.random.default_rng(seed))
    found = interval(score, cluster)
    moved = interval(Ratio(scale * score.numerator + shift * score.denominator, score.denominator), cluster)
    wanted = [scale * found.low + shift, scale * found.high + shift]
    assert [moved.low, moved.high] == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_a_mean_of_groups_weighs_groups_alike_and_leaves_out_what_nothing_was_measured_in():
    above = np.array([[2.0, 0, 0], [4, 0, 0], [0, 9, 0]])
    below = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert Ratio(above, below).value == (3 + 9) / 2
    assert np.isnan(Ratio(np.zeros(2), np.zeros(2)).value)


def plain_loop(scores, cluster):
    """The interval of a score, or of the difference of two, resample by resample and cluster by cluster."""
    count = cluster.max() + 1
    sums = [
        [np.array([column[cluster == c].sum(axis=0) for c in range(count)]) for column in (s.numerator, s.denominator)]
        for s in scores
    ]

    def value(drawn):
        means = []
        for above, below in sums:
            whole = below[drawn].sum(axis=0)
            means.append((above[drawn].sum(axis=0)[whole > 0] / whole[whole > 0]).mean())
        return means[0] - (means[1] if len(means) > 1 else 0.0)

    def error(drawn):
        whole = value(drawn)
        return np.sqrt(sum((value([*drawn[:i], *drawn[i + 1 :]]) - whole) ** 2 for i in range(len(drawn))))

    own, spread = value([*range(count)]), error([*range(count)])
    distances = []
    for row in np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=1999):
        drawn = np.repeat(np.arange(count), row).tolist()
        distances.append((value(drawn) - own) / max(error(drawn), 0.3 * spread))
    low, high = np.quantile(distances, [0.025, 0.975], method="weibull")
    spread *= np.sqrt(count / (count - 1))
    return own - high * spread, own - low * spread


@pytest.mark.parametrize("kind", ["ratio", "mean of ratios", "difference"])
def test_an_interval_is_that_of_a_plain_loop(kind):
    rng = np.random.default_rng(5)
    cluster, groups = np.arange(9).repeat(2), np.eye(3)[np.arange(18) % 5 % 3]
    below = 1.0 + rng.integers(0, 3, (18, 1)) * np.ones((1, 1 if kind != "mean of ratios" else 3))
    if kind == "mean of ratios":
        below = below * groups
    scores = [Ratio(below * rng.gamma(2, 1, (18, 1)), below)]
    if kind == "difference":
        scores.append(Ratio(below * rng.gamma(2, 1, (18, 1)), below))
    found = paired_interval(*scores, alone(cluster)) if len(scores) == 2 else interval(scores[0], alone(cluster))
    assert (found.low, found.high) == pytest.approx(plain_loop(scores, cluster), rel=1e-9)


def test_one_group_is_the_plain_ratio_and_equal_columns_change_nothing():
    cluster, score = skewed_errors(np.random.default_rng(3))
    found = interval(score, cluster)
    for repeats in (1, 3):
        columns = [np.repeat(c[:, None], repeats, axis=1) for c in (score.numerator, score.denominator)]
        again = interval(Ratio(*columns), cluster)
        assert (again.value, again.low, again.high) == pytest.approx((found.value, found.low, found.high), rel=1e-9)


def test_bounds_end_the_interval():
    rng = np.random.default_rng(1)
    people = np.full(30, 4.0)
    found = people - (rng.random(30) < 0.1)
    free, bound = (interval(Ratio(found, people), alone(np.arange(30)), b) for b in ((-np.inf, np.inf), (0, 1)))
    assert free.high > 1 == bound.high and free.low == bound.low


def test_without_variation_the_interval_is_the_number():
    found = interval(Ratio(np.full(20, 3.0), np.full(20, 3.0)), alone(np.arange(20)))
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_few_clusters_are_labelled_and_one_gives_no_interval():
    rng = np.random.default_rng(0)
    for clusters, label in ((2, WITHIN), (FEW - 1, WITHIN), (FEW, SURE)):
        found = interval(Ratio(rng.gamma(2, 40, clusters), np.ones(clusters)), alone(np.arange(clusters)))
        assert (found.clusters, found.label) == (clusters, label) and found.low < found.value < found.high
    one = interval(Ratio(np.array([3.0, 4]), np.ones(2)), alone(np.zeros(2, int)))
    assert one.value == 3.5 and one.clusters == 1 and np.isnan([one.low, one.high]).all()
    nothing = interval(Ratio(np.zeros(3), np.zeros(3)), alone(np.arange(3)))
    assert nothing.clusters == 0 and np.isnan([nothing.value, nothing.low, nothing.high]).all()


# ---- pairs ----------------------------------------------------------------------------------------------------------


def in_three(clusters):
    return Clusters(clusters.of, clusters.of % 3)


def test_a_model_does_not_differ_from_itself():
    cluster, score = skewed_errors(np.random.default_rng(0))
    found = paired_interval(score, score, in_three(cluster))
    assert (found.value, found.low, found.high, found.sign) == (0, 0, 0, 0)
    assert found.signs == {"0": 0, "1": 0, "2": 0}


def test_the_order_of_the_models_turns_the_difference_round():
    cluster, first, second = two_models(np.random.default_rng(0))
    there, back = (paired_interval(*pair, in_three(cluster)) for pair in ((first, second), (second, first)))
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert there.sign == -1 and back.sign == 1
    assert back.signs == {name: -sign for name, sign in there.signs.items()}


def test_signs_tell_the_sequence_that_disagrees():
    ones = np.ones(40)
    sequence = np.repeat(["a", "b"], 20)
    change = np.where(sequence == "a", -3.0, 1.0)
    clusters = Clusters(np.arange(40), sequence)
    found = paired_interval(Ratio(change, ones), Ratio(0 * ones, ones), clusters)
    assert found.signs == {"a": -1, "b": 1} and found.value == -1
    unmeasured = Ratio(np.where(sequence == "a", -3.0, 0), (sequence == "a").astype(float))
    assert paired_interval(unmeasured, Ratio(0 * ones, ones), clusters).signs == {"a": -1}


# ---- clusters -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([25.0, 29.97, 30.0, 50.0]))
def test_blocks_are_contiguous_long_enough_and_as_many_as_fit(seed, rate):
    rng = np.random.default_rng(seed)
    sequence = rng.choice(["x", "y", "z"], 300)
    frame = rng.integers(0, rng.integers(1, 3000), 300) + 1000
    cluster = blocks(sequence, frame, rate).of
    assert set(cluster) == set(range(cluster.max() + 1))
    for name in np.unique(sequence):
        here = sequence == name
        of = {f: set(cluster[here & (frame == f)]) for f in set(frame[here])}
        assert all(len(c) == 1 for c in of.values()), "all cameras of one moment share a block"
        numbers = [of[f].pop() for f in sorted(of)]
        assert numbers == sorted(numbers) and not set(numbers) & set(cluster[~here])
    every = blocks(np.repeat("x", 3000), np.arange(3000), rate)
    sizes = np.bincount(every.of)
    assert len(sizes) == int(3000 / np.ceil(5 * rate)) and sizes.min() >= 5 * rate and every.label == SURE


def test_a_short_sequence_is_one_block_and_rates_may_differ_between_sequences():
    sequence = np.repeat([*"abcdefghi"], 300)
    frame = np.tile(np.arange(300), 9)
    assert np.bincount(blocks(sequence, frame, 100.0).of).tolist() == [300] * 9
    rate = np.where(sequence == "a", 30.0, 100.0)
    assert np.bincount(blocks(sequence, frame, rate).of).tolist() == [150, 150, *[300] * 8]


def test_little_footage_says_so_and_no_block_is_shorter_than_five_seconds_for_that():
    short = blocks(np.repeat(["a", "b"], 300), np.tile(np.arange(300), 2), 30.0)
    assert np.bincount(short.of).tolist() == [150] * 4 and short.label == WITHIN
    rng = np.random.default_rng(0)
    found = interval(Ratio(rng.gamma(2, 40, 600), np.ones(600)), short)
    assert found.clusters == 4 and found.label == WITHIN and found.low < found.value < found.high
    moments = blocks(np.array(["a", "a", "a", "b"]), np.array([7, 7, 9, 7]), 30.0)
    assert moments.of.tolist() == [0, 0, 0, 1] and moments.label == WITHIN
    assert blocks(np.array([]), np.array([]), 30.0).of.tolist() == []


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_footage_of_a_single_block_is_cut_in_two_but_never_a_moment(frames):
    of = blocks(np.repeat("a", len(frames)), np.array(frames), 30.0).of
    assert of.max() == (len(set(frames)) > 1)
    middle = (min(frames) + max(frames)) / 2
    assert all((cluster == 1) == (frame > middle) for frame, cluster in zip(frames, of))


def test_what_cannot_be_is_refused_by_name():
    ones = np.ones(3)
    for call, part in (
        (lambda: Ratio(ones, np.ones(2)), "numerator has shape"),
        (lambda: Ratio(ones * np.nan, ones), "numerator must be finite"),
        (lambda: Ratio(ones, -ones), "denominator must not be negative"),
        (lambda: interval(Ratio(ones, ones), alone(np.zeros(2, int))), "2 images have clusters and 3"),
        (lambda: paired_interval(Ratio(ones, ones), Ratio(ones[:2], ones[:2]), alone(np.arange(3))), "same images"),
        (lambda: blocks(np.array(["a"]), np.array([1, 2]), 30.0), "sequence has shape"),
        (lambda: blocks(np.array(["a"]), np.array([1]), 0.0), "frames_per_second"),
    ):
        with pytest.raises(ValueError, match=part):
            call()
