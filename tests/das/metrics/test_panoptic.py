import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from das.camera import project
from das.metrics.panoptic import (
    activity_mean,
    annotated,
    panoptic_release,
    panoptic_smap,
    release_by_activity,
    release_truth,
    smap_scale,
    world_mean_pose,
)
from das.metrics.tables import MISSED, NOT_COUNTED, Predictions, Truth, mean_per_joint, mean_where
from tests.das.metrics import metric_loops as loops

seeds = st.integers(0, 2**32 - 1)
TOLERANCE_MM = 0.01
PRINTED_MM = TOLERANCE_MM + 0.005  # the evaluators print two decimals


def joint_absolute(result):
    """Error of each joint under SMAP's protocol without alignment, (15,) mm."""
    return mean_per_joint(result.absolute_errors, result.found)


def joint_pck(result, errors):
    """Share of people matched by SMAP's protocol whose joint has an error below 15 cm, (15,)."""
    return (result.found & (errors < 150)).sum(axis=0) / result.matched


def no_people(table):
    return table.where(np.zeros(len(table), bool))


def numbers(values):
    return np.array(values, dtype=float)  # None becomes NaN


def printed(value):
    return float(value.removesuffix("mm"))


def local_rows(table, frame, match):
    """Row numbers within a frame, as recordings count them."""
    rows = np.flatnonzero(table.frame == frame).tolist()
    return [rows.index(m) if m >= 0 else -1 for m in match]


# ---- the DAS release ------------------------------------------------------------------------------------------------


class Recorded:
    """panoptic_das_inputs.npz with all cases in one table; frames are numbered through."""

    def __init__(self, folder):
        data = np.load(folder / "panoptic_das_inputs.npz")
        self.expected = json.loads((folder / "panoptic_das_expected.json").read_text())
        number = {key: i for i, key in enumerate(zip(data["frame_case"], data["frame_id"], strict=True))}

        def frame(table):
            return np.array([number[key] for key in zip(data[f"{table}_case"], data[f"{table}_frame"], strict=True)])

        self.names = data["case_names"].astype(str)
        self.case = self.names[data["frame_case"]]
        self.R = data["frame_R_world_to_cam"]
        self.cam, self.known = data["gt_cam_mm"], data["gt_vis3d"].astype(bool)
        self.truth = Truth(frame("gt"), self.cam, data["gt_vis2d"].astype(bool))
        self.predictions = Predictions(frame("pred"), data["pred_cam_mm"], data["pred_score"])
        self.results = release_by_activity(self.truth, self.predictions, self.case, self.R, self.cam, self.known)

    def tables(self, name):
        here = self.case == name
        return self.truth.where(here[self.truth.frame]), self.predictions.where(here[self.predictions.frame])


@pytest.mark.golden
def test_release_gives_the_recorded_numbers_in_every_case(golden):
    recorded = Recorded(golden / "metrics")
    for name in recorded.names:
        result, expected = recorded.results[name], recorded.expected[name]
        assert result.mpjpe == pytest.approx(expected["mpjpe_mm"], abs=TOLERANCE_MM), name
        assert result.mpjpe == pytest.approx(printed(expected["official_string"]), abs=PRINTED_MM), name
        assert result.frame_people.sum() == expected["people_count"], name
        frames = [f for f in expected["frames"] if f is not None]
        np.testing.assert_allclose(
            result.frame_mpjpe, [f["frame_mpjpe_mm"] for f in frames], atol=TOLERANCE_MM, err_msg=name
        )
        np.testing.assert_array_equal(result.frame_people, [f["n_gt_used"] for f in frames], err_msg=name)
        np.testing.assert_allclose(
            result.joint_mpjpe(), numbers(expected["per_joint_mean_mm_derived"]), atol=TOLERANCE_MM, err_msg=name
        )
        np.testing.assert_array_equal(result.scored.sum(axis=0), expected["per_joint_visible_count"], err_msg=name)
        pooled = expected["pooled_over_visible_joints_mm_derived"]
        assert mean_where(result.errors, result.scored) == pytest.approx(pooled, abs=TOLERANCE_MM), name


@pytest.mark.golden
def test_release_pairs_people_as_recorded(golden):
    recorded = Recorded(golden / "metrics")
    for name in recorded.names:
        truth, predictions = recorded.tables(name)
        frames = np.flatnonzero(recorded.case == name)
        for frame, expected in zip(frames, recorded.expected[name]["frames"], strict=True):
            match = recorded.results[name].match[truth.frame == frame]
            match = match[match != NOT_COUNTED]
            if expected is None:
                assert len(match) == 0, name
            elif expected["mean_pose_used"]:
                assert (match == MISSED).all() and len(match) == expected["n_gt_used"], name
            elif "tie" not in name:
                assert local_rows(predictions, frame, match) == expected["pair_pred_index"], (name, frame)


