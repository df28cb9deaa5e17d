"""Scores of one evaluation as JSON."""

import json
import math
from dataclasses import replace

import pytest

from pipeline.evaluation.scores import Scores
from tests.pipeline.evaluation.evaluation_cases import SCORES


def test_scores_round_trip_as_json_with_null_for_nan():
    scores = replace(SCORES, mpjpe_mm=math.nan)
    text = json.dumps(scores.to_json(), allow_nan=False)
    again = Scores.from_json(json.loads(text))
    assert math.isnan(again.mpjpe_mm) and replace(again, mpjpe_mm=1.0) == replace(scores, mpjpe_mm=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recall": 1.5}, "recall = 1.5, wanted nan or 0 to 1"),
        ({"mpjpe_mm": -1.0}, "mpjpe_mm = -1.0"),
        ({"data_fingerprint": ""}, "data_fingerprint = ''"),
        ({"train_fit": "no"}, "train_fit = 'no'"),
        ({"pck": 1.0}, r"unknown fields \['pck'\]"),
    ],
)
def test_bad_scores_are_refused_by_field(change, message):
    with pytest.raises(ValueError, match=message):
        Scores.from_json({**SCORES.to_json(), **change})


def test_scores_from_before_errors_with_misses_are_read_without_them():
    value = {name: x for name, x in SCORES.to_json().items() if "with_misses" not in name}
    found = Scores.from_json(value)
    assert math.isnan(found.mpjpe_with_misses_mm) and math.isnan(found.baseline_mpjpe_with_misses_mm)
    assert (found.mpjpe_mm, found.recall) == (SCORES.mpjpe_mm, SCORES.recall)


def test_missing_fields_of_scores_are_named():
    with pytest.raises(ValueError, match=r"missing fields \['recall'\]"):
        Scores.from_json({k: v for k, v in SCORES.to_json().items() if k != "recall"})
