"""Predictions and annotations become the right tables: perfect ones score perfectly, recorded ones as recorded."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from das.camera import back_project
from das.metrics.bootstrap import SURE, WITHIN
from das.skeleton import COCO17, COCO19, MPI15, MUCO21, MUPOTS17, PANOPTIC15
from pipeline.data.record import OCCLUDED
from pipeline.evaluation.ground_truth import image_clusters
from pipeline.evaluation.predictions_file import PredictionSet, collect
from pipeline.evaluation.score import score
from pipeline.infra.columns import read_lists, write_lists
from tests.pipeline.evaluation.evaluation_cases import (
    LENS,
    K,
    annotations_of,
    joints_as,
    predictions_of,
    provenance_of,
    record,
    scene,
    standing,
)

NECK, HEAD = PANOPTIC15.index("neck"), PANOPTIC15.index("head")


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def metrics(records, predictions, threshold=None):
    return score(annotations_of(records), predictions, threshold).metrics


def moved(records, offset, skeleton=PANOPTIC15):
    return [people + offset for people in joints_as(records, skeleton)]


# ---- strict ----


@pytest.mark.parametrize("skeleton", [COCO19, MPI15])
def test_perfect_predictions_are_perfect_under_every_protocol(skeleton):
    found = metrics(scene(skeleton), predictions_of(scene(skeleton)))
    for name in ("strict/mpjpe", "strict/root_error", "strict/mpjpe/haggling", "strict/mpjpe/seq1"):
        assert found[name] == pytest.approx(0, abs=1e-3)
    for name in ("strict/recall", "strict/precision", "strict/pck_150mm", "strict/recall/mafia"):
        assert found[name] == 1
    assert found["strict/people"] == 8
    assert found["panoptic_release/mpjpe"] == pytest.approx(0, abs=1e-3)
    assert found["panoptic_release/mpjpe/mafia"] == pytest.approx(0, abs=1e-3)
    assert found["baseline/mpjpe"] > 100 and found["baseline/panoptic_release_mpjpe"] > 100


def test_moving_people_changes_the_root_error_alone():
    records = scene()
    found = metrics(records, predictions_of(records, moved(records, np.array([30.0, 0, 40]))))
    assert found["strict/root_error"] == pytest.approx(50, abs=1e-3)
    assert found["strict/mpjpe"] == pytest.approx(0, abs=1e-3)


def test_errors_are_told_by_joint_and_the_baseline_stands_beside():
    records = scene(MPI15)
    wrong = moved(records, 0.0)
    for people in wrong:
        people[:, NECK, 0] += 140
    results = score(annotations_of(records), predictions_of(records, wrong))
    assert results.metrics["strict/joint_mpjpe/neck"] == pytest.approx(140, abs=1e-3)
    assert results.metrics["strict/joint_mpjpe/l_knee"] == pytest.approx(0, abs=1e-3)
    assert results.metrics["strict/mpjpe"] == pytest.approx(10, abs=1e-3), "140 mm in one of 14 joints that count"
    table = {t.name: t for t in results.tables}["strict_joints"]
    target = np.concatenate(joints_as(records, PANOPTIC15))
    target -= target[:, [PANOPTIC15.root_index]]
    mean = np.linalg.norm(target - np.array(provenance_of(records).mean_pose), axis=-1).mean(axis=0)
    assert table.rows["neck"] == pytest.approx([140, mean[NECK], 1], abs=1e-2)
    assert "mid_hip" not in table.rows and len(table.rows) == 14


def test_every_group_is_scored_as_if_it_were_alone():
    records = scene(frames=6)
    rng = np.random.default_rng(0)
    noisy = [people + rng.normal(0, 50, people.shape) for people in joints_as(records, PANOPTIC15)]
    found = metrics(records, predictions_of(records, noisy))
    alone = [i for i, r in enumerate(records) if r.activity == "mafia"]
    part = metrics([records[i] for i in alone], predictions_of([records[i] for i in alone], [noisy[i] for i in alone]))
    for name in ("strict/mpjpe", "strict/root_error", "baseline/mpjpe", "panoptic_release/mpjpe"):
        assert found[f"{name}/mafia"] == pytest.approx(part[name])
    assert found["panoptic_release/mpjpe"] == pytest.approx(
        (found["panoptic_release/mpjpe/mafia"] + found["panoptic_release/mpjpe/haggling"]) / 2
    )


def test_joints_that_training_never_labelled_do_not_count():
    records = scene()
    wrong = moved(records, 0.0)
    for people in wrong:
        people[:, HEAD] += 500
    assert metrics(records, predictions_of(records, wrong))["strict/mpjpe"] > 30
    assert metrics(records, predictions_of(records, wrong, unsupervised_joints=("head",)))[
        "strict/mpjpe"
    ] == pytest.approx(0, abs=1e-3)


def test_unsure_candidates_count_for_the_release_alone():
    records = scene()
    perfect, far = joints_as(records, PANOPTIC15), moved(records, np.array([0, 0, 900.0]))
    for people in far:
        people[:, NECK] += 400
    both = [np.concatenate([f, p]) for f, p in zip(far, perfect, strict=True)]
    scores = np.tile([0.9, 0.9, 0.1, 0.1], len(records))
    found = metrics(records, predictions_of(records, both, scores=scores))
    assert found["strict/predictions"] == 8 and found["strict/mpjpe"] > 10
    assert found["panoptic_release/mpjpe"] == pytest.approx(0, abs=1e-3)
    unsure = metrics(records, predictions_of(records, both, scores=scores), threshold=0.05)
    assert unsure["strict/predictions"] == 16 and unsure["strict/precision"] == 0.5
    worse = metrics(records, predictions_of(records, both, scores=scores, release_threshold=0.2))
    assert worse["panoptic_release/mpjpe"] > 10


def test_ignored_and_invalid_people_are_neither_found_nor_missed():
    records = scene()
    for r in records[:2]:
        r.ignore[0] = r.valid[1] = True
        r.valid[0] = False
    found = metrics(records, predictions_of(records))
    assert found["strict/people"] == 6 and found["strict/recall"] == found["strict/precision"] == 1


# ---- frames without predictions ----


def test_frames_without_predictions_are_misses_and_the_release_takes_its_mean_pose():
    records = scene()
    some = joints_as(records, PANOPTIC15)
    some[0] = some[0][:0]
    results = score(annotations_of(records), predictions_of(records, some))
    assert results.metrics["strict/recall"] == 0.75 and results.metrics["strict/precision"] == 1
    assert results.metrics["strict/mpjpe"] == pytest.approx(0, abs=1e-3)
    release = {t.name: t for t in results.tables}["panoptic_release"]
    assert [c for c, _ in release.columns][-1] == "without candidate"
    assert (release.rows["haggling"][-1], release.rows["mafia"][-1], release.rows["mean"][-1]) == (2, 0, 2)
    assert release.rows["haggling"][0] > 10


@pytest.mark.parametrize("skeleton", [PANOPTIC15, MUCO21])
def test_a_model_that_finds_nobody_is_defined(skeleton):
    panoptic = skeleton == PANOPTIC15
    records = scene() if panoptic else scene(MUPOTS17, source="mupots")
    found = metrics(records, predictions_of(records, [np.zeros((0, len(skeleton), 3))] * 4, skeleton))
    assert found["strict/recall"] == 0 and np.isnan(found["strict/mpjpe"]) and np.isnan(found["strict/precision"])
    if panoptic:
        assert np.isfinite(found["panoptic_release/mpjpe"])
    else:
        assert found["mupots_release/pck_rel_all"] == found["mupots_release/pck_abs_all"] == 0
        assert np.isnan(found["mupots_release/pck_rel_matched"])


# ---- panoptic-release ----


def test_the_release_takes_distorted_pixels_for_a_pinhole_image():
    """Perfect predictions are some millimetres off; those that repeat the release's mistake are not."""
    records = scene(distortion=LENS)
    truth = joints_as(records, PANOPTIC15)
    pinhole = []
    for people in truth:
        uv = cv2.projectPoints(people.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), K, LENS)[0].reshape(-1, 15, 2)
        pinhole.append(back_project(uv, people[..., 2], K))
    found = metrics(records, predictions_of(records))
    assert found["strict/mpjpe"] == pytest.approx(0, abs=1e-3)
    aligned = [p - p[:, [2]] - (t - t[:, [2]]) for p, t in zip(pinhole, truth, strict=True)]
    scored = np.delete(np.linalg.norm(aligned, axis=-1), HEAD, axis=-1)  # of coco19, joint 1 does not count
    assert found["panoptic_release/mpjpe"] == pytest.approx(scored.mean(), abs=0.01)
    assert scored.mean() > 1
    same = metrics(records, predictions_of(records, pinhole))
    assert same["panoptic_release/mpjpe"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("skeleton", "counts"), [(COCO19, False), (MPI15, True)])
