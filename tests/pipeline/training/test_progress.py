"""Counters and budget of a training: learning rates, the share that is done, the end, and restarts."""

import dataclasses

import pytest
from torch import nn

from pipeline.training.optim import make_optimizer
from pipeline.training.optim_config import release
from pipeline.training.optim_config import small as small_optim
from pipeline.training.progress import TrainingProgress


def test_every_groups_rate_follows_the_schedule():
    config = dataclasses.replace(release(), warmup_steps=4)
    optimizer = make_optimizer(nn.Linear(2, 2), config)
    progress = TrainingProgress(config, steps_per_epoch=10)
    progress.step = 2
    progress.set_rates(optimizer, seconds=0.0)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.002 * 2 / 3, 0.004 * 2 / 3])
    progress.step, progress.epoch = 160, 16
    progress.set_rates(optimizer, seconds=0.0)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.0002, 0.0004])


def test_the_share_that_is_done_is_the_larger_of_steps_and_budget():
    progress = TrainingProgress(dataclasses.replace(small_optim(), epochs=10, max_minutes=2.0), steps_per_epoch=5)
    progress.step = 10
    assert progress.done(seconds=12.0) == pytest.approx(0.2)
    assert progress.done(seconds=60.0) == pytest.approx(0.5)
    assert progress.done(seconds=600.0) == 1.0
    assert not progress.out_of_time(119.9) and progress.out_of_time(120.0)
    endless = TrainingProgress(dataclasses.replace(small_optim(), epochs=10), steps_per_epoch=5)
    assert not endless.out_of_time(1e9) and endless.done(1e9) == 0.0


def test_a_training_is_finished_after_its_epochs_or_when_its_budget_is_used_up():
    by_epochs = TrainingProgress(dataclasses.replace(small_optim(), epochs=2, max_minutes=1.0), steps_per_epoch=5)
    by_epochs.end_epoch(seconds=1.0)
    assert not by_epochs.finished
    by_epochs.end_epoch(seconds=2.0)
    assert by_epochs.finished and by_epochs.epoch == 2
    by_clock = TrainingProgress(dataclasses.replace(small_optim(), epochs=2, max_minutes=1.0), steps_per_epoch=5)
    by_clock.end_epoch(seconds=61.0)
    assert by_clock.finished and by_clock.epoch == 1


def test_a_restart_counts_the_time_of_earlier_processes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pipeline.training.progress.time.monotonic", lambda: now[0])
    first = TrainingProgress(small_optim(), steps_per_epoch=5)
    first.step = 7
    now[0] += 30
    first.end_epoch(first.seconds())
    state = first.state()
    now[0] += 1000  # between two processes
    second = TrainingProgress(small_optim(), steps_per_epoch=5)
    second.restore(state)
    now[0] += 5
    assert (second.epoch, second.step, second.seconds(), second.finished) == (1, 7, 35.0, False)
