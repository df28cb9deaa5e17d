"""How a model is optimised, as settings; optim.py makes the optimiser from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from das.fields import at_least, check_values


@dataclass(frozen=True)
class OptimConfig:
    """How a model is optimised. Defaults are the release's Panoptic schedule, with our weight averaging."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum (release) or AdamW (small models)."""
    lr: float = 0.002
    """Base learning rate, for the release's 16 images a step."""
    momentum: float = 0.9
    """SGD momentum."""
    weight_decay: float = 1e-4
    """Weight decay; biases have none."""
    bias_lr_factor: float = 2.0
    """Learning rate of biases relative to weights (norm layers and deformable offsets stay at 1)."""
    warmup_steps: int = 250
    """Linear warm-up, in optimiser steps."""
    warmup_start: float = 1 / 3
    """Fraction of the learning rate at the first step."""
    schedule: Literal["step", "cosine"] = "step"
    """Drops by 10 after `drop_epochs`, or a half cosine to 0."""
    drop_epochs: tuple[int, ...] = (16, 20)
    """Epochs after which schedule step divides the rate by 10."""
    epochs: int = 22
    """Passes over the training data."""
    max_minutes: float | None = None
    """Time budget: training ends, and cosine reaches 0, after so many minutes or after `epochs`, whichever is first."""
    clip_norm: float = 35.0
    """Largest L2 norm of the gradient."""
    max_bad_steps: int = 10
    """Steps in a row with an infinite or NaN loss or gradient, each skipped and named, before the training stops."""
    amp: Literal["none", "auto", "bf16", "fp16"] = "none"
    """Automatic mixed precision; auto is bf16 where the processor has it and none elsewhere, because emulated bf16 is
    ten times slower; fp16 uses a loss scale that starts at 512."""
    tf32: bool = True
    """Float32 products of a GPU with 10 bits of mantissa, which is faster; off: all 23."""
    compile: bool = False
    """Compile the model's forward pass (torch.compile): it pays in long trainings; for GPUs alone."""
    sync_norms: bool = False
    """Batch norm over the images of all workers (SyncBN), not of each; for GPUs alone."""
    recompute_backbone: bool = False
    """Compute the backbone's layers again in the backward pass (activation checkpointing): less memory, more
    time, the same result."""
    ema_decay: float | None = 0.999
    """Exponential moving average of the weights, evaluated and stored in place of the raw ones; None is off."""
    start_at_mean: bool = True
    """A new model predicts the mean root and the mean pose of its first batches, after the update of any kind; off:
    zeros, as in the release."""

    def __post_init__(self) -> None:
        at_least(self, weight_decay=0, warmup_steps=0, epochs=1, max_bad_steps=1)
        check_values(
            self,
            ("lr", self.lr > 0, "above 0"),
            ("warmup_start", 0 < self.warmup_start <= 1, "above 0, at most 1"),
            ("max_minutes", self.max_minutes is None or self.max_minutes > 0, "above 0, or None"),
            ("clip_norm", self.clip_norm > 0, "above 0"),
            ("ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "between 0 and 1, or None"),
        )


def release() -> OptimConfig:
    """The released Panoptic schedule: SGD, drops at 16 and 20 of 22 epochs, fp16, no weight averaging."""
    return OptimConfig(amp="fp16", ema_decay=None, start_at_mean=False)


def ours() -> OptimConfig:
    """The released schedule with bf16, which needs no loss scale, averaged weights, and a start at the mean pose."""
    return OptimConfig(amp="auto")


def small() -> OptimConfig:
    """For `das.config.small` from scratch: AdamW with a short warm-up and a cosine."""
    return OptimConfig(
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.02,
        bias_lr_factor=1.0,
        warmup_steps=100,
        warmup_start=0.01,
        schedule="cosine",
        clip_norm=10.0,
        amp="auto",
        ema_decay=0.995,
    )