@pytest.mark.golden
def test_release_gives_the_recorded_table(golden):
    recorded = Recorded(golden / "metrics")
    table = dict(recorded.expected["_table2_style"])
    mean = table.pop("mean_over_activities")
    activities = {name: recorded.results[f"activity_{name}"] for name in table}
    assert {name: result.mpjpe for name, result in activities.items()} == pytest.approx(table, abs=TOLERANCE_MM)
    assert activity_mean(activities) == pytest.approx(mean, abs=TOLERANCE_MM)


@pytest.mark.golden
def test_release_scores_recorded_annotations_and_network_outputs(golden):
    """Ground truth and predictions as the release stores them: pixels with depth, centimetres, rotated world."""
    recorded = json.loads((golden / "model" / "I_annotations.json").read_text())["panoptic_eval"]
    images = {image["id"]: (i, image) for i, image in enumerate(recorded["images"])}
    K = np.array([image["cam"]["K"] for image in recorded["images"]])
    R = np.array([image["cam"]["R"] for image in recorded["images"]])
    people = recorded["annotations"]
    frame = np.array([images[person["image_id"]][0] for person in people])
    pixels = np.array([person["joints3d_img"] for person in people])
    size = {(image["width"], image["height"]) for image in recorded["images"]}
    assert len(size) == 1
    truth = release_truth(
        frame,
        pixels[..., :2],
        10 * pixels[..., 2],
        K[frame],
        np.array([person["joints2d_vis"] for person in people])[..., 0] > 0,
        *size.pop(),
    )
    world = np.array([person["joints3d"] for person in people])
    known = np.array([person["joints3d_vis"] for person in people])[..., 0] > 0
    world_mean = world_mean_pose(world @ R[frame].swapaxes(1, 2), known, R[frame])

    pred_frame = np.array([images[result["image_id"]][0] for result in recorded["results"]])
    output = np.array([result["keypoints"] for result in recorded["results"]]).reshape(len(pred_frame), -1, 3)
    focal = np.sqrt(K[pred_frame, 0, 0] * K[pred_frame, 1, 1])[:, None]
    root = output[:, 2:3, 2]
    depth = 10 * (root * focal + output[..., 2] - root)
    centre, scale = K[pred_frame, None, :2, 2], K[pred_frame][:, [0, 1], [0, 1]][:, None]
    cam = np.concatenate([(output[..., :2] - centre) / scale, np.ones_like(depth)[..., None]], -1) * depth[..., None]
    scores = np.array([result["score"] for result in recorded["results"]])
    result = panoptic_release(truth, Predictions(pred_frame, cam, scores), world_mean, R)
    [[name, value]] = recorded["official_output"]
    assert name == "MPJPE:"
    assert result.mpjpe == pytest.approx(printed(value), abs=PRINTED_MM)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0, 3))
def test_release_is_that_of_a_loop_over_people(seed, extra):
    scene = loops.make_scene(np.random.default_rng(seed), frames=6, people=3, miss=0.5, extra=extra)
    assume(scene.truth.scored[:, 2].any())
    arguments = (scene.truth, scene.predictions, scene.world_mean, scene.R)
    assert panoptic_release(*arguments).mpjpe == pytest.approx(loops.release(*arguments))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_release_ignores_where_predictions_stand_and_how_rows_are_ordered(seed):
    rng = np.random.default_rng(seed)
    scene = loops.make_scene(rng, frames=4)
    before = panoptic_release(scene.truth, scene.predictions, scene.world_mean, scene.R).mpjpe
    places = rng.normal(0, 1000, (len(scene.predictions), 1, 3))
    moved = replace(scene.predictions, joints_cam=scene.predictions.joints_cam + places)
    truth, moved = (table.where(rng.permutation(len(table))) for table in (scene.truth, moved))
    assert panoptic_release(truth, moved, scene.world_mean, scene.R).mpjpe == pytest.approx(before, nan_ok=True)


def test_release_gives_several_people_one_prediction_and_hides_two_thirds_of_the_misses():
    scene = loops.make_scene(np.random.default_rng(0), frames=1, people=3, miss=0, extra=0)
    truth = replace(scene.truth, scored=np.ones_like(scene.truth.scored))
    result = panoptic_release(truth, scene.predictions.where(np.array([1])), scene.world_mean, scene.R)
    assert result.match.tolist() == [0, 0, 0]


