"""Everything that an optimiser step changes, and its way into a checkpoint and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from das.checkpoint import load_criterion, load_training_state, save_criterion, save_model, save_training_state
from das.model import DAS
from das.model_info import ModelInfo
from das.train_step import TrainStep
from pipeline.training.optim import WeightAverage, autocast_type, make_optimizer, step_if
from pipeline.training.optim_config import OptimConfig
from pipeline.training.progress import TrainingProgress


@dataclass
class TrainingState:
    """Model, criterion, optimiser and counters of one worker.

    Weights are equal on all workers after every step. Running statistics of batch norm are each worker's own until
    ``share``.

    Attributes:
        step: model and criterion with the weights of the last step.
        optimizer: over the parameters of both.
        scaler: loss scale of fp16; does nothing otherwise.
        average: moving average of the model's weights, or None without averaging.
        progress: counters and clock.
        amp: type of automatic mixed precision, or None for float32.
    """

    step: TrainStep
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    progress: TrainingProgress
    amp: torch.dtype | None

    @classmethod
    def new(
        cls, step: TrainStep, config: OptimConfig, progress: TrainingProgress, device: torch.device
    ) -> TrainingState:
        """The state before the first step; ``step`` is on its device and has its initial weights."""
        amp = autocast_type(config.amp, device)
        return cls(
            step,
            make_optimizer(step, config),
            torch.amp.GradScaler(device.type, init_scale=512.0, enabled=amp == torch.float16),
            WeightAverage(step.model, config.ema_decay) if config.ema_decay else None,
            progress,
            amp,
        )

    @property
    def best_weights(self) -> DAS:
        """The model that is validated and kept: the moving average, or the last step's weights without one."""
        return self.step.model if self.average is None else cast(DAS, self.average.module)

    def update(self, clip_norm: float, keys: Sequence[str]) -> torch.Tensor:
        """One optimiser step from the gradients that are in the parameters; clears them.

        Gradients that are infinite or NaN change nothing: the step is counted and left out. With fp16 the scaler does
        so, and halves its scale. Whether it was skipped is known on the device only; asking would wait for the GPU.

        Args:
            clip_norm: largest L2 norm of the gradient.
            keys: of this worker's samples.

        Returns:
            The gradient's norm before clipping, a scalar on the device.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.step.parameters(), clip_norm)
        finite = norm.isfinite()
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            step_if(finite, self.optimizer)
        if self.average is not None:
            self.average.update_if(finite, self.step.model)
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.end_step(keys)
        return norm

    def share(self, rank: int) -> None:
        """Copies rank 0's buffers to all workers, and gives it their checksums; all of them must call it together.

        Batch norm's running statistics are those of each worker's own images. Rank 0's are saved, so they are the ones
        to validate with: in the model of the last step, and in the moving average.
        """
        modules = [self.step] if self.average is None else [self.step, self.average]
        for buffer in (buffer for module in modules for buffer in module.buffers()):
            dist.broadcast(buffer, src=0)
        self.progress.share_samples(rank)

    def save(self, folder: str | Path, info: ModelInfo) -> None:
        """Writes a whole checkpoint: the model that is kept, the criterion, and what `restore` needs beyond them."""
        save_model(folder, self.best_weights, info)
        save_criterion(folder, self.step.criterion)
        state: dict[str, Any] = {
            "model": self.step.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": self.progress.state(),
        }
        save_training_state(folder, state)

    def restore(self, folder: str | Path, rank: int = 0) -> None:
        """Continues from a checkpoint that ``save`` wrote.

        Raises:
            ValueError: a file is missing or unreadable.
            RuntimeError: it is of another architecture.
        """
        state = load_training_state(folder)
        self.step.model.load_state_dict(state["model"])
        load_criterion(folder, self.step.criterion)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = True  # checkpoints of before say None, and a bad step would not be skipped
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.progress.restore(state["progress"], rank)
