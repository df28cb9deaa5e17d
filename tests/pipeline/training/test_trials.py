"""What a sweep tries, and which values of its configuration are refused."""

import dataclasses
import math

import pytest

from pipeline.training.config import ModelChoice
from pipeline.training.trials import SweepConfig, draw_trials
from tests.pipeline.training.training_cases import SWEPT


def test_trials_are_drawn_from_the_seed_alone_within_their_ranges():
    config = SweepConfig(train=SWEPT, name="s", trials=40, update_layers=(0, 2), pose_weight=(0.5, 10.0), seed=1)
    trials = draw_trials(config)
    assert trials == draw_trials(config) and trials != draw_trials(dataclasses.replace(config, seed=2))
    assert draw_trials(dataclasses.replace(config, trials=5)) == trials[:5]
    assert [t.name for t in trials[:3]] == ["s-0", "s-1", "s-2"]
    assert trials[0].changes == {}, "the first trial is the unchanged training"
    assert [t.changes["update_layers"] for t in trials[1:5]] == [0, 2, 0, 2]
    drawn = [t.changes["pose_weight"] for t in trials[1:]]
    own = SWEPT.model.build().pose_weight
    assert min(drawn) >= 0.5 * own and max(drawn) <= 10.0 * own
    below = sum(weight < math.sqrt(0.5 * 10.0) * own for weight in drawn)
    assert 10 <= below <= 29, "log-uniform: half below the geometric mean"
    for trial in trials:
        model = dataclasses.replace(SWEPT.model, **trial.changes).build()
        assert model.layers == trial.changes.get("update_layers", 1)


def test_fields_that_are_not_swept_keep_their_values():
    config = SweepConfig(train=SWEPT, trials=3, centerness_weight=None, root_weight=None, update_layers=())
    assert [set(t.changes) for t in draw_trials(config)] == [set(), {"pose_weight"}, {"pose_weight"}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "a/b"}, "name = 'a/b', wanted 1 to 200 letters"),
        ({"name": ".."}, "name = '..', wanted 1 to 200 letters"),
        ({"trials": 0}, "trials = 0, wanted at least 1"),
        ({"pose_weight": (0.0, 1.0)}, r"pose_weight = \(0.0, 1.0\), wanted 0 < low < high, or None"),
        ({"root_weight": (2.0, 1.0)}, r"root_weight = \(2.0, 1.0\)"),
        (
            {"train": dataclasses.replace(SWEPT, model=ModelChoice(root_weight=0.0))},
            r"root_weight = \(0.25, 4.0\), but the training's own is 0; wanted None",
        ),
        ({"update_layers": (1, 4)}, "update_layers = 4, wanted 0 to 3"),
        ({"train": dataclasses.replace(SWEPT, model=ModelChoice(update="none"))}, "but update = 'none' has none"),
        ({"reduction": 1.0}, "reduction = 1.0, wanted above 1"),
        ({"grace_epochs": 0}, "grace_epochs = 0"),
        ({"max_concurrent": 0}, "max_concurrent = 0"),
        ({"no_progress_minutes": 0.0}, "no_progress_minutes = 0.0"),
    ],
)
def test_bad_values_are_refused_by_name(change, reason):
    with pytest.raises(ValueError, match=reason):
        SweepConfig(**{"train": SWEPT, **change})
