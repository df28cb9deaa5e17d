from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from das.metrics.operating_points import best_threshold, operating_points
from das.metrics.strict import strict
from das.metrics.tables import MISSED, NOT_COUNTED, Predictions, Truth
from tests.das.metrics import metric_loops as loops

seeds = st.integers(0, 2**32 - 1)
ROOT = (2,)


def shuffled(table, rng):
    return table.where(rng.permutation(len(table)))


def exact(truth):
    return Predictions(truth.frame, truth.joints_cam, np.linspace(0.5, 1, len(truth)), truth.joints_uv)


def no_people(table):
    return table.where(np.zeros(len(table), bool))


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([0.0, 0.3, 0.6]))
def test_numbers_are_those_of_a_loop_over_people(seed, threshold):
    scene = loops.make_scene(np.random.default_rng(seed), frames=5, people=4)
    numbers = strict(scene.truth, scene.predictions, ROOT, scene.world_mean, threshold).numbers()
    assume(numbers["matched"] > 0)
    expected = loops.strict(scene.truth, scene.predictions, scene.world_mean, threshold)
    assert {name: numbers[name] for name in expected} == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_the_order_of_rows_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    scene = loops.make_scene(rng, frames=4)
    numbers = strict(scene.truth, scene.predictions, ROOT, scene.world_mean).numbers()
    again = strict(shuffled(scene.truth, rng), shuffled(scene.predictions, rng), ROOT, scene.world_mean).numbers()
    assert again == pytest.approx(numbers, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_scores_by_image_are_the_numbers_and_a_part_of_them_is_that_part_alone(seed):
    scene = loops.make_scene(np.random.default_rng(seed), frames=6, miss=0.4)
    truth, predictions = scene.truth, scene.predictions
    result = strict(truth, predictions, ROOT, scene.world_mean, 0.3)
    scores = result.scores(truth, predictions, 6)
    numbers = result.numbers()
    assert set(numbers) - set(scores) == {"people", "matched", "predictions"}
    assert {n: s.value for n, s in scores.items()} == pytest.approx({n: numbers[n] for n in scores}, nan_ok=True)
    some = np.array([True, False, True, False, False, True])
    tables = truth.where(some[truth.frame]), predictions.where(some[predictions.frame])
    alone = strict(*tables, ROOT, scene.world_mean, 0.3).numbers()
    part = {name: score.where(some).value for name, score in scores.items()}
    assert part == pytest.approx({name: alone[name] for name in scores}, nan_ok=True)
    joints = result.joint_scores(truth, 6)
    for name, values in (("mpjpe", result.joint_mpjpe()), ("pck_150mm", result.joint_pck())):
        np.testing.assert_allclose([column.value for column in joints[name].columns()], values)


def test_a_part_of_the_people_keeps_its_pairing_and_has_no_precision():
    scene = loops.make_scene(np.random.default_rng(0), frames=6)
    result = strict(scene.truth, scene.predictions, ROOT, scene.world_mean)
    left = scene.truth.joints_cam[:, 2, 0] < 0
    parts = [result.of(people=side) for side in (left, ~left)]
    assert sum(part.people for part in parts) == result.people
    for part, side in zip(parts, (left, ~left), strict=True):
        assert part.mpjpe == pytest.approx(result.errors[result.scored & (result.found & side)[:, None]].mean())
        assert np.isnan(part.precision) and 0 < part.recall < 1
    first = np.zeros(scene.truth.scored.shape, bool)
    first[:, 4] = True
    assert result.of(joints=first).mpjpe == pytest.approx(result.joint_mpjpe()[4])


def test_without_a_mean_pose_nothing_is_measured_by_it():
    scene = loops.make_scene(np.random.default_rng(0), frames=6)
    known = strict(scene.truth, scene.predictions, ROOT, scene.world_mean)
    result = strict(scene.truth, scene.predictions, ROOT, np.full((15, 3), np.nan))
    numbers = result.numbers()
    unknown = ("baseline_mpjpe", "baseline_mpjpe_with_misses", "mpjpe_over_baseline", "mpjpe_with_misses")
    assert np.isnan([numbers[name] for name in unknown]).all()
    assert {n: v for n, v in numbers.items() if n not in unknown} == {
        n: v for n, v in known.numbers().items() if n not in unknown
    }
    assert np.isnan(result.scores(scene.truth, scene.predictions, 6)["mpjpe_with_misses"].value)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 4))
