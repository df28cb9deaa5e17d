"""What a sweep tries and how it judges; whole sweeps run in tests/jobs."""

import dataclasses
import json
import math

import pytest
from ray.tune.schedulers import FIFOScheduler

from pipeline.training import sweep as sweep_module
from pipeline.training.config import IngestConfig, ModelChoice, TrainConfig
from pipeline.training.fit import SELECT_BY
from pipeline.training.optim import OptimConfig
from pipeline.training.sweep import SweepConfig, SweepResult, Trial, draw_trials, sweep, sweep_presets

TRAIN = TrainConfig(
    model=ModelChoice("small", backbone_width=8),
    ingest=IngestConfig(recipe="small", width=96, height=54, batch_size=8),
    optim=OptimConfig(epochs=9),
)


def test_trials_are_drawn_from_the_seed_alone_within_their_ranges():
    config = SweepConfig(train=TRAIN, name="s", trials=40, update_layers=(0, 2), pose_weight=(0.5, 10.0), seed=1)
    trials = draw_trials(config)
    assert trials == draw_trials(config) and trials != draw_trials(dataclasses.replace(config, seed=2))
    assert draw_trials(dataclasses.replace(config, trials=5)) == trials[:5]
    assert [t.name for t in trials[:3]] == ["s-0", "s-1", "s-2"]
    assert trials[0].changes == {}, "the training as it stands is what the others have to beat"
    assert [t.changes["update_layers"] for t in trials[1:5]] == [0, 2, 0, 2]
    drawn = [t.changes["pose_weight"] for t in trials[1:]]
    own = TRAIN.model.build().pose_weight
    assert min(drawn) >= 0.5 * own and max(drawn) <= 10.0 * own
    below = sum(weight < math.sqrt(0.5 * 10.0) * own for weight in drawn)
    assert 10 <= below <= 29, "log-uniform: half below the geometric mean"
    for trial in trials:
        model = dataclasses.replace(TRAIN.model, **trial.changes).build()
        assert model.layers == trial.changes.get("update_layers", 1)


def test_what_is_not_swept_stays():
    config = SweepConfig(train=TRAIN, trials=3, centerness_weight=None, root_weight=None, update_layers=())
    assert [set(t.changes) for t in draw_trials(config)] == [set(), {"pose_weight"}, {"pose_weight"}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "a/b"}, "name = 'a/b', wanted a name without '/'"),
        ({"trials": 0}, "trials = 0, wanted at least 1"),
        ({"pose_weight": (0.0, 1.0)}, r"pose_weight = \(0.0, 1.0\), wanted 0 < low < high, or None"),
        ({"root_weight": (2.0, 1.0)}, r"root_weight = \(2.0, 1.0\)"),
        (
            {"train": dataclasses.replace(TRAIN, model=ModelChoice(root_weight=0.0))},
            r"root_weight = \(0.25, 4.0\), but the training's own is 0; wanted None",
        ),
        ({"update_layers": (1, 4)}, "update_layers = 4, wanted 0 to 3"),
        ({"train": dataclasses.replace(TRAIN, model=ModelChoice(update="none"))}, "but update = 'none' has none"),
        ({"reduction": 1.0}, "reduction = 1.0, wanted above 1"),
        ({"grace_epochs": 0}, "grace_epochs = 0"),
        ({"max_concurrent": 0}, "max_concurrent = 0"),
        ({"no_progress_minutes": 0.0}, "no_progress_minutes = 0.0"),
    ],
)
def test_options_are_refused_by_name(change, reason):
    with pytest.raises(ValueError, match=reason):
        SweepConfig(**{"train": TRAIN, **change})


def test_presets_are_the_usual_trainings():
    for name, (text, config) in sweep_presets().items():
        assert text and len(draw_trials(config)) == 16, name


class FakeTrial:
    """As much of Tune's trial as a scheduler and a callback look at."""

    def __init__(self, name):
        self.trial_id, self.config = name, {"name": name}


def report(epoch, score):
    return {"epoch": epoch, SELECT_BY: score, "checkpoint_path": f"/at/{epoch}"}