def test_release_uses_the_mean_pose_seen_by_the_camera_where_nothing_is_predicted():
    scene = loops.make_scene(np.random.default_rng(1), frames=3)
    world = scene.world_mean + np.array([500.0, 0, 0])  # root-aligned below
    cam = np.einsum("fab,jb->fja", scene.R, world)[scene.truth.frame]
    truth = replace(scene.truth, joints_cam=cam)
    known = np.ones_like(truth.scored)
    mean = world_mean_pose(cam, known, scene.R[truth.frame])
    np.testing.assert_allclose(mean, scene.world_mean, atol=1e-9)
    result = panoptic_release(truth, no_people(scene.predictions), mean, scene.R)
    assert result.mpjpe == pytest.approx(0, abs=1e-9)
    assert panoptic_release(truth, no_people(scene.predictions), mean, scene.R[::-1]).mpjpe > 10


def test_release_without_people_is_not_a_number():
    scene = loops.make_scene(np.random.default_rng(1))
    assert np.isnan(panoptic_release(no_people(scene.truth), scene.predictions, scene.world_mean, scene.R).mpjpe)


def test_release_by_activity_leaves_dropped_people_out_of_mean_pose_and_score():
    scene = loops.make_scene(np.random.default_rng(2), frames=4, people=2, miss=1, extra=0)
    known = np.ones_like(scene.truth.scored)
    activity = np.array(["a", "a", "b", "b"])
    drop = np.arange(len(scene.truth)) % 2 == 0
    wild = scene.truth.joints_cam + drop[:, None, None] * np.random.default_rng(0).normal(0, 1e4, (15, 3))
    rest = (activity, scene.R)
    dropped = release_by_activity(
        replace(scene.truth, joints_cam=wild, ignore=drop), scene.predictions, *rest, wild, known
    )
    kept = scene.truth.where(~drop)
    alone = release_by_activity(kept, scene.predictions, *rest, kept.joints_cam, known[~drop])
    assert {name: r.mpjpe for name, r in dropped.items()} == pytest.approx(
        {name: r.mpjpe for name, r in alone.items()}, nan_ok=True
    )


def test_release_truth_forgets_the_distortion_and_hides_joints_outside_the_image():
    scene = loops.make_scene(np.random.default_rng(3), noise=0)
    cam, frame = scene.truth.joints_cam, scene.truth.frame
    K = np.broadcast_to(loops.K, (len(frame), 3, 3))
    known = np.ones_like(scene.truth.scored)
    flat = release_truth(frame, project(cam, loops.K), cam[..., 2], K, known)
    np.testing.assert_allclose(flat.joints_cam, cam, atol=1e-9)
    uv = flat.joints_uv
    inside = (uv[..., 0] >= 0) & (uv[..., 0] <= 1919) & (uv[..., 1] >= 0) & (uv[..., 1] <= 1079)
    assert (flat.scored == inside).all() and not inside.all()

    lens = np.array([-0.25, 0.15, 4e-4, -2e-4, 0.02])
    bent = release_truth(frame, project(cam, loops.K, lens), cam[..., 2], K, known)
    exact = Predictions(frame, cam, np.ones(len(frame)))
    error = panoptic_release(bent, exact, scene.world_mean, scene.R).mpjpe
    assert 1 < error < 100  # what a perfect model gets under this protocol


def test_the_nose_is_no_head():
    confidence = np.full((2, 15), 0.2)
    confidence[0, 3] = 0.1
    known = annotated(confidence, head_top=np.array([True, False]))
    assert np.argwhere(~known).tolist() == [[0, 3], [1, 1]]


# ---- SMAP -----------------------------------------------------------------------------------------------------------


