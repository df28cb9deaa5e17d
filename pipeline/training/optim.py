"""The optimiser: parameter groups, learning-rate schedule, mixed precision and weight averaging."""

from __future__ import annotations

import math
from collections.abc import Iterator

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
    """SGD or AdamW over `parameter_groups`.

    Fused: a step is one operation for each group, and it can be skipped without the host knowing (`step_if`).
    """
    groups = parameter_groups(model, config)
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
        # Its own first step would leave them unset if that step is skipped.
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
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


def step_if(finite: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """A step of a fused optimiser; it changes nothing, momentum included, where ``finite`` (bool, scalar) is False.

    The flag stays on the device: reading it would wait for the GPU.
    """
    # The way in which torch's GradScaler tells a fused optimiser to leave a step out; torch's types do not list it.
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]


class WeightAverage(AveragedModel):
    """Exponential moving average of the weights, running statistics of batch norm included.

    After n updates the decay is at most (1 + n) / (10 + n), so that the initial weights do not dominate the average of
    a short training. The first update copies.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, device=next(model.parameters()).device, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_if(self, counts: Tensor, model: nn.Module) -> None:
        """Takes in the model's weights, unless ``counts`` (bool, scalar, on the device) is False."""
        n = self.n_averaged
        weight = torch.where(n > 0, 1 - ((1 + n) / (10 + n)).clamp(max=self.decay), 1.0) * counts
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        for share, kind in ((weight, True), (counts.long(), False)):  # counters are copied
            averages, values = zip(*(pair for pair in pairs if pair[0].is_floating_point() == kind), strict=True)
            change = torch._foreach_sub(values, averages)
            torch._foreach_mul_(change, share)
            torch._foreach_add_(averages, change)
        n += counts


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