def test_the_release_scores_joint_1_only_where_it_is_the_head_top(skeleton, counts):
    records = scene(skeleton)
    wrong = moved(records, 0.0)
    for people in wrong:
        people[:, HEAD] += 300
    assert (metrics(records, predictions_of(records, wrong))["panoptic_release/mpjpe"] > 1) == counts


def test_the_release_scores_confident_joints_inside_the_image_with_a_pixel():
    clean = scene(MPI15)
    perfect = predictions_of(clean)
    wrong = moved(clean, 0.0)
    for people in wrong:
        people[0, NECK] += 300
    spoiled = replace(predictions_of(clean, wrong), provenance=perfect.provenance)

    def release(change):
        records = scene(MPI15)
        for r in records:
            change(r)
        found = replace(spoiled, provenance=provenance_of(records))
        return metrics(records, found)["panoptic_release/mpjpe"]

    def unsure(r):
        r.confidence[0, NECK] = 0.1

    def outside(r):
        r.joints_uv[0, NECK] = (-1, 50)

    def unseen(r):  # the lens cannot image it: the source has no pixel, and zeros in its place
        r.joints_uv[0, NECK], r.state[0, NECK] = 0, 0

    assert release(lambda r: None) > 5
    for change in (unsure, outside, unseen):
        assert release(change) == pytest.approx(0, abs=1e-3), change.__name__