def test_exact_predictions_are_perfect(seed, people):
    scene = loops.make_scene(np.random.default_rng(seed), frames=3, people=people)
    truth = replace(scene.truth, scored=np.ones_like(scene.truth.scored))
    numbers = strict(truth, exact(truth), ROOT, scene.world_mean).numbers()
    assert (numbers["recall"], numbers["precision"], numbers["f1"], numbers["pck_150mm"]) == (1, 1, 1, 1)
    for name in ("mpjpe", "pa_mpjpe", "mpjpe_with_misses", "root_error", "root_depth_error"):
        assert numbers[name] == pytest.approx(0, abs=1e-6)
    assert numbers["baseline_mpjpe"] > 0


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.1, 10))
def test_errors_scale_with_the_scene_and_similarity_alignment_ignores_scale_of_predictions(seed, scale):
    scene = loops.make_scene(np.random.default_rng(seed))
    numbers = strict(scene.truth, scene.predictions, ROOT, scene.world_mean).numbers()
    predictions = replace(scene.predictions, joints_cam=scale * scene.predictions.joints_cam)
    truth = replace(scene.truth, joints_cam=scale * scene.truth.joints_cam)
    scaled = strict(truth, predictions, ROOT, scale * scene.world_mean).numbers()
    for name in ("mpjpe", "baseline_mpjpe", "mpjpe_with_misses", "root_error", "pa_mpjpe"):
        assert scaled[name] == pytest.approx(scale * numbers[name])
    alone = strict(scene.truth, predictions, ROOT, scene.world_mean).numbers()
    assert alone["pa_mpjpe"] == pytest.approx(numbers["pa_mpjpe"])
    assert numbers["pa_mpjpe"] < numbers["mpjpe"]


def test_moving_predictions_in_depth_changes_the_root_error_alone():
    scene = loops.make_scene(np.random.default_rng(3), noise=0)
    numbers = strict(scene.truth, scene.predictions, ROOT, scene.world_mean).numbers()
    moved = replace(scene.predictions, joints_cam=scene.predictions.joints_cam + [30.0, 0, 40.0])
    after = strict(scene.truth, moved, ROOT, scene.world_mean).numbers()
    assert (after["root_error"], after["root_depth_error"]) == (pytest.approx(50), pytest.approx(40))
    assert after["mpjpe"] == pytest.approx(numbers["mpjpe"], abs=1e-9)


def test_the_baseline_is_the_mean_pose_on_the_matched_people_and_misses_cost_it_too():
    scene = loops.make_scene(np.random.default_rng(4))
    result = strict(scene.truth, scene.predictions, ROOT, scene.world_mean)
    found = result.found
    mean_as_prediction = replace(scene.predictions, joints_cam=scene.world_mean + scene.predictions.joints_cam[:, [2]])
    same = strict(scene.truth, mean_as_prediction, ROOT, scene.world_mean)
    assert (same.match == result.match).all() and 0 < found.sum() < result.people
    assert same.mpjpe == pytest.approx(result.baseline_mpjpe)
    assert same.mpjpe_with_misses == pytest.approx(
        strict(scene.truth, no_people(scene.predictions), ROOT, scene.world_mean).mpjpe_with_misses
    )


def test_without_predictions_all_people_are_missed():
    scene = loops.make_scene(np.random.default_rng(5))
    result = strict(scene.truth, no_people(scene.predictions), ROOT, scene.world_mean)
    numbers = result.numbers()
    assert numbers["recall"] == numbers["f1"] == 0
    assert np.isnan([numbers["mpjpe"], numbers["precision"], numbers["root_error"]]).all()
    target = scene.truth.joints_cam - scene.truth.joints_cam[:, [2]]
    errors = np.linalg.norm(target - scene.world_mean, axis=-1)
    counted = scene.truth.scored & scene.truth.scored[:, [2]]
    counted[:, 2] = False
    assert numbers["mpjpe_with_misses"] == pytest.approx(errors[counted].mean())


