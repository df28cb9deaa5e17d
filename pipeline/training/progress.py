"""How far a training is: epochs, optimiser steps and seconds, kept in checkpoints, and the budget in minutes."""

from __future__ import annotations

import time

import torch

from pipeline.training.optim import learning_rate_factor
from pipeline.training.optim_config import OptimConfig


class TrainingProgress:
    """Counters and clock of one training, over all restarts.

    Attributes:
        epoch: epochs finished.
        step: optimiser steps finished, over all epochs; those that were skipped count too.
        epoch_step: steps finished in the present epoch. With ``epoch`` it is the position in the training data.
        finished: all epochs are done or the budget is used up. It is part of the state: a restarted process has a
            smaller clock than the slowest worker had and could not recompute it.
    """

    def __init__(self, config: OptimConfig, steps_per_epoch: int) -> None:
        self.config = config
        self.total_steps = steps_per_epoch * config.epochs
        self.epoch = 0
        self.step = 0
        self.epoch_step = 0
        self.finished = False
        self._earlier_seconds = 0.0  # of earlier processes of the same training
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Training time so far, over all restarts; the time between two processes does not count."""
        return self._earlier_seconds + time.monotonic() - self._started

    def done(self, seconds: float) -> float:
        """Share of the training that is over, 0 to 1: of its steps or of its budget, whichever is larger."""
        share = self.step / self.total_steps
        if self.config.max_minutes is not None:
            share = max(share, seconds / (60 * self.config.max_minutes))
        return min(share, 1.0)

    def set_rates(self, optimizer: torch.optim.Optimizer, seconds: float) -> None:
        """Sets every group's learning rate for the next step; ``seconds`` is the slowest worker's clock."""
        factor = learning_rate_factor(self.config, self.step, self.epoch, self.done(seconds))
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def out_of_time(self, seconds: float) -> bool:
        """Whether the budget is used up."""
        return self.config.max_minutes is not None and seconds >= 60 * self.config.max_minutes

    def end_step(self) -> None:
        """Counts an optimiser step."""
        self.step += 1
        self.epoch_step += 1

    def end_epoch(self, seconds: float) -> None:
        """Counts an epoch, whole or cut short by the budget; ``seconds`` is the slowest worker's clock."""
        self.epoch += 1
        self.epoch_step = 0
        self.finished = self.epoch >= self.config.epochs or self.out_of_time(seconds)

    def state(self) -> dict[str, float]:
        """Plain numbers for a checkpoint."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "epoch_step": self.epoch_step,
            "seconds": self.seconds(),
            "finished": float(self.finished),
        }

    def restore(self, state: dict[str, float]) -> None:
        """Continues from what ``state`` returned."""
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.epoch_step = int(state.get("epoch_step", 0))  # older checkpoints were written at the end of epochs only
        self._earlier_seconds = float(state["seconds"])
        self.finished = bool(state["finished"])
        self._started = time.monotonic()
