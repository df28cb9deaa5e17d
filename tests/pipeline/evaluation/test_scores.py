"""Scores of one evaluation as JSON."""

import json
import math
from dataclasses import replace

import pytest

from pipeline.evaluation.scores import Scores

SCORES = Scores(
    protocol="strict",
    split="panoptic/test",
    skeleton="panoptic15",
    data_fingerprint="d1",
    model_fingerprint="m1",
    train_fit=False,
    mpjpe_mm=90.0,
    recall=0.95,
    precision=0.9,
    baseline_mpjpe_mm=150.0,
)


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


def test_missing_fields_of_scores_are_named():
    with pytest.raises(ValueError, match=r"missing fields \['recall'\]"):
        Scores.from_json({k: v for k, v in SCORES.to_json().items() if k != "recall"})
