"""How far a training is: epochs, optimiser steps and seconds, kept in checkpoints, and the budget in minutes."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable

import torch
import torch.distributed as dist

from pipeline.training.optim import learning_rate_factor
from pipeline.training.optim_config import OptimConfig


class TrainingProgress:
    """Counters and clock of one training, over all restarts.

    Attributes:
        epoch: epochs finished.
        step: optimiser steps finished, over all epochs; those that were skipped count too.
        epoch_step: steps finished in the present epoch. With ``epoch`` it is the position in the training data.
        samples: checksum of this worker's samples so far, each with its epoch and step. Summed over the workers, it is
            equal for two trainings that saw the same images in the same steps, whatever the number of workers.
        finished: all epochs are done or the budget is used up. It is part of the state: a restarted process has a
            smaller clock than the slowest worker had and could not recompute it.
    """

    def __init__(self, config: OptimConfig, steps_per_epoch: int) -> None:
        self.config = config
        self.total_steps = steps_per_epoch * config.epochs
        self.epoch = 0
        self.step = 0
        self.epoch_step = 0
        self.samples = 0
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

    def end_step(self, keys: Iterable[str] = ()) -> None:
        """Counts an optimiser step of samples with these keys."""
        for key in keys:
            self.samples += zlib.crc32(f"{self.epoch} {self.epoch_step} {key}".encode())
        self.samples %= 1 << 32
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
            "samples": self.samples,
            "seconds": self.seconds(),
            "finished": float(self.finished),
        }

    def share_samples(self, rank: int) -> None:
        """Moves the checksums of all workers to rank 0, whose state is saved; all workers must call it together."""
        total = torch.tensor(self.samples)
        dist.all_reduce(total)
        self.samples = int(total) % (1 << 32) if rank == 0 else 0

    def restore(self, state: dict[str, float], rank: int = 0) -> None:
        """Continues from what ``state`` returned."""
        self.samples = int(state.get("samples", 0)) if rank == 0 else 0
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.epoch_step = int(state.get("epoch_step", 0))  # older checkpoints were written at the end of epochs only
        self._earlier_seconds = float(state["seconds"])
        self.finished = bool(state["finished"])
        self._started = time.monotonic()