def test_without_people_every_prediction_is_wrong():
    scene = loops.make_scene(np.random.default_rng(6))
    numbers = strict(no_people(scene.truth), scene.predictions, ROOT, scene.world_mean).numbers()
    assert numbers["precision"] == 0 and numbers["people"] == 0
    assert np.isnan([numbers["recall"], numbers["mpjpe"]]).all()


def one_person(gap_px: float, score: float = 0.9) -> tuple[Truth, Predictions]:
    """A person in a 300 x 400 px box, diagonal 500 px, and a prediction with its root gap_px to the right."""
    joints = np.zeros((1, 3, 3))
    joints[0, 1], joints[0, 0] = [0, 0, 0], [100, 0, 0]
    uv = np.zeros((1, 3, 2))
    truth = Truth([0], joints, np.ones((1, 3), bool), uv, np.array([[-150.0, -200, 150, 200]]))
    return truth, Predictions([0], joints + 5, [score], uv + [gap_px, 0])


def test_a_match_needs_less_than_fifteen_percent_of_the_diagonal():
    mean = np.zeros((3, 3))
    assert strict(*one_person(74.99), ROOT, mean).match.tolist() == [0]
    assert strict(*one_person(75.0), ROOT, mean).match.tolist() == [MISSED]


def test_predictions_at_or_below_the_threshold_do_not_exist():
    truth, predictions = one_person(0, score=0.4)
    assert strict(truth, predictions, ROOT, np.zeros((3, 3)), threshold=0.4).predictions == 0
    assert strict(truth, predictions, ROOT, np.zeros((3, 3)), threshold=0.39).recall == 1


def test_two_predictions_of_one_person_are_one_right_and_one_wrong():
    truth, predictions = one_person(10)
    twice = predictions.where(np.array([0, 0]))
    twice = replace(twice, joints_uv=twice.joints_uv + np.array([[[20.0, 0]], [[0, 0]]]))
    result = strict(truth, twice, ROOT, np.zeros((3, 3)))
    assert result.match.tolist() == [1]  # the closer one
    assert (result.recall, result.precision) == (1, 0.5)


def test_root_and_joints_never_taught_are_left_out():
    truth, predictions = one_person(0)
    predictions = replace(predictions, joints_cam=truth.joints_cam + np.array([[[8.0, 0, 0], [0, 6, 0], [0, 0, 0]]]))
    assert strict(truth, predictions, ROOT, np.zeros((3, 3))).mpjpe == pytest.approx(7)
    result = strict(truth, predictions, ROOT, np.zeros((3, 3)), taught=np.array([False, True, True]))
    assert result.mpjpe == pytest.approx(6)
    np.testing.assert_array_equal(result.joint_mpjpe(), [np.nan, 6, np.nan])
    np.testing.assert_array_equal(result.joint_pck(5.0), [np.nan, 0, np.nan])


def test_a_root_between_two_joints_keeps_both_in_the_error():
    truth, predictions = one_person(0)
    predictions = replace(predictions, joints_cam=truth.joints_cam + np.array([[[9.0, 0, 0], [0, 0, 0], [0, 0, 6]]]))
    # The root, mean of joints 0 and 1, moved by 4.5: errors 4.5, 4.5 and 7.5, the length of (4.5, 6).
    assert strict(truth, predictions, (0, 1), np.zeros((3, 3))).mpjpe == pytest.approx(5.5)
    hidden = replace(truth, scored=np.array([[True, False, True]]))
    assert strict(hidden, predictions, (0, 1), np.zeros((3, 3))).match.tolist() == [NOT_COUNTED]


@pytest.mark.parametrize("how", ["ignored", "root not labelled"])
def test_finding_an_ignored_person_changes_no_number(how):
    truth, predictions = one_person(0)
    if how == "ignored":
        truth = replace(truth, ignore=np.array([True]))
    else:
        truth = replace(truth, scored=np.array([[True, True, False]]))
    result = strict(truth, predictions, ROOT, np.zeros((3, 3)))
    assert (result.people, result.predictions) == (0, 0)
    far = replace(predictions, joints_uv=predictions.joints_uv + 1000)
    assert strict(truth, far, ROOT, np.zeros((3, 3))).predictions == 1


