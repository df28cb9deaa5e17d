"""The optimiser: parameter groups, learning-rate schedule, mixed precision and weight averaging."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pipeline.training.optim_config import OptimConfig


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