def test_trials_that_fall_behind_stop_but_never_in_their_last_epoch():
    config = SweepConfig(train=TRAIN, grace_epochs=1, reduction=3.0)  # rungs at 1 and 3; one at 9 would be the last
    scheduler = sweep_module._scheduler(config)
    scheduler.set_search_properties(SELECT_BY, "min")
    good, bad, late = FakeTrial("good"), FakeTrial("bad"), FakeTrial("late")
    for trial in (good, bad, late):
        scheduler.on_trial_add(None, trial)
    decisions = [scheduler.on_trial_result(None, good, report(epoch, 100.0)) for epoch in range(1, 10)]
    assert set(decisions) == {"CONTINUE"}
    assert scheduler.on_trial_result(None, bad, report(1, 99.0)) == "CONTINUE"
    assert scheduler.on_trial_result(None, bad, report(2, 500.0)) == "CONTINUE"
    assert scheduler.on_trial_result(None, bad, report(3, 500.0)) == "STOP"
    decisions = [scheduler.on_trial_result(None, late, report(epoch, 98.0)) for epoch in range(1, 9)]
    assert set(decisions) == {"CONTINUE"}
    assert scheduler.on_trial_result(None, late, report(9, 500.0)) == "CONTINUE", "its best epoch is yet to be kept"
    for epochs in (1, 9):
        short = dataclasses.replace(TRAIN, optim=OptimConfig(epochs=epochs))
        assert isinstance(sweep_module._scheduler(SweepConfig(train=short, grace_epochs=9)), FIFOScheduler)


def test_the_best_epoch_of_every_trial_is_remembered():
    watch = sweep_module._Watch([Trial("a", {}), Trial("b", {})], patience=1e9)
    for epoch, score in ((1, 3.0), (2, 1.0), (3, 2.0)):
        watch.on_trial_result(0, [], FakeTrial("a"), report(epoch, score))
    watch.on_trial_complete(0, [], FakeTrial("a"))
    best = watch.trials["a"]
    assert (best.epoch, best.score, best.checkpoint) == (2, 1.0, "/at/2")
    assert watch.trials["b"].score is None and not watch.stop_all()
    assert sorted(watch.trials.values(), key=Trial.key)[0].name == "a"


def test_a_sweep_in_which_nothing_moves_gives_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipeline.training.sweep.time.monotonic", lambda: now[0])
    watch = sweep_module._Watch([Trial("a", {})], patience=60.0)
    now[0] = 59.0
    assert not watch.stop_all()
    watch.on_trial_result(0, [], FakeTrial("a"), report(1, 1.0))
    now[0] = 118.0
    assert not watch.stop_all() and not watch.stalled
    now[0] = 120.0
    assert watch.stop_all() and watch.stalled


def test_what_became_of_a_trial_is_read_from_its_own_folder(tmp_path):
    (tmp_path / "a").mkdir()
    metrics = {"epoch": 4.0, SELECT_BY: 7.0}
    (tmp_path / "a" / "finished.json").write_text(json.dumps({"run_id": "r", "metrics": metrics}))
    seen = Trial("a", {}, epoch=6, score=9.0, checkpoint="elsewhere")  # since a restart
    finished = sweep_module._outcome(seen, str(tmp_path), None)
    assert (finished.status, finished.epoch, finished.score) == ("finished", 4, 7.0)
    assert finished.checkpoint == f"{tmp_path}/a/best"
    stopped = sweep_module._outcome(
        Trial("b", {}, "running", 1, 8.0, "without/scheme/b/checkpoint_1"), str(tmp_path), None
    )
    assert (stopped.status, stopped.checkpoint) == ("stopped", f"{tmp_path}/b/checkpoint_1")
    failed = sweep_module._outcome(Trial("b", {}), str(tmp_path), RuntimeError("no\nluck"))
    assert failed.status == "failed: no luck" and "not measured" in failed.line()


def test_the_summary_names_the_best_trial_and_its_checkpoint():
    best = Trial("s-1", {"pose_weight": 2.5, "update_layers": 2}, "finished", 3, 101.26)
    trials = (best, Trial("s-0", {}, "stopped"))
    lines = SweepResult("/runs/s/best", "abc", trials, finished_before=False).summary().splitlines()
    assert lines[-1] == "best trial s-1: /runs/s/best"
    assert lines[1] == "  s-1: 101.3 mm in epoch 3, finished; pose_weight 2.5, update_layers 2"
    assert "nothing to do" in SweepResult("/", "", trials, finished_before=True).summary()


def test_data_without_a_val_split_cannot_be_swept_on(prepared, tmp_path):
    copy = tmp_path / "no val"
    copy.mkdir()
    for path in prepared.iterdir():
        (copy / path.name).symlink_to(path)
    manifest = json.loads((prepared / "manifest.json").read_text())
    del manifest["splits"]["val"]
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="no val has no val split, wanted one to compare trials on"):
        sweep(SweepConfig(train=dataclasses.replace(TRAIN, data=(str(copy),))))