@pytest.mark.parametrize("source", ["mupots", "muco"])
def test_other_rows_get_no_panoptic_numbers(source):
    records = scene(source=source)
    assert not any("panoptic" in name for name in metrics(records, predictions_of(records)))


@pytest.mark.golden
def test_recorded_panoptic_cases_give_the_recorded_numbers_from_rows(golden):
    """Every case of the official evaluator as an activity of its own, through rows and a predictions table."""
    data = np.load(golden / "metrics" / "panoptic_das_inputs.npz")
    recorded = json.loads((golden / "metrics" / "panoptic_das_expected.json").read_text())
    names = data["case_names"].astype(str)
    width, height = data["image_wh"].tolist()
    records, people, scores = [], [], []
    for case, frame, camera, rotation in zip(
        *(data[f"frame_{name}"] for name in ("case", "id", "K", "R_world_to_cam")), strict=True
    ):
        rows = (data["gt_case"] == case) & (data["gt_frame"] == frame)
        uv = data["gt_cam_mm"][rows] @ camera.T
        uv = uv[..., :2] / uv[..., 2:]
        # One case hides joints in the picture that are confident in space, as a lens does that cannot image them.
        hidden = (data["gt_vis2d"][rows] == 0) & ((uv >= 0) & (uv <= (width - 1, height - 1))).all(axis=-1)
        plain = record(data["gt_cam_mm"][rows], MPI15, frame=int(frame), sequence=f"case{case}", activity=names[case])
        change = {
            "K": camera,
            "R": rotation,
            "width": width,
            "height": height,
            "joints_uv": uv.astype(np.float32),
            "state": np.where(hidden, 0, 2).astype(np.uint8),
            "confidence": np.where(data["gt_vis3d"][rows], 0.5, 0.05).astype(np.float32),
        }
        records.append(replace(plain, **change))
        here = (data["pred_case"] == case) & (data["pred_frame"] == frame)
        people.append(data["pred_cam_mm"][here])
        scores += data["pred_score"][here].tolist()
    found = metrics(records, predictions_of(records, people, scores=scores, release_threshold=0.0, least_score=0.0))
    for name in names:
        assert found[f"panoptic_release/mpjpe/{name}"] == pytest.approx(recorded[name]["mpjpe_mm"], abs=0.01), name
    assert len(names) > 10


# ---- panoptic-smap ----


