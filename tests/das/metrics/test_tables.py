import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes as scipy_procrustes

from das.metrics.root_precision import root_average_precision
from das.metrics.tables import (
    MISSED,
    Predictions,
    Truth,
    auc,
    by_group,
    greedy,
    hungarian,
    mean_per_joint,
    mean_pose,
    nearest,
    pairs_within_frames,
    pck,
    procrustes,
)
from tests.das.metrics import metric_loops as loops

seeds = st.integers(0, 2**32 - 1)


def test_tables_refuse_what_they_cannot_score_and_name_the_field():
    joints, scored = np.zeros((2, 15, 3)), np.ones((2, 15), bool)
    with pytest.raises(ValueError, match=r"Truth.scored must have shape \(2, 15\), found \(3, 15\)"):
        Truth(np.zeros(2), joints, np.ones((3, 15), bool))
    with pytest.raises(ValueError, match=r"Truth.bbox must have shape \(2, 4\)"):
        Truth(np.zeros(2), joints, scored, bbox=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="Predictions.joints_cam must be finite"):
        Predictions(np.zeros(2), np.full((2, 15, 3), np.nan), np.zeros(2))
    with pytest.raises(ValueError, match=r"joints_cam must have shape \(people, joints, 3\), found \(2, 45\)"):
        Predictions(np.zeros(2), np.zeros((2, 45)), np.zeros(2))
    with pytest.raises(ValueError, match="Truth.frame must not be negative, found -1"):
        Truth(np.array([0, -1]), joints, scored)
    with pytest.raises(ValueError, match="15 joints of Truth, found 17"):
        pairs_within_frames(Truth(np.zeros(2), joints, scored), Predictions([0], np.zeros((1, 17, 3)), [1.0]))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_pairs_are_those_of_two_nested_loops(seed):
    rng = np.random.default_rng(seed)
    truth_frame, frame = rng.integers(0, 6, rng.integers(0, 9)), rng.integers(0, 6, rng.integers(0, 9))
    truth = Truth(truth_frame, np.zeros((len(truth_frame), 2, 3)), np.ones((len(truth_frame), 2), bool))
    predictions = Predictions(frame, np.zeros((len(frame), 2, 3)), np.zeros(len(frame)))
    t, p = pairs_within_frames(truth, predictions)
    expected = [(i, j) for i, a in enumerate(truth_frame) for j, b in enumerate(frame) if a == b]
    assert list(zip(t.tolist(), p.tolist(), strict=True)) == expected


def test_nearest_gives_one_prediction_to_several_people_and_the_first_of_equals():
    t, p = np.array([0, 0, 1, 1, 3]), np.array([7, 4, 7, 4, 2])
    match, cost = nearest(4, t, p, np.array([1.0, 1.0, 0.5, 2.0, 3.0]))
    assert match.tolist() == [7, 7, MISSED, 2]
    assert cost.tolist() == [1.0, 0.5, np.inf, 3.0]


def test_greedy_skips_pairs_whose_person_or_prediction_is_taken():
    assert greedy(3, 3, np.array([0, 0, 1, 1, 2]), np.array([1, 0, 1, 2, 2])).tolist() == [1, 2, MISSED]


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(0, 4), st.integers(0, 4))
def test_hungarian_finds_most_pairs_and_among_those_the_cheapest(seed, people, predicted):
    rng = np.random.default_rng(seed)
    allowed = rng.random((people, predicted)) < 0.6
    cost = rng.random((people, predicted)) * 100
    t, p = np.nonzero(allowed)
    match = hungarian(people, np.zeros(len(t), int), t, p, cost[allowed])

    best = (0, 0.0)  # number of pairs, minus their cost
    for choice in itertools.product(range(-1, predicted), repeat=people):
        chosen = [(i, j) for i, j in enumerate(choice) if j >= 0]
        columns = [j for _, j in chosen]
        if len(set(columns)) == len(columns) and all(allowed[pair] for pair in chosen):
            best = max(best, (len(chosen), -sum(cost[pair] for pair in chosen)))
    found = [(i, j) for i, j in enumerate(match) if j != MISSED]
    assert all(allowed[pair] for pair in found)
    assert len({j for _, j in found}) == len(found)
    assert len(found) == best[0]
    assert sum(cost[pair] for pair in found) == pytest.approx(-best[1])


def test_hungarian_prefers_two_dear_pairs_to_one_cheap_one():
    t, p = np.array([0, 0, 1]), np.array([0, 1, 0])
    assert hungarian(2, np.zeros(3, int), t, p, np.array([1.0, 10.0, 10.0])).tolist() == [1, 0]


def test_procrustes_undoes_a_similarity_but_not_a_mirror():
    rng = np.random.default_rng(0)
    target = rng.normal(0, 200, (4, 15, 3))
    rotation = np.linalg.qr(rng.normal(size=(4, 3, 3)))[0]
    rotation *= np.linalg.det(rotation)[:, None, None]
    source = 1.7 * target @ rotation + rng.normal(0, 500, (4, 1, 3))
    everything = np.ones((4, 15), bool)
    np.testing.assert_allclose(procrustes(source, target, everything), target, atol=1e-9)
    mirrored = procrustes(source * [1, 1, -1], target, everything)
    assert np.linalg.norm(mirrored - target, axis=-1).mean() > 20


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_procrustes_agrees_with_scipy_and_looks_at_scored_joints_only(seed):
    rng = np.random.default_rng(seed)
    target, noise = rng.normal(0, 200, (1, 15, 3)), rng.normal(0, 60, (1, 15, 3))
    source, scored = target + noise, rng.random((1, 15)) < 0.7
    scored[0, :4] = True
    moved = procrustes(source, target, scored)
    a, b, disparity = scipy_procrustes(target[0, scored[0]], source[0, scored[0]])
    centred = target[0, scored[0]] - target[0, scored[0]].mean(axis=0)
    expected = disparity * (centred**2).sum()  # scipy works on poses of unit norm
    assert ((moved - target)[0, scored[0]] ** 2).sum() == pytest.approx(expected, rel=1e-6)
    source[0, ~scored[0]] += 1e6
    np.testing.assert_allclose(procrustes(source, target, scored)[0, scored[0]], moved[0, scored[0]])


