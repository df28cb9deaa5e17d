"""Subsets of people: who is in which, and the scores of each."""

import numpy as np
import pytest

from das.skeleton import COCO19, PANOPTIC15
from pipeline.data.record import OCCLUDED
from pipeline.evaluation.ground_truth import strict_truth
from pipeline.evaluation.score import score
from pipeline.evaluation.subsets import occluded_joints, people_subsets
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    joints_as,
    predictions_of,
    record,
    scene,
    upright_person,
)


def subsets_of(records):
    truth = strict_truth(records, PANOPTIC15)
    return {
        kind: {name: np.flatnonzero(people).tolist() for name, people in parts.items()}
        for kind, parts in people_subsets(records, truth, PANOPTIC15).items()
    }


def test_people_are_divided_by_number_depth_and_overlap():
    alone = record([upright_person(COCO19, 0, 2500)], frame=0)
    apart = record([upright_person(COCO19, -1200, 4500), upright_person(COCO19, 1200, 4500)], frame=1)
    behind = record([upright_person(COCO19, 0, 3500), upright_person(COCO19, 20, 8500)], frame=2)
    found = subsets_of([alone, apart, behind])
    assert found["people"] == {"1 person": [0], "2 people": [1, 2, 3, 4]}
    assert found["distance"] == {"2 to 3 m": [0], "3 to 4 m": [3], "4 to 5 m": [1, 2], "over 8 m": [4]}
    assert found["overlap"]["alone"] == [0] and found["overlap"]["over 0.6"] == [1, 2]
    assert 3 not in found["overlap"]["over 0.6"], "the person in front has another root close to its own"
    assert "occlusion" not in found, "nothing is labelled as occluded"
    for kind, parts in found.items():
        assert sorted(sum(parts.values(), [])) == [0, 1, 2, 3, 4], kind


def test_a_kind_with_one_subset_is_left_out():
    records = [record([upright_person(COCO19, 0, 2500)], frame=i) for i in range(2)]
    assert subsets_of(records) == {}


def test_ignored_people_are_in_no_subset_but_count_as_neighbours():
    records = [
        record([upright_person(COCO19, 0, 3500), upright_person(COCO19, 20, 8500)]),
        record([upright_person(COCO19)], frame=1),
    ]
    records[0].ignore[1] = True
    found = subsets_of(records)
    assert "people" not in found, "one counted person on both"
    assert sorted(sum(found["overlap"].values(), [])) == [0, 2] and found["overlap"]["alone"] == [2]


def test_occlusion_is_a_share_of_the_labelled_joints():
    records = [record([upright_person(COCO19), upright_person(COCO19, 900)])]
    knees = [COCO19.index(f"{s}_{j}") for s in "lr" for j in ("knee", "ankle", "hip")]
    records[0].state[0, knees] = OCCLUDED
    truth = strict_truth(records, PANOPTIC15)
    occluded = occluded_joints(records, truth, PANOPTIC15)
    assert occluded.sum() == 6 and occluded[0, PANOPTIC15.index("l_knee")] and not occluded[1].any()
    assert subsets_of(records)["occlusion"] == {"no joint occluded": [1], "a quarter to half": [0]}


def test_a_subset_has_the_errors_of_its_people_and_no_precision():
    records = [
        record([upright_person(COCO19, -1000, 2500, 2 * i), upright_person(COCO19, 1000, 4500, 2 * i + 1)], frame=i)
        for i in range(4)
    ]
    wrong = joints_as(records, PANOPTIC15)
    neck = PANOPTIC15.index("neck")
    for people in wrong:
        people[1, neck, 0] += 130  # of those behind: 10 mm over the 13 other joints that count and the neck
    wrong[3] = wrong[3][1:]  # the person in front is missed on the last image
    results = score(annotations_of(records), predictions_of(records, wrong))
    table = {t.name: t for t in results.tables}["strict_distance"]
    columns = [name for name, _ in table.columns]
    assert "precision" not in columns
    near, far = (dict(zip(columns, table.rows[name], strict=True)) for name in ("2 to 3 m", "4 to 5 m"))
    assert (near["people"], near["recall"], far["people"], far["recall"]) == (4, 0.75, 4, 1)
    assert near["MPJPE mm"] == pytest.approx(0, abs=1e-3)
    assert far["MPJPE mm"] == pytest.approx(130 / 14, abs=1e-3)
    assert results.metrics["strict/mpjpe/distance/4 to 5 m"] == far["MPJPE mm"]


def test_visible_and_occluded_joints_have_separate_scores():
    records = scene()
    wrist = COCO19.index("l_wrist")
    wrong = joints_as(records, PANOPTIC15)
    for r, people in zip(records, wrong, strict=True):
        r.state[:, wrist] = OCCLUDED
        people[:, PANOPTIC15.index("l_wrist"), 1] += 200
    results = score(annotations_of(records), predictions_of(records, wrong))
    rows = {t.name: t for t in results.tables}["strict_visibility"].rows
    assert rows["visible"][1] == pytest.approx(0, abs=1e-3) and rows["occluded"][1] == pytest.approx(200, abs=1e-3)
    assert (rows["visible"][-1], rows["occluded"][-1]) == (1, 0), "PCK at 150 mm"