def test_smap_pairs_by_the_root_in_the_image_and_missed_people_lower_recall_alone():
    records = scene(MPI15)
    people = moved(records, np.array([0, 0, 100.0]))
    people[0] = people[0][:1]
    people[2] = people[2] + np.array([2000.0, 0, 0])  # far from everybody in the image
    found = metrics(records, predictions_of(records, people))
    assert found["panoptic_smap/recall"] == pytest.approx(5 / 8)
    assert found["panoptic_smap/recall/haggling"] == pytest.approx(1 / 4)
    assert found["panoptic_smap/mpjpe"] == pytest.approx(0, abs=1e-3)
    assert found["panoptic_smap/mpjpe_absolute"] == pytest.approx(100, abs=1e-2)
    assert (found["panoptic_smap/pck"], found["panoptic_smap/pck_absolute"]) == (1, 1)
    assert found["strict/recall"] == pytest.approx(5 / 8)


# ---- intervals ----


def test_every_ratio_of_the_headline_has_an_interval_round_it():
    records = scene(frames=12)
    rng = np.random.default_rng(0)
    noisy = [p + rng.normal(0, 50, p.shape) for p in joints_as(records, PANOPTIC15)]
    noisy[3] = noisy[3][:1]
    results = score(annotations_of(records), predictions_of(records, noisy))
    for name in ("strict/mpjpe", "strict/mpjpe_with_misses", "strict/recall", "strict/root_error", "strict/pa_mpjpe",
                 "panoptic_release/mpjpe", "panoptic_smap/mpjpe"):  # fmt: skip
        low, value, high = (results.metrics[name + end] for end in ("_low", "", "_high"))
        assert low < value <= high, name
    assert results.metrics["strict/recall_high"] == 1, "no share is above one"
    assert results.metrics["strict/precision_low"] == results.metrics["strict/precision_high"] == 1, "no variation"
    assert results.scores["strict/mpjpe"].value == pytest.approx(results.metrics["strict/mpjpe"])
    for table in results.tables:
        assert table.intervals, table.name


