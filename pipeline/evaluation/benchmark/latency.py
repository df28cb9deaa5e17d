"""How fast a predictor is, and how much memory it takes: latency at batch 1, images a second, peak memory.

Latency is what one image waits, from encoded bytes to people, and is split into stages; its median and 90th
percentile are over images after a warm-up. Throughput runs whole batches. Numbers hold for this machine and whatever
else it was doing: device, threads and sizes are part of the result.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from das.predictor import Inputs, Predictor
from pipeline.infra.images import decode_bytes

STAGES = ("decode", "prepare", "network", "people")
"""JPEG to pixels; resize, pad, copy to the device; the network; maps to people in camera space."""


@dataclass(frozen=True)
class Runtime:
    """One measurement.

    Attributes:
        device: processor name. threads: CPU threads of torch. bf16: autocast was on.
        image_size, input_size: (height, width) of the first image and of what the network saw of it, pixels.
        images: how many were timed at batch 1.
        people: mean number of people found on them; decoding takes longer for more.
        latency_ms_median, latency_ms_p90: per image at batch 1, milliseconds.
        stage_ms: median of each stage of STAGES, milliseconds.
        batch_size, images_per_second: of the throughput.
        peak_memory_mb: the process's resident high-water mark since it started, MB (2**20 bytes).
        peak_gpu_memory_mb: most that torch held on the GPU while it ran batches, MB; None on a CPU.
    """

    device: str
    threads: int
    bf16: bool
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    images: int
    people: float
    latency_ms_median: float
    latency_ms_p90: float
    stage_ms: dict[str, float]
    batch_size: int
    images_per_second: float
    peak_memory_mb: float
    peak_gpu_memory_mb: float | None

    def metrics(self) -> dict[str, float]:
        """The numbers under flat names, for a tracked run."""
        numbers = {
            "latency_ms_median": self.latency_ms_median,
            "latency_ms_p90": self.latency_ms_p90,
            "images_per_second": self.images_per_second,
            "peak_memory_mb": self.peak_memory_mb,
            **{f"stage_ms/{name}": value for name, value in self.stage_ms.items()},
        }
        if self.peak_gpu_memory_mb is not None:
            numbers["peak_gpu_memory_mb"] = self.peak_gpu_memory_mb
        return {f"runtime/{name}": value for name, value in numbers.items()}


@dataclass(frozen=True)
class Throughput:
    """Whole batches, one after the other.

    Attributes:
        batch_size, images_per_second: what was run, and how fast.
        peak_memory_mb: the process's resident high-water mark since it started, MB.
        peak_gpu_memory_mb: most that torch held on the GPU meanwhile, MB; None on a CPU.
    """

    batch_size: int
    images_per_second: float
    peak_memory_mb: float
    peak_gpu_memory_mb: float | None


def measure(
    predictor: Predictor,
    images: Sequence[bytes],
    Ks: Sequence[np.ndarray],
    distortions: Sequence[np.ndarray],
    batch_size: int = 8,
    warm_up: int = 3,
) -> Runtime:
    """Times a predictor on encoded images.

    Args:
        predictor: the model, on the device to be measured.
        images: JPEG or PNG bytes; all are timed at batch 1.
        Ks: (3, 3) intrinsics of each, pixels.
        distortions: (5,) of each.
        batch_size: images per batch for the throughput; the images are repeated to fill one batch if needed.
        warm_up: images (and one batch) that run before and do not count.

    Raises:
        ValueError: no images, bytes that are no image, or a batch size below 1.
    """
    if not images or batch_size < 1:
        raise ValueError(f"{len(images)} images, batch_size = {batch_size}, wanted at least 1 of both")
    cuda = predictor.device.type == "cuda"
    jobs = list(zip(images, Ks, distortions, strict=True))
    for i in range(warm_up):
        _run(predictor, [jobs[i % len(jobs)]])
    runs = [_run(predictor, [job]) for job in jobs]
    totals = [1000 * sum(seconds) for seconds, _, _ in runs]
    whole = throughput(predictor, images, Ks, distortions, batch_size, warm_up > 0)

    stages = 1000 * np.median([seconds for seconds, _, _ in runs], axis=0)
    height, width = runs[0][1].images.shape[2:]
    return Runtime(
        device=torch.cuda.get_device_name(predictor.device) if cuda else "cpu",
        threads=torch.get_num_threads(),
        bf16=predictor.bf16,
        image_size=decode_bytes(images[0]).shape[:2],
        input_size=(height, width),
        images=len(jobs),
        people=float(np.mean([people for _, _, people in runs])),
        latency_ms_median=float(np.median(totals)),
        latency_ms_p90=float(np.percentile(totals, 90)),
        stage_ms=dict(zip(STAGES, stages.tolist(), strict=True)),
        batch_size=batch_size,
        images_per_second=whole.images_per_second,
        peak_memory_mb=whole.peak_memory_mb,
        peak_gpu_memory_mb=whole.peak_gpu_memory_mb,
    )


def throughput(
    predictor: Predictor,
    images: Sequence[bytes],
    Ks: Sequence[np.ndarray],
    distortions: Sequence[np.ndarray],
    batch_size: int,
    warm_up: bool = True,
) -> Throughput:
    """Images a second in batches of one size, and the memory that takes; arguments as ``measure``.

    Images are repeated to fill one batch if needed; those that do not fill a last one are left out. ``warm_up`` runs a
    batch before that does not count.
    """
    cuda = predictor.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(predictor.device)
    jobs = list(zip(images, Ks, distortions, strict=True))
    filled = [jobs[i % len(jobs)] for i in range(max(batch_size, len(jobs) // batch_size * batch_size))]
    batches = [filled[i : i + batch_size] for i in range(0, len(filled), batch_size)]
    if warm_up:
        _run(predictor, batches[0])
    start = time.perf_counter()
    for batch in batches:
        _run(predictor, batch)
    return Throughput(
        batch_size=batch_size,
        images_per_second=len(filled) / (time.perf_counter() - start),
        peak_memory_mb=peak_memory_mb(),
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated(predictor.device) / 2**20 if cuda else None,
    )


def peak_memory_mb() -> float:
    """Most memory that this process ever had resident, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KB elsewhere


def _run(predictor: Predictor, jobs: Sequence[tuple[bytes, Any, Any]]) -> tuple[list[float], Inputs, int]:
    """One batch: seconds of every stage, the network's inputs, and how many people were found."""
    marks = [time.perf_counter()]

    def mark() -> None:
        if predictor.device.type == "cuda":
            torch.cuda.synchronize(predictor.device)  # kernels run behind: wait for them
        marks.append(time.perf_counter())

    encoded, Ks, distortions = zip(*jobs, strict=True)
    images = [decode_bytes(data) for data in encoded]
    mark()
    inputs = predictor.prepare(images, Ks, distortions)
    mark()
    output = predictor.network(inputs)
    mark()
    people = predictor.people(output, inputs)
    mark()
    return np.diff(marks).tolist(), inputs, sum(map(len, people))
