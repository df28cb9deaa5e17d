"""How a sweep stops trials, follows them and picks the best; whole sweeps run in tests/jobs."""

import dataclasses
import json
import shutil

import pytest
from ray.tune.schedulers import FIFOScheduler

from pipeline.training import sweep as sweep_module
from pipeline.training.optim_config import OptimConfig
from pipeline.training.sweep import SweepMonitor, SweepResult, sweep
from pipeline.training.trials import SweepConfig, Trial, draw_trials, sweep_presets
from pipeline.training.validation import SELECT_BY
from tests.pipeline.training.training_cases import SWEPT


def test_presets_are_the_usual_trainings():
    for name, (text, config) in sweep_presets().items():
        assert text and len(draw_trials(config)) == 16, name


class FakeTrial:
    """The attributes of Tune's trial that a scheduler and a callback read."""

    def __init__(self, name):
        self.trial_id, self.config = name, {"name": name}


def report(epoch, score):
    return {"epoch": epoch, SELECT_BY: score, "checkpoint_path": f"/at/{epoch}"}


def test_trials_with_a_larger_error_stop_early_but_never_in_their_last_epoch():
    config = SweepConfig(train=SWEPT, grace_epochs=1, reduction=3.0)  # rungs at 1 and 3; one at 9 would be the last
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
    assert scheduler.on_trial_result(None, late, report(9, 500.0)) == "CONTINUE", "its best checkpoint is not yet kept"
    for epochs in (1, 9):
        short = dataclasses.replace(SWEPT, optim=OptimConfig(epochs=epochs))
        assert isinstance(sweep_module._scheduler(SweepConfig(train=short, grace_epochs=9)), FIFOScheduler)


def test_the_monitor_keeps_the_best_epoch_of_every_trial():
    monitor = SweepMonitor([Trial("a", {}), Trial("b", {})], patience=1e9)
    for epoch, score in ((1, 3.0), (2, 1.0), (3, 2.0)):
        monitor.on_trial_result(0, [], FakeTrial("a"), report(epoch, score))
    monitor.on_trial_complete(0, [], FakeTrial("a"))
    best = monitor.trials["a"]
    assert (best.epoch, best.score, best.checkpoint) == (2, 1.0, "/at/2")
    assert monitor.trials["b"].score is None and not monitor.stop_all()
    assert sorted(monitor.trials.values(), key=Trial.sort_key)[0].name == "a"


def test_a_sweep_without_progress_stops(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipeline.training.sweep.time.monotonic", lambda: now[0])
    monitor = SweepMonitor([Trial("a", {})], patience=60.0)
    now[0] = 59.0
    assert not monitor.stop_all()
    monitor.on_trial_result(0, [], FakeTrial("a"), report(1, 1.0))
    now[0] = 118.0
    assert not monitor.stop_all() and not monitor.stalled
    now[0] = 120.0
    assert monitor.stop_all() and monitor.stalled


def test_the_outcome_of_a_trial_is_read_from_its_own_folder(tmp_path):
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
    copy = shutil.copytree(prepared, tmp_path / "no val")
    manifest = json.loads((prepared / "manifest.json").read_text())
    del manifest["splits"]["val"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="no val has no val split, wanted one to compare trials on"):
        sweep(SweepConfig(train=dataclasses.replace(SWEPT, data=(str(copy),))))
