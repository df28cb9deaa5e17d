"""The gate's decisions and reasons from arrays, and gates as files."""

import math
from dataclasses import replace

import numpy as np
import pytest

from das.metrics.bootstrap import Ratio, blocks
from pipeline.evaluation.scores import Evidence, Slice
from pipeline.registry.gate import Gate, Verdict, paired_differences
from tests.pipeline.evaluation.evaluation_cases import SCORES

SEQUENCES, BLOCKS, PEOPLE = 4, 10, 20


def evidence(
    error=90.0,
    recall=0.95,
    precision=0.9,
    by_sequence=(0, 0, 0, 0),
    blocks_of_each=BLOCKS,
    noise=2.0,
    people_of=(PEOPLE,) * SEQUENCES,
    **named,
):
    """A model with this mean error (mm) in all blocks, more by sequence; all models share a block's difficulty."""
    n = SEQUENCES * blocks_of_each
    sequence = np.repeat([f"seq{i}" for i in range(SEQUENCES)], blocks_of_each)
    frame = np.tile(np.arange(blocks_of_each) * 300, SEQUENCES)
    difficult = np.random.default_rng(0).normal(0, 30, n)  # shared by all models
    own = np.random.default_rng(abs(hash((error, recall))) % 2**32).normal(0, noise, n)
    errors = error + difficult + own + np.repeat(by_sequence, blocks_of_each)
    people = np.repeat(np.asarray(people_of, float), blocks_of_each)
    found, predicted = people * recall, people * recall / precision
    metrics = {
        "mpjpe_with_misses": Ratio(errors * people, people),
        "mpjpe": Ratio(errors * found, found),
        "root_error": Ratio(errors * found, found),
        "f1": Ratio(2 * found, people + predicted),
        "recall": Ratio(found, people),
        "precision": Ratio(found, predicted),
    }
    subsets = {
        name: Slice(int(people[sequence == name].sum()), {k: _only(v, sequence == name) for k, v in metrics.items()})
        for name in np.unique(sequence)
    }
    scores = replace(SCORES, mpjpe_mm=metrics["mpjpe"].value, recall=recall, precision=precision, **named)
    return Evidence(scores, blocks(sequence, frame, 30.0), metrics, {"sequence": subsets})


def _only(score, images):
    return Ratio(np.where(images, score.numerator, 0.0), np.where(images, score.denominator, 0.0))


def decide(candidate, champion, gate=None):
    return Verdict((gate or Gate()).compare(candidate, champion))


# ---- against the champion ----


def test_a_better_candidate_passes_and_the_reason_has_the_difference_with_its_interval():
    verdict = decide(evidence(85.0), evidence(90.0))
    assert verdict.passed
    first = verdict.checks[0].text
    assert first.startswith("mpjpe_with_misses ") and "is better than the champion's" in first
    assert "95 %, 40 blocks of frames" in first and str(verdict).startswith("promoted: mpjpe_with_misses")
    change = paired_differences(evidence(85.0), evidence(90.0))["mpjpe_with_misses"]
    assert change.low < -5 < change.high < 0  # the truth is inside, and zero is not


def test_a_worse_candidate_is_refused_with_every_reason_and_an_equal_one_too():
    worse = decide(evidence(99.0), evidence(90.0))
    assert not worse.passed and "is not better than the champion's" in str(worse)
    assert "4 of 4 sequence subsets" in str(worse)
    same = evidence(90.0)
    equal = decide(same, same)
    assert not equal.passed and len(equal.reasons) == 1 and "difference +0.00 mm" in equal.reasons[0]


def test_a_gain_that_could_be_chance_is_refused():
    noisy = decide(evidence(89.8, noise=20.0), evidence(90.0, noise=20.0))
    assert not noisy.passed and "is not better" in str(noisy)


def test_a_smaller_error_with_lost_people_or_more_false_alarms_is_refused():
    lost = decide(evidence(80.0, recall=0.9), evidence(90.0, recall=0.95))
    assert not lost.passed and "f1 0.9 is perhaps worse than the champion's by more than 0.01" in str(lost)
    alarms = decide(evidence(80.0, precision=0.8), evidence(90.0))
    assert not alarms.passed and "f1 0.8686 is perhaps worse" in str(alarms)
    assert decide(evidence(80.0, recall=0.945), evidence(90.0, recall=0.95)).passed  # within the margin
    # Another score threshold exchanges one for the other: neither decides alone.
    assert decide(evidence(80.0, recall=0.93, precision=0.92), evidence(90.0)).passed