def test_a_prediction_near_a_counted_person_counts_though_an_ignored_box_holds_it():
    person, prediction = one_person(10)
    truth = person.where(np.array([0, 0]))
    truth = replace(truth, ignore=np.array([False, True]))
    result = strict(truth, prediction, ROOT, np.zeros((3, 3)))
    assert result.match.tolist() == [0, NOT_COUNTED] and result.precision == 1


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_best_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    scene = loops.make_scene(rng, frames=4, miss=0.3, extra=2)
    predictions = replace(scene.predictions, scores=np.round(scene.predictions.scores, 1))  # with ties
    truth = replace(scene.truth, ignore=rng.random(len(scene.truth)) < 0.2)
    assume(truth.counted(ROOT).any() and len(predictions))

    def at(threshold):
        return strict(truth, predictions, ROOT, scene.world_mean, threshold).numbers()

    point = best_threshold(truth, predictions, ROOT)
    if point is None:  # every prediction can only be an ignored person
        assert at(-1)["predictions"] == 0
        return
    numbers = at(point.threshold)
    assert (point.f1, point.recall, point.precision) == pytest.approx(
        (numbers["f1"], numbers["recall"], numbers["precision"])
    )
    others = [at(threshold)["f1"] for threshold in np.arange(-0.05, 1, 0.1)]
    assert point.f1 == pytest.approx(np.nanmax(others))
    for other in operating_points(truth, predictions, ROOT):
        numbers = at(other.threshold)
        assert other.threshold < other.score
        assert (other.f1, other.recall, other.precision) == pytest.approx(
            (numbers["f1"], numbers["recall"], numbers["precision"])
        )


def test_a_threshold_cannot_be_chosen_without_people():
    scene = loops.make_scene(np.random.default_rng(0))
    assert best_threshold(no_people(scene.truth), scene.predictions, ROOT) is None
    assert best_threshold(scene.truth, no_people(scene.predictions), ROOT) is None
    assert operating_points(scene.truth, no_people(scene.predictions), ROOT) == []


def test_missing_columns_and_wrong_mean_poses_are_named():
    scene = loops.make_scene(np.random.default_rng(0))
    with pytest.raises(ValueError, match="Truth.bbox"):
        strict(replace(scene.truth, bbox=None), scene.predictions, ROOT, scene.world_mean)
    with pytest.raises(ValueError, match=r"mean_pose must have shape \(15, 3\), found \(17, 3\)"):
        strict(scene.truth, scene.predictions, ROOT, np.zeros((17, 3)))


def test_a_person_whose_root_is_outside_the_picture_is_neither_found_nor_a_false_positive():
    """Two people of 100 x 200 px; the second is cut at the hips, so that its root is 30 px below its visible box."""
    uv = np.array([[[50.0, 100.0], [50.0, 20.0]], [[250.0, 230.0], [250.0, 20.0]]])
    cam = np.dstack([uv * 10, np.full((2, 2), 3000.0)])
    scored = np.array([[True, True], [False, True]])
    box = np.array([[0.0, 0, 100, 200], [200, 0, 300, 200]])
    truth = Truth([0, 0], cam, scored, uv, box, labelled=np.ones((2, 2), bool))
    perfect = Predictions([0, 0], cam, np.array([0.9, 0.8]), uv)
    numbers = strict(truth, perfect, (0,), np.full((2, 3), np.nan)).numbers()
    assert (numbers["recall"], numbers["precision"], numbers["predictions"]) == (1.0, 1.0, 1)
    # Out of reach of that root, and without a root that is labelled, a prediction there is a false positive.
    far = replace(perfect, joints_uv=uv + np.array([[[0.0, 0]], [[0, 40]]]))
    assert strict(truth, far, (0,), np.full((2, 3), np.nan)).numbers()["precision"] == 0.5
    unlabelled = replace(truth, labelled=scored)
    assert strict(unlabelled, perfect, (0,), np.full((2, 3), np.nan)).numbers()["precision"] == 0.5
