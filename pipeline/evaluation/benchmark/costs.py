"""Costs of a model by part: milliseconds of each stage, parameters, floating-point operations.

``latency.measure`` times four stages. Here the same steps are split into ten, with a synchronisation of the GPU after
each, so their sum is slightly larger than the latency.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from das.decode import find_candidates, place_candidates, suppress
from das.model import DAS
from das.model_info import ModelInfo
from das.predictor import Predictor
from pipeline.data.record import Record
from pipeline.evaluation.benchmark.config import BenchmarkConfig, Device
from pipeline.evaluation.benchmark.latency import latency, runtime_of, throughput
from pipeline.evaluation.benchmark.runtime import Runtime, Throughput
from pipeline.evaluation.inference import images_and_cameras
from pipeline.infra.images import decode_bytes

PARTS = {"backbone": "backbone", "neck": "fpn", "head": "head", "update": "update"}
"""Name of each part of the network on the page -> its attribute of ``DAS``."""

STAGES = ("decode", "resize", "normalize", *PARTS, "candidates", "placing", "suppression")
"""JPEG to pixels; resize, pad, copy to the device; subtract the mean; parts of the network (update: its maps); score
threshold and last update of the candidates; their joints in camera space; removal of duplicates (NMS)."""


@dataclass(frozen=True)
class ModelCost:
    """Size of a network.

    Attributes:
        input_size: (height, width) of the network input for which operations are counted, pixels.
        parameters: number of weights of each of PARTS.
        flops: floating-point operations of each of PARTS for one image: convolutions and matrix products, where a
            multiplication with an addition is two operations. Bilinear sampling and normalisation are not counted.
    """

    input_size: tuple[int, int]
    parameters: dict[str, int]
    flops: dict[str, int]


@dataclass(frozen=True)
class DeviceCost:
    """The measurements on one device.

    Attributes:
        runtime: latency at batch 1, throughput at the fastest batch size.
        stage_ms: median of each of STAGES, milliseconds.
        batches: throughput and memory of each batch size, smallest first.
    """

    runtime: Runtime
    stage_ms: dict[str, float]
    batches: tuple[Throughput, ...]


def model_cost(model: DAS, height: int, width: int) -> ModelCost:
    """Parameters, and operations for one image of ``height`` x ``width`` pixels, both multiples of 32."""
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
    """Median milliseconds of each of STAGES at batch 1, over all images; arguments as ``latency.measure``."""
    jobs = list(zip(images, Ks, distortions, strict=True))
    for i in range(warm_up):
        _time_stages(predictor, *jobs[i % len(jobs)])
    runs = [_time_stages(predictor, *job) for job in jobs]
    return {stage: 1000 * float(np.median([seconds[stage] for seconds in runs])) for stage in STAGES}


def _time_stages(predictor: Predictor, data: bytes, K: np.ndarray, distortion: np.ndarray) -> dict[str, float]:
    """Seconds of each of STAGES for one image."""
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
    # Predictor.network subtracts the mean and runs the parts; what the parts did not take is the normalisation.
    seconds["normalize"] -= sum(seconds[part] for part in PARTS)
    found = timed("candidates", find_candidates, output, config, predictor.threshold, inputs.sizes)
    (people,) = timed("placing", place_candidates, found, config, inputs.K, inputs.distortion, inputs.image_transform)
    timed("suppression", suppress, people.joints_uv, people.scores, config)
    return seconds


@contextmanager
def _parts_timed(model: DAS, device: torch.device, seconds: dict[str, float]) -> Iterator[None]:
    """While the block runs, adds the seconds of each of PARTS to ``seconds``; calls for all levels are summed."""
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
    """Seconds of a clock, read when the device has finished all its kernels."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def device_cost(
    model: tuple[DAS, ModelInfo], records: list[Record], device: Device, config: BenchmarkConfig
) -> DeviceCost:
    """Measures one device: its own task of Ray, since it sets the process's threads and reads its peak of memory."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    predictor = Predictor(
        *model, device="cuda" if device == "gpu" else "cpu", bf16=config.bf16, threshold=config.threshold
    )
    jobs = images_and_cameras(records)
    # Smallest first, because the peak memory of a process never falls.
    batches = tuple(throughput(predictor, *jobs, size) for size in sorted(set(config.batch_sizes)))
    fastest = max(batches, key=lambda batch: batch.images_per_second)
    runtime = runtime_of(predictor, latency(predictor, *jobs), fastest)
    return DeviceCost(runtime, stage_costs(predictor, *jobs), batches)
