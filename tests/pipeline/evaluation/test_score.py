"""One set of predictions under every protocol that fits the data: perfect, absent and train-fit ones, refused data."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from das.skeleton import COCO17, COCO19, MPI15, MUCO21, MUPOTS17, PANOPTIC15
from pipeline.evaluation.score import score
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    as_muco,
    joints_as,
    metrics,
    predictions_of,
    provenance_of,
    record,
    refused,
    scene,
    upright_person,
)


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


@pytest.mark.parametrize("skeleton", [PANOPTIC15, MUCO21])
def test_metrics_are_defined_without_any_prediction(skeleton):
    panoptic = skeleton == PANOPTIC15
    records = scene() if panoptic else scene(MUPOTS17, source="mupots")
    found = metrics(records, predictions_of(records, [np.zeros((0, len(skeleton), 3))] * 4, skeleton))
    assert found["strict/recall"] == 0 and np.isnan(found["strict/mpjpe"]) and np.isnan(found["strict/precision"])
    if panoptic:
        assert np.isfinite(found["panoptic_release/mpjpe"])
    else:
        assert found["mupots_release/pck_rel_all"] == found["mupots_release/pck_abs_all"] == 0
        assert np.isnan(found["mupots_release/pck_rel_matched"])


def test_headline_ratios_have_intervals_that_contain_them():
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


def test_data_without_the_models_root_or_without_3d_are_refused_in_one_line():
    records = scene(COCO17)
    empty = predictions_of(records, [np.zeros((0, 21, 3))] * 4, MUCO21)
    refused(lambda: metrics(records, empty), records[0].key, "coco17 has no pelvis", "muco21")
    only_2d = [replace(r, joints_cam=None, K=None) for r in scene(COCO17, source="coco")]
    keys = tuple(r.key for r in only_2d)
    refused(
        lambda: metrics(only_2d, replace(predictions_of(records), provenance=provenance_of(only_2d), keys=keys)),
        "2D only",
        only_2d[0].key,
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


def test_train_fit_marks_every_metric_and_table():
    records = scene()
    results = score(annotations_of(records), predictions_of(records, train_fit=True))
    plain = score(annotations_of(records), predictions_of(records))
    assert results.metrics == {f"train-fit/{name}": value for name, value in plain.metrics.items()}
    for marked, table in zip(results.tables, plain.tables, strict=True):
        assert marked.name == f"train-fit_{table.name}" and marked.title == f"train-fit: {table.title}"
        assert "train-fit" in marked.text() and "train-fit" in marked.csv()


def test_sequences_are_ordered_by_number():
    records = [record([upright_person(MUPOTS17)], MUPOTS17, sequence=f"TS{i}", source="mupots") for i in (10, 2, 1)]
    results = score(annotations_of(records), predictions_of(records, as_muco(records), MUCO21))
    tables = {t.name: t for t in results.tables}
    assert [*tables["strict_sequences"].rows] == ["all", "TS1", "TS2", "TS10"]
    assert [*tables["mupots_release"].rows] == ["TS1", "TS2", "TS10", "mean"]


def test_table_text_is_aligned_and_csv_keeps_all_digits():
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