def test_blocks_of_a_recording_are_five_seconds_and_photos_stand_alone():
    first = scene(frames=2)
    video = [replace(r, frame=frame) for r in first for frame in range(0, 1800, 10)]
    clusters = image_clusters(video)
    assert clusters.label == SURE and clusters.count == 2 * (1791 // 150)
    photos = [replace(r, source="coco", sequence="val2017", joints_cam=None) for r in scene(COCO17, frames=9)]
    assert image_clusters(photos).of.tolist() == [*range(9)]
    assert image_clusters(scene(frames=9)).label == WITHIN, "two sequences of a fraction of a second"


# ---- where people stand ----


def test_roots_within_25_cm_are_found_and_farther_ones_are_not():
    records = scene()
    near = metrics(records, predictions_of(records, moved(records, np.array([0, 0, 240.0]))))
    far = metrics(records, predictions_of(records, moved(records, np.array([0, 0, 260.0]))))
    assert (near["strict/root_ap_250mm"], far["strict/root_ap_250mm"]) == (1, 0)
    assert near["strict/root_depth_error"] == pytest.approx(240, abs=1e-3)


# ---- mupots ----


def mupots_scene(frames=4):
    return scene(MUPOTS17, frames, source="mupots", activity="")


def as_muco(records):
    """True people in 21 joints; the four that MuPoTS lacks lie anywhere."""
    return [np.concatenate([r.joints_cam.astype(float), r.joints_cam[:, :4] + 99.0], axis=1) for r in records]


def test_perfect_predictions_are_right_in_all_joints_with_the_bug_and_without():
    records = mupots_scene()
    found = metrics(records, predictions_of(records, as_muco(records), MUCO21))
    for name in ("mupots_release", "mupots_release_mended"):
        for mode in ("rel_all", "abs_all", "rel_matched", "abs_matched"):
            assert found[f"{name}/pck_{mode}"] == pytest.approx(100)
            assert found[f"{name}/pck_{mode}/seq1"] == pytest.approx(100)
    assert found["strict/mpjpe"] == pytest.approx(0, abs=1e-3) and found["strict/recall"] == 1
    assert found["baseline/mupots_release_pck_rel_all"] < 50


def test_missed_people_are_wrong_among_all_and_absent_among_matched():
    records = mupots_scene()
    people = as_muco(records)
    people[0] = people[0][:0]
    people[2] = people[2] + np.array([0, 0, 400.0])
    results = score(annotations_of(records), predictions_of(records, people, MUCO21))
    found, table = results.metrics, {t.name: t for t in results.tables}["mupots_release"]
    assert found["mupots_release/pck_rel_all/seq0"] == pytest.approx(50)
    assert found["mupots_release/pck_rel_matched/seq0"] == pytest.approx(100)
    assert found["mupots_release/pck_abs_matched/seq0"] == pytest.approx(0), "400 mm behind where it stands"
    assert found["mupots_release/pck_rel_all"] == pytest.approx(75), "the mean of the sequences"
    assert table.rows["seq0"][-2:] == [4, 2] and table.rows["mean"][-2:] == [8, 6]


def test_the_toolbox_scores_both_ground_truths_with_and_without_rescaling():
    """Everybody predicted 1.2 times too large about the pelvis, which rescaling mends; univ_annot3 is 1.1 times."""
    records = mupots_scene()
    people = as_muco(records)
    root = MUPOTS17.root_index
    for r, predicted in zip(records, people, strict=True):
        predicted[:] = predicted[:, [root]] + 1.2 * (predicted - predicted[:, [root]])
        joints = r.joints_cam.astype(np.float64)
        r.joints_cam_univ = (joints[:, [root]] + 1.1 * (joints - joints[:, [root]])).astype(np.float32)
        r.state[:, MUPOTS17.index("l_wrist")] = OCCLUDED
    results = score(annotations_of(records), predictions_of(records, people, MUCO21))
    found, tables = results.metrics, {t.name: t for t in results.tables}
    for name in ("mupots_matlab", "mupots_matlab_annot3"):
        for part in ("pck_rel_all", "pck_abs_all", "pck_rel_matched"):
            assert found[f"{name}/{part}"] == pytest.approx(100), name
        assert found[f"{name}/auc_rel_all"] == pytest.approx(100 * 30 / 31), "at threshold 0 nothing is right"
    off = found["mupots_matlab_annot3_unscaled/pck_rel_all"]
    assert off < found["mupots_matlab_unscaled/pck_rel_all"] <= 100 and off < 90
    assert tables["mupots_matlab_occlusion"].rows["rel"][2] == 13 * 8
    assert tables["mupots_matlab_occlusion"].rows["rel"][5] == 8
    assert tables["mupots_matlab"].rows["mean"][0] == found["mupots_matlab/pck_rel_all"]


def test_the_toolbox_measures_pixels_of_the_original_images():
    """TS1 is 2048 pixels wide and these images are 320: 6 pixels here are 38 there, 7 are 45."""
    for off, wanted in ((6.0, 100), (7.0, 0)):
        records = scene(MUPOTS17, 2, source="mupots", activity="", sequence="TS1")
        found = predictions_of(records, as_muco(records), MUCO21)
        found = replace(found, joints_uv=found.joints_uv + [off, 0])
        assert metrics(records, found)["mupots_matlab_annot3/pck_rel_all"] == pytest.approx(wanted)


def test_invalid_people_of_mupots_are_no_ground_truth():
    records = mupots_scene()
    people = as_muco(records)
    records[0].valid[:] = False
    people[0] = people[0][:0]
    assert metrics(records, predictions_of(records, people, MUCO21))["mupots_release/pck_rel_all"] == pytest.approx(100)


def test_a_model_without_the_joints_of_mupots_gets_the_strict_protocol_alone():
    records = mupots_scene()
    found = metrics(records, predictions_of(records))
    assert found["strict/recall"] == 1 and not any("mupots" in name for name in found)


@pytest.mark.golden
@pytest.mark.parametrize("mode", ["all", "matched"])
def test_recorded_mupots_scenarios_give_the_recorded_numbers_from_rows(golden, mode):
    data = np.load(golden / "metrics" / "mupots_inputs.npz")
    recorded = json.loads((golden / "metrics" / "mupots_das_expected.json").read_text())
    recorded = recorded[f"das_full_20_sequences_{mode}"]
    records, people = [], []
    for ts, frame in zip(data["frame_ts"], data["frame_id"], strict=True):
        rows = (data["gt_ts"] == ts) & (data["gt_frame"] == frame)
        plain = record(data["gt_annot3_mm"][rows], MUPOTS17, int(frame), f"TS{ts}", source="mupots")
        (place,) = np.flatnonzero(data["seq_ts"] == ts)
        change = {
            "K": data["seq_K"][place],
            "width": int(data["seq_wh"][place, 0]),
            "height": int(data["seq_wh"][place, 1]),
            "joints_uv": data["gt_annot2_px"][rows].astype(np.float32),
            "valid": data["gt_valid"][rows] > 0,
        }
        records.append(replace(plain, **change))
        here = [
            data[f"{kind}_cam_mm"][(data[f"{kind}_ts"] == ts) & (data[f"{kind}_frame"] == frame)]
            for kind in ("pred", "farfp")
        ]
        people.append(np.concatenate([*here]))
    muco = [np.concatenate([p, p[:, :4]], axis=1) for p in people]
    found = metrics(records, predictions_of(records, muco, MUCO21))
    for kind in ("rel", "abs"):
        name = f"mupots_release/pck_{kind}_{mode}"
        assert found[name] == pytest.approx(recorded[f"mean_pck_{kind}"], abs=0.01)
        for i, total in enumerate(recorded[f"per_sequence_total_{kind}"]):
            assert found[f"{name}/TS{i + 1}"] == pytest.approx(total, abs=0.01), i + 1


# ---- what is refused, and what is marked ----


def test_data_that_cannot_judge_the_model_are_refused_in_one_line():
    records = scene(COCO17)
    everyone = predictions_of(records, [np.zeros((0, 21, 3))] * 4, MUCO21)
    refused(lambda: metrics(records, everyone), records[0].key, "coco17 has no pelvis", "muco21")
    flat = [replace(r, joints_cam=None, K=None) for r in scene(COCO17, source="coco")]
    refused(
        lambda: metrics(flat, replace(predictions_of(records), provenance=provenance_of(flat))), "2D only", flat[0].key
    )
    hidden = scene()
    for r in hidden:
        r.state[:, COCO19.root_index] = 0
    refused(lambda: metrics(hidden, predictions_of(hidden)), "no person in 4 images", "root")


def test_predictions_for_other_data_are_refused():
    records = scene()
    refused(lambda: metrics(records, predictions_of(records, data_fingerprint="d" * 64)), "dddd", "fingerprint")
    found = predictions_of(records)
    refused(lambda: metrics(records, found, threshold=0.001), "threshold = 0.001", "0.01")


def test_training_data_mark_every_number_and_table():
    records = scene()
    results = score(annotations_of(records), predictions_of(records, train_fit=True))
    plain = score(annotations_of(records), predictions_of(records))
    assert results.metrics == {f"train-fit/{name}": value for name, value in plain.metrics.items()}
    for marked, table in zip(results.tables, plain.tables, strict=True):
        assert marked.name == f"train-fit_{table.name}" and marked.title == f"train-fit: {table.title}"
        assert "train-fit" in marked.text() and "train-fit" in marked.csv()


def test_sequences_stand_in_the_order_that_people_count_in():
    records = [record([standing(MUPOTS17)], MUPOTS17, sequence=f"TS{i}", source="mupots") for i in (10, 2, 1)]
    results = score(annotations_of(records), predictions_of(records, as_muco(records), MUCO21))
    tables = {t.name: t for t in results.tables}
    assert [*tables["strict_sequences"].rows] == ["all", "TS1", "TS2", "TS10"]
    assert [*tables["mupots_release"].rows] == ["TS1", "TS2", "TS10", "mean"]


def test_the_release_is_labelled_optimistic_wherever_it_is_read():
    records = scene()
    table = {t.name: t for t in score(annotations_of(records), predictions_of(records)).tables}["panoptic_release"]
    assert "optimistic" in table.text() and "optimistic" in json.dumps(table.to_json())


def test_tables_align_and_keep_all_digits():
    records = scene()
    text = score(annotations_of(records), predictions_of(records)).tables[0].text().splitlines()
    assert len({len(line) for line in text[1:]}) == 1
    table = score(annotations_of(records), predictions_of(records)).tables[0]
    for row in csv.DictReader(table.csv().splitlines()):
        name = row["strict_activities"]
        assert [float(row[column]) for column, _ in table.columns] == list(table.rows[name])
        for (column, _), interval in zip(table.columns, table.intervals[name], strict=True):
            if interval is not None:
                ends = tuple(float(row[f"{column} {end}"] or "nan") for end in ("low", "high"))
                assert ends == pytest.approx((interval.low, interval.high), rel=0, abs=0, nan_ok=True)


# ---- the predictions file ----


def test_a_file_gives_the_same_scores_whatever_the_order_of_its_rows(tmp_path):
    records = scene(frames=6)
    rng = np.random.default_rng(0)
    people = [p[: i % 3] + rng.normal(0, 40, p[: i % 3].shape) for i, p in enumerate(joints_as(records, PANOPTIC15))]
    predictions = predictions_of(records, people)
    predictions.save(tmp_path / "predictions.parquet")
    loaded = PredictionSet.load(tmp_path / "predictions.parquet")
    assert loaded.provenance == predictions.provenance and loaded.keys == predictions.keys
    assert (loaded.counts == predictions.counts).all()
    np.testing.assert_array_equal(loaded.joints_cam, predictions.joints_cam.astype(np.float32))
    rows = [
        {
            "key": np.repeat([key], n),
            "rank": np.arange(n)[::-1],
            **{
                column: getattr(loaded, name)[loaded.counts[:i].sum() :][:n][::-1]
                for column, name in (("score", "scores"), ("joints_uv", "joints_uv"), ("joints_cam", "joints_cam"))
            },
        }
        for i, (key, n) in enumerate(zip(loaded.keys, loaded.counts, strict=True))
    ]
    again = collect(loaded.provenance, loaded.keys[::-1], rows[::-1])
    assert metrics(records, again) == metrics(records, loaded)


def test_an_image_that_is_missing_or_strange_is_named():
    records = scene()
    fewer = predictions_of(records[:3], data_fingerprint=provenance_of(records).data_fingerprint)
    refused(lambda: metrics(records, fewer), "no row for", records[3].key, "1 of 4")
    more = predictions_of(records, data_fingerprint=provenance_of(records[:3]).data_fingerprint)
    refused(lambda: metrics(records[:3], more), "other images", records[3].key)


def test_a_mutilated_file_is_refused_by_name(tmp_path):
    file = tmp_path / "predictions.parquet"
    records = scene()
    columns = ("scores", "joints_uv", "joints_cam")
    predictions_of(records).save(file)
    keys, lists, about = read_lists(file, "key", columns)

    def written(keys=keys, about=about, **changes):
        write_lists(file, "key", keys, {**lists, **changes}, about)
        return lambda: PredictionSet.load(file)

    refused(written([keys[0], *keys[:3]]), str(file), keys[0], "twice")
    values = lists["joints_cam"].values.copy()
    values[15 * 3 * 5 + 7] = np.nan
    refused(written(joints_cam=replace(lists["joints_cam"], values=values)), str(file), keys[2], "joints_cam", "NaN")
    short = replace(lists["joints_uv"], lengths=np.array([60, 60, 30, 90]))
    refused(written(joints_uv=short), str(file), keys[2], "30 numbers", "wanted 30 for each of 2")
    refused(written(about={**about, "format": 9}), str(file), "format 9", "1")
    refused(written(about={**about, "score_threshold": 0.3, "extra": 1}), str(file), "extra")
    write_lists(file, "key", keys, {name: lists[name] for name in columns[:2]}, about)
    refused(lambda: PredictionSet.load(file), str(file), "joints_cam", "missing")
    file.write_bytes(b"PAR1 no")
    refused(lambda: PredictionSet.load(file), str(file), "Parquet")
    refused(lambda: PredictionSet.load(tmp_path / "nothing.parquet"), "nothing.parquet", "no such file")


def test_nobody_stands_twice_in_front_of_one_person():
    """Two predictions of one person: one is right, the other is not."""
    records = [record([standing(COCO19)], frame=i) for i in range(3)]
    twice = [np.repeat(p, 2, axis=0) for p in joints_as(records, PANOPTIC15)]
    found = metrics(records, predictions_of(records, twice))
    assert found["strict/recall"] == 1 and found["strict/precision"] == 0.5