@pytest.mark.golden
def test_smap_gives_the_recorded_numbers_in_every_case(golden):
    data = np.load(golden / "metrics" / "panoptic_smap_inputs.npz")
    recorded = json.loads((golden / "metrics" / "panoptic_smap_expected.json").read_text())
    assert set(recorded) == set(data["case_names"].astype(str))
    for case, name in enumerate(data["case_names"].astype(str)):
        gt, pred, expected = data["gt_case"] == case, data["pred_case"] == case, recorded[name]
        truth = Truth(data["gt_frame"][gt], data["gt_cam_mm"][gt], data["gt_vis012"][gt] == 2, data["gt_2d_net_px"][gt])
        predictions = Predictions(
            data["pred_frame"][pred], data["pred_cam_mm"][pred], np.ones(pred.sum()), data["pred_2d_net_px"][pred]
        )
        result = panoptic_smap(truth, predictions, found=data["pred_joint_score"][pred] > 0)
        for frame, pairs in enumerate(expected["frames"]):
            match = result.match[truth.frame == frame]
            assert np.flatnonzero(match != NOT_COUNTED).tolist() == pairs["gt_used"], (name, frame)
            paired = local_rows(predictions, frame, match[match != NOT_COUNTED])
            assert paired == pairs["matched_pred_index"], (name, frame)

        raw = expected["raw_accumulators_cm"]
        assert (result.matched, (result.match != NOT_COUNTED).sum()) == (raw["count_people"], raw["total_people_gt"])
        assert result.neighbours == pytest.approx(raw["total_pair_count"], abs=1e-6), name
        assert result.reversed_neighbours == raw["reverse_pair_count"], name
        np.testing.assert_array_equal(result.found.sum(axis=0), raw["count_point"], err_msg=name)
        root = result.found[:, 2] & (result.absolute_errors[:, 2] < 150)
        assert root.sum() == raw["less_15"], name
        if "person_recall" not in expected:
            assert result.matched == 0 and np.isnan(result.mpjpe), name
            continue
        assert result.recall == pytest.approx(expected["person_recall"]), name
        mean = expected["mpjpe_mm_mean_over_15_joints_derived"]
        assert result.mpjpe == pytest.approx(mean, abs=TOLERANCE_MM), name
        for found, key in (
            (result.joint_mpjpe(), "root_error_per_joint_mm"),
            (joint_absolute(result), "abs_error_per_joint_mm"),
            (joint_pck(result, result.relative_errors), "root_PCK15cm_per_joint"),
            (joint_pck(result, result.absolute_errors), "abs_PCK15cm_per_joint"),
        ):
            np.testing.assert_allclose(found, numbers(expected[key]), atol=1e-4, err_msg=f"{name} {key}")


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_smap_is_that_of_a_loop_over_people_in_any_order(seed):
    rng = np.random.default_rng(seed)
    scene = loops.make_scene(rng, frames=5, people=4, noise=100)
    scale = smap_scale(1920, 1080)
    truth, predictions = (table.where(rng.permutation(len(table))) for table in (scene.truth, scene.predictions))
    result = panoptic_smap(scene.truth, scene.predictions, scale)
    assume(result.matched > 0)
    mpjpe, recall = loops.smap(truth, predictions, scale)
    assert (result.mpjpe, result.recall) == (pytest.approx(mpjpe), pytest.approx(recall))


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_scores_by_image_are_the_protocols_numbers(seed):
    scene = loops.make_scene(np.random.default_rng(seed), frames=6, people=3, miss=0.3)
    truth, predictions = scene.truth, scene.predictions
    assume(truth.scored[:, 2].any())
    release = panoptic_release(truth, predictions, scene.world_mean, scene.R)
    assert release.score(6).value == pytest.approx(release.mpjpe)
    result = panoptic_smap(truth, predictions, smap_scale(1920, 1080))
    assume(result.matched > 0)
    found = {name: score.value for name, score in result.scores(truth, 6).items()}
    assert found == pytest.approx(
        {
            "mpjpe": result.mpjpe,
            "mpjpe_absolute": joint_absolute(result).mean(),
            "pck": joint_pck(result, result.relative_errors).mean(),
            "pck_absolute": joint_pck(result, result.absolute_errors).mean(),
            "recall": result.recall,
        }
    )


def test_smap_measures_annotated_joints_alone():
    scene = loops.make_scene(np.random.default_rng(0), noise=10)
    known = np.ones(scene.truth.scored.shape, bool)
    known[:, 4] = False
    wrong = replace(scene.truth, joints_cam=np.where(known[..., None], scene.truth.joints_cam, 0.0))
    result = panoptic_smap(wrong, scene.predictions, known=known)
    assert np.isnan(result.joint_mpjpe()[4]) and np.delete(result.joint_mpjpe(), 4).max() < 40
    assert result.scores(wrong, 12)["mpjpe"].value < 40, "a joint without annotations is not part of the mean"


def test_smap_scales_every_image_by_itself():
    joints, uv = np.zeros((2, 15, 3)), np.zeros((2, 15, 2))
    truth = Truth([0, 1], joints, np.ones((2, 15), bool), uv)
    predictions = Predictions([0, 1], joints, [1.0, 1.0], uv + [50, 0])
    assert panoptic_smap(truth, predictions, np.array([0.5, 1.0])).match.tolist() == [0, MISSED]


def test_smap_pixels_are_those_of_its_network_input():
    assert smap_scale(1920, 1080) == pytest.approx(832 / 1920)
    assert smap_scale(1000, 1000) == pytest.approx(0.512)
    joints, uv = np.zeros((1, 15, 3)), np.zeros((1, 15, 2))
    truth = Truth([0], joints, np.ones((1, 15), bool), uv)
    for gap, match in ((69.0, 0), (69.5, MISSED)):  # 30 px of 832 are 69.2 px of 1920
        prediction = Predictions([0], joints, [1.0], uv + [gap, 0])
        assert panoptic_smap(truth, prediction, smap_scale(1920, 1080)).match.tolist() == [match]


def test_smap_needs_pixels():
    scene = loops.make_scene(np.random.default_rng(0))
    with pytest.raises(ValueError, match="Predictions.joints_uv"):
        panoptic_smap(scene.truth, replace(scene.predictions, joints_uv=None))
