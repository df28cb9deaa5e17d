"""The optimiser: parameter groups, learning-rate schedule, mixed precision and weight averaging."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

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
    amp: Literal["none", "auto", "bf16", "fp16"] = "none"
    """Automatic mixed precision; auto is bf16 where the processor has it and none elsewhere, because emulated bf16 is
    ten times slower; fp16 uses a loss scale that starts at 512."""
    ema_decay: float | None = 0.999
    """Exponential moving average of the weights, evaluated and stored in place of the raw ones; None is off."""
    start_at_mean: bool = True
    """A new model predicts the mean root and the mean pose of its first batches; off: zeros, as in the release."""

    def __post_init__(self) -> None:
        at_least(self, weight_decay=0, warmup_steps=0, epochs=1)
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


def autocast_type(amp: str, device: torch.device) -> torch.dtype | None:
    """Type of automatic mixed precision that `OptimConfig.amp` means on a device; None for float32."""
    if amp == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            capabilities = torch.cpu.get_capabilities()
            native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        return torch.bfloat16 if native else None
    return {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, object]]:
    """Two groups, weights and biases; biases have another learning rate and no decay.

    With SGD as in the release: biases of norm layers and of the convolutions that predict deformable offsets are in
    the group of weights. With AdamW, whose decay does not depend on the gradient, all vectors (biases and norms) are in
    the group without decay.
    """
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for parameter, kind in _kinds(model):
        plain_bias = kind == "bias" if config.optimizer == "sgd" else parameter.ndim <= 1
        (biases if plain_bias else weights).append(parameter)
    bias_lr = config.lr * config.bias_lr_factor
    return [
        {"params": weights, "lr": config.lr, "initial_lr": config.lr, "weight_decay": config.weight_decay},
        {"params": biases, "lr": bias_lr, "initial_lr": bias_lr, "weight_decay": 0.0},
    ]


def _kinds(model: nn.Module) -> Iterator[tuple[nn.Parameter, str]]:
    """Every trainable parameter once, with its kind: "bias", unless of a norm or a deformable offset, or "weight"."""
    norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
    for name, module in model.named_modules():
        special = isinstance(module, norms) or name.endswith("conv_offset")
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                yield parameter, "bias" if leaf == "bias" and not special else "weight"


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over `parameter_groups`."""
    groups = parameter_groups(model, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def learning_rate_factor(config: OptimConfig, step: int, epoch: int, progress: float) -> float:
    """Factor of the base learning rate.

    Args:
        config: the optimisation.
        step: optimiser steps done so far, over all epochs (warm-up counts these).
        epoch: epochs finished (schedule step).
        progress: share of the training that is done, 0 to 1 (schedule cosine).
    """
    warm = 1.0
    if step < config.warmup_steps:
        warm = config.warmup_start + (1 - config.warmup_start) * step / config.warmup_steps
    if config.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return warm * 0.1 ** sum(epoch >= drop for drop in config.drop_epochs)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, running statistics of batch norm included.

    After n updates the decay is at most (1 + n) / (10 + n), so that the initial weights do not dominate the average of
    a short training.
    """

    def update(averages: Sequence[Tensor], values: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(update), use_buffers=True)
