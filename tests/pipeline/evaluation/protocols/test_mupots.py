"""MuPoTS-3D's published protocols on prepared rows: modes, ground truths, pixels of the original images."""

import json
from dataclasses import replace

import numpy as np
import pytest

from das.skeleton import MUCO21, MUPOTS17
from pipeline.data.record import OCCLUDED
from pipeline.evaluation.score import score
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    as_muco,
    metrics,
    mupots_scene,
    predictions_of,
    record,
    scene,
)


def test_perfect_predictions_have_pck_100_with_and_without_the_bone_bug():
    records = mupots_scene()
    found = metrics(records, predictions_of(records, as_muco(records), MUCO21))
    for name in ("mupots_release", "mupots_release_mended"):
        for mode in ("rel_all", "abs_all", "rel_matched", "abs_matched"):
            assert found[f"{name}/pck_{mode}"] == pytest.approx(100)
            assert found[f"{name}/pck_{mode}/seq1"] == pytest.approx(100)
    assert found["strict/mpjpe"] == pytest.approx(0, abs=1e-3) and found["strict/recall"] == 1
    assert found["baseline/mupots_release_pck_rel_all"] < 50


def test_missed_people_are_wrong_in_mode_all_and_left_out_in_mode_matched():
    records = mupots_scene()
    people = as_muco(records)
    people[0] = people[0][:0]
    people[2] = people[2] + np.array([0, 0, 400.0])
    results = score(annotations_of(records), predictions_of(records, people, MUCO21))
    found, table = results.metrics, {t.name: t for t in results.tables}["mupots_release"]
    assert found["mupots_release/pck_rel_all/seq0"] == pytest.approx(50)
    assert found["mupots_release/pck_rel_matched/seq0"] == pytest.approx(100)
    assert found["mupots_release/pck_abs_matched/seq0"] == pytest.approx(0), "400 mm behind the true position"
    assert found["mupots_release/pck_rel_all"] == pytest.approx(75), "the mean of the sequences"
    assert table.rows["seq0"][-2:] == [4, 2] and table.rows["mean"][-2:] == [8, 6]


def test_the_toolbox_scores_both_ground_truths_with_and_without_rescaled_bones():
    """Predictions are 1.2 times too large about the pelvis, which rescaling corrects; univ_annot3 is 1.1 times."""
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
    """TS1 is 2048 px wide, these images 320: 6 stored pixels are 38 original ones, 7 are 45, and the limit is 40."""
    for off, wanted in ((6.0, 100), (7.0, 0)):
        records = scene(MUPOTS17, 2, source="mupots", activity="", sequence="TS1")
        found = predictions_of(records, as_muco(records), MUCO21)
        found = replace(found, joints_uv=found.joints_uv + [off, 0])
        assert metrics(records, found)["mupots_matlab_annot3/pck_rel_all"] == pytest.approx(wanted)


def test_invalid_people_of_mupots_are_not_ground_truth():
    records = mupots_scene()
    people = as_muco(records)
    records[0].valid[:] = False
    people[0] = people[0][:0]
    assert metrics(records, predictions_of(records, people, MUCO21))["mupots_release/pck_rel_all"] == pytest.approx(100)


def test_a_model_without_mupots_joints_gets_only_the_strict_protocol():
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
