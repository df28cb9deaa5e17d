"""The text of a run's description, from plain values."""

from dataclasses import replace

import pytest

from pipeline.tracking.run_description import HEADLINE_TAG, Input, RunDescription, TrialSummary

TRAINING = RunDescription(
    name="das-panoptic",
    status="RUNNING",
    began_ms=1_700_000_000_000,
    ended_ms=None,
    tags={"das.host": "head", "das.code_version": "0.1.0+git.abc"},
    params={"model.variant": "small", "note": "x"},
    metrics={"train/loss": 1.5, "val/mpjpe": float("nan")},
)


def test_a_running_training():
    text = TRAINING.text()
    assert text.startswith(
        "**Training `das-panoptic` is running** (began 2023-11-14 22:13 UTC on head, code 0.1.0+git.abc)"
    )
    assert "| `val/mpjpe` | - |\n| `train/loss` | 1.5 |" in text  # the most important metric first
    assert "**Settings:** `model.variant = small`" in text and "note" not in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "after 5 s"), (89, "after 89 s"), (600, "after 10 min"), (7200, "after 2.0 h")]
)
def test_the_duration_has_a_readable_unit(seconds, words):
    ended = replace(TRAINING, status="FINISHED", ended_ms=TRAINING.began_ms + 1000 * seconds)
    assert f"finished {words}**" in ended.text()


def test_no_section_without_content():
    empty = RunDescription("a", "FINISHED", 0, 1000, {}, {}, {}).text()
    assert empty == "**Training `a` finished after 1 s** (began 1970-01-01 00:00 UTC)"


def test_a_restart_with_other_settings_and_the_reason_of_a_stop_are_shown():
    tags = {"das.changed.optim.epochs": "20", "das.stopped": "fell behind"}
    text = replace(TRAINING, status="KILLED", tags=tags).text()
    assert "**Why it ended:** fell behind" in text and "`optim.epochs` to `20`" in text
    assert "Why it ended" not in replace(TRAINING, status="FINISHED", tags=tags).text()


def test_text_cannot_break_its_table_or_code():
    odd = Input("x", "test", "f" * 64, "/a|b`c\nd")
    assert "| x | test | `ffffffffffff` | `/a/b'c d` |" in replace(TRAINING, inputs=(odd,)).text()


def test_many_trials_are_cut_to_the_best_ones():
    trials = tuple(TrialSummary(f"t{i}", "FINISHED", {"val/mpjpe_with_misses": 100.0 - i}) for i in range(30))
    text = replace(TRAINING, trials=(*trials, TrialSummary("lost", "FAILED", {}))).text()
    assert "Sweep of 31 trials" in text and "| t29 |" in text and "| t5 |" not in text
    assert "| lost |" not in text and "11 more trials" in text


def test_numbers_measured_on_training_data_are_shown_and_marked_as_such():
    metrics = {"train-fit/strict/mpjpe": 40.0, "train-fit/oks/ap": 0.5, "train-fit/strict/joint/nose": 1.0}
    tags = {HEADLINE_TAG: "strict/mpjpe, oks/ap"}
    text = replace(TRAINING, name="evaluation/x", metrics=metrics, tags=tags).text()
    assert "| `train-fit/strict/mpjpe` | 40 |\n| `train-fit/oks/ap` | 0.5 |" in text and "nose" not in text
    assert "**train-fit:** measured on images that may be training data" in text
    assert "train-fit" not in replace(TRAINING, name="evaluation/x", metrics={"oks/ap": 0.5}).text()


def test_a_benchmark():
    metrics = {"model/parameters": 2e6, "cpu/latency_ms_median": 31.0, "cpu/stage_ms/head": 3.0}
    described = replace(TRAINING, name="benchmark/x", status="FINISHED", metrics=metrics, files=("benchmark.html",))
    text = described.text()
    assert text.startswith("**Benchmark `benchmark/x` finished")
    assert "| `model/parameters` | 2e+06 |\n| `cpu/latency_ms_median` | 31 |" in text
    assert "`benchmark.html`: the report" in text


def test_the_next_command():
    trained = replace(TRAINING, files=("checkpoint/", "params.json"), run_id="7f")
    assert trained.text().endswith("**Next:** `das evaluate --model runs:/7f/checkpoint --data PREPARED`")
    tags = {"das.model": "runs:/7f/checkpoint"}
    scored = replace(TRAINING, name="evaluation/x", files=("scores.json",), tags=tags, run_id="8a")
    assert scored.text().endswith("**Next:** `das promote --model runs:/7f/checkpoint --scores 8a --name NAME`")
    assert "**Next:**" not in TRAINING.text()
    fitted = replace(scored, metrics={"train-fit/strict/mpjpe": 1.0})
    assert "**Next:**" not in fitted.text(), "not for promotion"
