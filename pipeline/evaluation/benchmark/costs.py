"""Where a model's time goes and how large it is: milliseconds of every stage, parameters, floating-point operations.

``runtime.measure`` times an image undisturbed. Here the same way is cut into more stages, and a GPU is waited for after
each, so their sum is a little more than the latency.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from das.decode import find_candidates, place_candidates, suppress
from das.model import DAS
from das.predictor import Predictor
from pipeline.evaluation.benchmark.latency import Runtime, Throughput
from pipeline.infra.images import decode_bytes

PARTS = {"backbone": "backbone", "neck": "fpn", "head": "head", "update": "update"}
"""Part of the network, as people call it -> its name in ``DAS``."""

STAGES = ("decode", "resize", "normalize", *PARTS, "candidates", "placing", "suppression")
"""JPEG to pixels; resize, pad, copy to the device; subtract the mean; the network's parts (update: its maps); threshold
and the last update at the candidates; their way into camera space; removal of duplicates (NMS)."""


@dataclass(frozen=True)
class ModelCost:
    """Size of a network.

    Attributes:
        input_size: (height, width) in pixels that the operations are counted for.
        parameters: number of weights of each of PARTS.
        flops: floating-point operations of each part for one image: convolutions and matrix products, a multiplication
            and an addition counted as two; reading between cells and normalisation are not counted.
    """

    input_size: tuple[int, int]
    parameters: dict[str, int]
    flops: dict[str, int]


@dataclass(frozen=True)
class DeviceCost:
    """What one device needs.

    Attributes:
        runtime: latency at batch 1, throughput at the fastest batch size.
        stage_ms: median of each of STAGES, milliseconds.
        batches: throughput and memory of each batch size, the smallest first.
    """

    runtime: Runtime
    stage_ms: dict[str, float]
    batches: tuple[Throughput, ...]


def model_cost(model: DAS, height: int, width: int) -> ModelCost:
    """Parameters and operations for one image of this size, both multiples of 32."""
    image = torch.zeros(1, 3, height, width, device=model.mean.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    counted = counter.get_flop_counts()
    parts = {part: getattr(model, name) for part, name in PARTS.items()}
    return ModelCost(
        input_size=(height, width),
        parameters={part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()},
        flops={part: int(sum(counted.get(f"DAS.{name}", {}).values())) for part, name in PARTS.items()},
    )


def stage_costs(
    predictor: Predictor,
    images: Sequence[bytes],
    Ks: Sequence[np.ndarray],
    distortions: Sequence[np.ndarray],
    warm_up: int = 3,
) -> dict[str, float]:
    """Median milliseconds of each of STAGES at batch 1, over all images; arguments as ``runtime.measure``."""
    jobs = list(zip(images, Ks, distortions, strict=True))
    for i in range(warm_up):
        _run(predictor, *jobs[i % len(jobs)])
    runs = [_run(predictor, *job) for job in jobs]
    return {stage: 1000 * float(np.median([seconds[stage] for seconds in runs])) for stage in STAGES}


def _run(predictor: Predictor, data: bytes, K: np.ndarray, distortion: np.ndarray) -> dict[str, float]:
    """Seconds of every stage for one image."""
    seconds: dict[str, float] = {}

    def timed(stage: str, call: Callable[..., Any], *arguments: Any) -> Any:
        start = _now(predictor.device)
        result = call(*arguments)
        seconds[stage] = _now(predictor.device) - start
        return result

    config = predictor.info.model
    image = timed("decode", decode_bytes, data)
    inputs = timed("resize", predictor.prepare, [image], [K], [distortion])
    with _parts_timed(predictor.model, predictor.device, seconds):
        output = timed("normalize", predictor.network, inputs)
    seconds["normalize"] -= sum(seconds[part] for part in PARTS)
    found = timed("candidates", find_candidates, output, config, predictor.threshold, inputs.sizes)
    (people,) = timed("placing", place_candidates, found, config, inputs.K, inputs.distortion, inputs.image_transform)
    timed("suppression", suppress, people.joints_uv, people.scores, config)
    return seconds


@contextmanager
def _parts_timed(model: DAS, device: torch.device, seconds: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds that each of PARTS takes, all levels together."""
    hooks = []
    for part, name in PARTS.items():
        module: nn.Module = getattr(model, name)
        seconds[part] = 0.0

        def before(*_: Any, part: str = part) -> None:
            seconds[part] -= _now(device)

        def after(*_: Any, part: str = part) -> None:
            seconds[part] += _now(device)

        hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _now(device: torch.device) -> float:
    """Seconds on a clock, when all that was started on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
