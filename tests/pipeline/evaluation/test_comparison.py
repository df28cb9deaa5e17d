"""Two models compared on the same images: differences, intervals, and what cannot be compared."""

from dataclasses import replace

import numpy as np
import pytest

from das.skeleton import PANOPTIC15
from pipeline.evaluation.comparison import differences, verdict
from pipeline.evaluation.rescore import rescore
from pipeline.evaluation.score import score
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    predictions_of,
    scene,
)
from tests.pipeline.evaluation.rescore_cases import FRAMES, config_of, das_evaluate, noisy, rows_of

pytestmark = pytest.mark.usefixtures("no_cluster")


def test_two_models_are_compared_on_the_same_blocks(place, capsys):
    files = ("--predictions", place / "good.parquet", "--compare", place / "bad.parquet")
    status, out, _ = das_evaluate(capsys, *files, "--data", place / "prepared")
    assert status == 0 and "surely smaller" in out
    found = rescore(config_of(place, compare=str(place / "bad.parquet")))
    table = {t.name: t for t in found.tables}["comparison"]
    this, other, difference, lower, equal, higher = table.rows["strict/mpjpe"]
    assert difference == pytest.approx(this - other) and difference < -30
    assert (lower, equal, higher) == (2, 0, 0)
    (interval,) = [i for i in table.intervals["strict/mpjpe"] if i is not None]
    assert interval.low < difference < interval.high < 0 and interval.signs == {"seq0": -1, "seq1": -1}
    assert found.metrics["compare/strict/mpjpe_high"] == interval.high
    assert {"panoptic_release/mpjpe", "panoptic_smap/recall"} <= table.rows.keys()
    bad = rescore(config_of(place, "bad.parquet"))
    assert (this, other) == (found.metrics["strict/mpjpe"], bad.metrics["strict/mpjpe"])


def test_models_of_different_joint_sets_are_compared_in_the_joints_that_both_predict(place, tmp_path):
    records = scene(frames=FRAMES)
    joints = tuple(joint for joint in PANOPTIC15.joints if joint != "head")
    small = replace(PANOPTIC15, name="small", joints=joints, bones=PANOPTIC15.bones[1:])
    people = noisy(records)
    fewer = [np.delete(joints, PANOPTIC15.index("head"), axis=1) for joints in people]
    # With another mean pose a missed person would have another error.
    predictions_of(records, fewer, small, mean_pose=((9.0, 9.0, 9.0),) * len(small)).save(tmp_path / "small.parquet")
    table = {t.name: t for t in rescore(config_of(place, compare=str(tmp_path / "small.parquet"))).tables}
    for name in ("strict/mpjpe", "strict/mpjpe_with_misses", "strict/recall"):
        assert table["comparison"].rows[name][2] == pytest.approx(0, abs=1e-6), name
    other = replace(small, root=("neck",))
    predictions_of(records, fewer, other).save(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"panoptic15 \(root mid_hip\) and small \(root neck\) have 14 joints"):
        rescore(config_of(place, compare=str(tmp_path / "other.parquet")))


def test_a_model_compared_with_itself_has_no_difference(place):
    found = rescore(config_of(place, compare=str(place / "good.parquet")))
    table = {t.name: t for t in found.tables}["comparison"]
    for name, row in table.rows.items():
        assert row[2] == 0 and row[3] == row[5] == 0, name


def test_train_fit_and_other_data_are_not_compared(place, tmp_path):
    records = scene(frames=FRAMES)
    mine = annotations_of(records)
    honest = score(mine, predictions_of(records, noisy(records)))
    fitted = score(mine, predictions_of(records, noisy(records), train_fit=True))
    with pytest.raises(ValueError, match="the other model was trained on some of these images"):
        differences(honest, fitted)
    predictions_of(scene(frames=4)).save(tmp_path / "fewer.parquet")
    with pytest.raises(ValueError, match="the predictions are for data"):
        rescore(config_of(place, compare=str(tmp_path / "fewer.parquet")))


def test_a_model_is_compared_with_another_groups_predictions(place, tmp_path):
    records = scene(frames=FRAMES)
    np.savez(tmp_path / "theirs.npz", **rows_of(records, noisy(records, mm=90)))
    found = rescore(config_of(place, compare=str(tmp_path / "theirs.npz")))
    assert found.metrics["compare/strict/mpjpe_high"] < 0
    rows = {t.name: t for t in found.tables}["comparison"].rows
    assert "strict/root_error" in rows and "strict/mpjpe_with_misses" in rows, "our mean pose for both"
    turned = rescore(config_of(place, str(tmp_path / "theirs.npz"), compare=str(place / "good.parquet")))
    assert "compare/strict/mpjpe_with_misses" not in turned.metrics, "their mean pose is not known"
    assert verdict(turned).startswith("error over")