@pytest.mark.parametrize(("name", "margin", "swing"), [("f1", 0.01, 0.08), ("mpjpe", 5.0, 0.5)])
def test_a_guarded_metric_that_may_be_worse_by_more_than_its_margin_is_refused(name, margin, swing):
    """The mean is kept, but it goes up and down from block to block: a loss of the margin cannot be excluded."""
    champion, candidate = evidence(90.0), evidence(80.0)
    kept = champion.metrics[name]
    up_and_down = np.tile([1 + swing, 1 - swing], SEQUENCES * BLOCKS // 2)
    unsure = Ratio(kept.numerator * up_and_down, kept.denominator)
    candidate = replace(candidate, metrics={**candidate.metrics, name: unsure})
    change = paired_differences(candidate, champion)[name]
    assert change.low < -margin and change.high > margin
    verdict = decide(candidate, champion, Gate(guards={name: margin}, slices=()))
    (reason,) = verdict.reasons
    assert not verdict.passed and f"is perhaps worse than the champion's by more than {margin:g}: " in reason
    worse = -change.low if name == "f1" else change.high
    assert decide(candidate, champion, Gate(guards={name: 1.01 * worse}, slices=())).passed


def test_no_subset_may_get_worse_by_more_than_the_margin():
    champion = evidence(90.0)
    lost = evidence(80.0, by_sequence=(0, 0, 0, 20))
    verdict = decide(lost, champion)
    assert not verdict.passed
    (reason,) = verdict.reasons
    assert "in 1 of 4 sequence subsets: seq3 +" in reason
    assert decide(lost, champion, Gate(slice_margin=0.3)).passed
    few = decide(lost, champion, Gate(slice_people=BLOCKS * PEOPLE + 1))
    assert few.passed and "no sequence has 201 people to compare by" in str(few)


def test_with_few_blocks_every_sequence_must_improve():
    few = {"blocks_of_each": 1, "noise": 0.0, "people_of": (100, 100, 100, 1)}
    gate = Gate(slices=())
    champion = evidence(90.0, **few)
    split = decide(evidence(80.0, by_sequence=(0, 0, 0, 11), **few), champion, gate)
    assert not split.passed and "is not surely better than the champion's" in str(split)
    assert "within these sequences only" in str(split) and "must improve, but seq3 does not" in str(split)
    every_one = decide(evidence(80.0, by_sequence=(0, 0, 0, 9), **few), champion, gate)
    assert every_one.passed and "within these sequences only" in str(every_one)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("split", "panoptic/val", "split is panoptic/val, the champion's scores are of panoptic/test"),
        ("skeleton", "muco21", "skeleton is muco21, the champion's scores are of panoptic15"),
        ("data_fingerprint", "d2", "data_fingerprint is d2, the champion's scores are of d1"),
        ("protocol", "panoptic-release", "protocol is panoptic-release, the gate takes strict"),
        ("train_fit", True, "the scores are train-fit"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused_however_good(name, value, reason):
    verdict = decide(evidence(50.0, **{name: value}), evidence(90.0))
    assert not verdict.passed and reason in str(verdict) and "better" not in str(verdict)


def test_a_gate_file_sets_another_primary_metric_and_other_guards():
    gate = Gate().changed_by({"primary": "recall", "guards": {"mpjpe": 5.0}, "slices": []})
    found = decide(evidence(92.0, recall=0.97), evidence(90.0, recall=0.95), gate)
    assert found.passed and found.checks[0].text.startswith("recall 0.97 is better than the champion's 0.95")
    assert [check.name for check in found.checks] == ["recall improves", "mpjpe is kept"]
    assert not decide(evidence(97.0, recall=0.97), evidence(90.0, recall=0.95), gate).passed


# ---- the first version ----


def first(**change):
    return Verdict(Gate().compare(replace(evidence(), scores=replace(SCORES, **change)), None))


def test_the_first_version_must_beat_the_mean_pose_and_the_least_f1():
    assert first().passed
    undefined = "MPJPE with misses is undefined: there is no mean pose, or nobody to find"
    for change, reason in (
        (
            {"mpjpe_with_misses_mm": 135.0},
            "MPJPE with misses 135 mm is not better than 135 mm, 0.9 of the mean pose's 150 mm",
        ),
        ({"recall": 0.76}, "F1 0.824096 is not better than 0.85, the minimum"),
        ({"precision": 0.7}, "F1 0.806061 is not better than 0.85, the minimum"),
        ({"mpjpe_with_misses_mm": math.nan}, undefined),
        ({"baseline_mpjpe_with_misses_mm": math.nan}, undefined),
        ({"recall": 0.0, "precision": 0.0}, "F1 0 is not better than 0.85, the minimum"),
    ):
        verdict = first(**change)
        assert not verdict.passed and verdict.reasons == (reason,)
    assert not first(train_fit=True).passed


def test_the_description_of_a_version_lists_every_check():
    text = first(recall=0.5).markdown()
    assert text.startswith("**Refused**") and text.count("\n- passed") == 1
    assert "- **failed**, F1: F1 0.642857 is not better than 0.85, the minimum" in text


# ---- gates as files ----


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"min_f": 0.5}, r"unknown fields \['min_f'\], known: protocol, primary"),
        ({"primary": "loss"}, "primary = 'loss', wanted one of mpjpe_with_misses"),
        ({"guards": {"recal": 0.1}}, "guards = {'recal': 0.1}, wanted margins of"),
        ({"guards": {"recall": -0.1}}, "wanted margins of at least 0"),
        ({"guards": ["recall"]}, r"guards = \['recall'\], wanted an object"),
        ({"slices": "joint"}, "slices = 'joint', wanted a list"),
        ({"slices": ["weather"]}, "wanted some of activity"),
        ({"slice_margin": "5 %"}, "slice_margin = '5 %', wanted a number of at least 0"),
        ({"latency_margin": True}, "latency_margin = True, wanted a number or null"),
        ({"batch_images": 0}, "batch_images = 0, wanted at least 1"),
        ([], r"found \[\], wanted an object of fields"),
    ],
)
def test_a_bad_gate_is_refused_by_field(value, message):
    with pytest.raises(ValueError, match=message):
        Gate().changed_by(value)