def test_procrustes_of_fewer_than_three_joints_is_not_a_number():
    scored = np.zeros((1, 15), bool)
    scored[0, :2] = True
    assert np.isnan(procrustes(np.ones((1, 15, 3)), np.ones((1, 15, 3)), scored)).all()


def test_pck_is_strict_and_a_number_that_is_not_one_is_wrong():
    errors = np.array([[149.999, 150.0], [0.0, np.nan], [np.inf, 10.0], [20.0, 20.0]])
    assert pck(errors, 150.0).tolist() == [0.75, 0.5]
    counted = np.array([[True, False]] * 3 + [[False, False]])
    np.testing.assert_array_equal(pck(errors, 150.0, counted), [2 / 3, np.nan])


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_auc_is_the_mean_of_pck_and_pck_never_falls_with_the_threshold(seed):
    errors = np.random.default_rng(seed).gamma(2, 60, (7, 3))
    thresholds = np.arange(0, 151, 5.0)
    curve = np.array([[np.mean(errors[:, k] < t) for k in range(3)] for t in thresholds])
    np.testing.assert_allclose(auc(errors, thresholds), curve.mean(axis=0))
    assert (np.diff([pck(errors, t) for t in thresholds], axis=0) >= 0).all()


def test_means_leave_out_what_is_not_counted():
    errors, counted = np.array([[1.0, 5.0], [3.0, 7.0]]), np.array([[True, False], [True, False]])
    np.testing.assert_array_equal(mean_per_joint(errors, counted), [2.0, np.nan])
    poses = np.array([[[2.0, 0, 0], [9, 9, 9]], [[4.0, 0, 0], [9, 9, 9]]])
    np.testing.assert_array_equal(mean_pose(poses, counted), [[3.0, 0, 0], [0, 0, 0]])


def test_by_group_scores_every_group_as_if_it_were_alone():
    scene = loops.make_scene(np.random.default_rng(1), frames=6)
    group = np.array(["b", "a", "b", "b", "a", "a"])
    results = by_group(lambda t, p: (len(t), len(p)), scene.truth, scene.predictions, group)
    in_a = [np.isin(table.frame, [1, 4, 5]).sum() for table in (scene.truth, scene.predictions)]
    assert list(results) == ["a", "b"]
    assert results["a"] == tuple(in_a)
    assert results["b"] == (len(scene.truth) - in_a[0], len(scene.predictions) - in_a[1])


def _roots(frame, depth):
    joints = np.zeros((len(frame), 1, 3))
    joints[:, 0, 2] = depth
    return np.array(frame), joints


def test_average_precision_of_a_case_worked_by_hand():
    # Person at 2000 found by the surest prediction; a spurious one second; a second claim on 2000 third (wrong,
    # the person is taken); the person at 4000 last, 249 mm off; the one at 6000 missed by 250 mm exactly.
    frame, joints = _roots([0, 0, 1], [2000, 4000, 6000])
    truth = Truth(frame, joints, np.ones((3, 1), bool))
    frame, joints = _roots([0, 1, 0, 0, 1], [2010, 9000, 2001, 4249, 6250])
    predictions = Predictions(frame, joints, np.array([0.9, 0.8, 0.7, 0.6, 0.5]))
    # right: 1 0 0 1 0; precision at the right ones: 1 and 2/4.
    assert root_average_precision(truth, predictions, (0,)) == pytest.approx((1 + 0.5) / 3)
    # If the second and the fourth may be of people who do not count, the second is not wrong, the fourth still right.
    ignored = np.array([False, True, False, True, False])
    found = root_average_precision(truth, predictions, (0,), ignored=ignored)
    assert found == pytest.approx((1 + 2 / 3) / 3)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_average_precision_is_that_of_a_loop_over_predictions(seed):
    scene = loops.make_scene(np.random.default_rng(seed), frames=5, people=4, noise=150)
    found = root_average_precision(scene.truth, scene.predictions, (2,))
    assert found == pytest.approx(loops.root_average_precision(scene.truth, scene.predictions))


def test_average_precision_of_perfect_and_of_no_predictions():
    truth = loops.make_scene(np.random.default_rng(0)).truth
    truth = replace(truth, scored=np.ones_like(truth.scored))
    perfect = Predictions(truth.frame, truth.joints_cam, np.linspace(0, 1, len(truth)))
    assert root_average_precision(truth, perfect, (2,)) == 1
    no_people = perfect.where(np.zeros(len(perfect), bool))
    assert root_average_precision(truth, no_people, (2,)) == 0
    assert np.isnan(root_average_precision(truth.where(np.zeros(len(truth), bool)), perfect, (2,)))
