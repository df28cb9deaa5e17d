"""The strict protocol on prepared rows: errors by joint and group, misses, and the average precision of roots."""

import numpy as np
import pytest

from das.skeleton import COCO19, MPI15, PANOPTIC15
from pipeline.evaluation.score import score
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    joints_as,
    metrics,
    moved,
    predictions_of,
    provenance_of,
    record,
    scene,
    upright_person,
)

NECK, HEAD = PANOPTIC15.index("neck"), PANOPTIC15.index("head")


def test_moving_people_changes_the_root_error_alone():
    records = scene()
    found = metrics(records, predictions_of(records, moved(records, np.array([30.0, 0, 40]))))
    assert found["strict/root_error"] == pytest.approx(50, abs=1e-3)
    assert found["strict/mpjpe"] == pytest.approx(0, abs=1e-3)


def test_errors_by_joint_have_the_baseline_in_the_next_column():
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


def test_a_groups_scores_equal_those_of_its_images_alone():
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


def test_unsupervised_joints_do_not_count():
    records = scene()
    wrong = moved(records, 0.0)
    for people in wrong:
        people[:, HEAD] += 500
    assert metrics(records, predictions_of(records, wrong))["strict/mpjpe"] > 30
    assert metrics(records, predictions_of(records, wrong, unsupervised_joints=("head",)))[
        "strict/mpjpe"
    ] == pytest.approx(0, abs=1e-3)


def test_ignored_and_invalid_people_are_neither_matches_nor_misses():
    records = scene()
    for r in records[:2]:
        r.ignore[0] = r.valid[1] = True
        r.valid[0] = False
    results = score(annotations_of(records), predictions_of(records))
    found = results.metrics
    assert found["strict/people"] == 6 and found["strict/recall"] == found["strict/precision"] == 1
    table = {t.name: t for t in results.tables}["strict_activities"]
    assert {name: row[0] for name, row in table.rows.items()} == {"all": 6, "haggling": 3, "mafia": 3}


def test_root_average_precision_counts_roots_within_25_cm():
    records = scene()
    near = metrics(records, predictions_of(records, moved(records, np.array([0, 0, 240.0]))))
    far = metrics(records, predictions_of(records, moved(records, np.array([0, 0, 260.0]))))
    assert (near["strict/root_ap_250mm"], far["strict/root_ap_250mm"]) == (1, 0)
    assert near["strict/root_depth_error"] == pytest.approx(240, abs=1e-3)


def test_of_two_predictions_of_one_person_one_is_a_false_positive():
    """Two predictions of one person: one is right, the other is not."""
    records = [record([upright_person(COCO19)], frame=i) for i in range(3)]
    twice = [np.repeat(p, 2, axis=0) for p in joints_as(records, PANOPTIC15)]
    found = metrics(records, predictions_of(records, twice))
    assert found["strict/recall"] == 1 and found["strict/precision"] == 0.5
