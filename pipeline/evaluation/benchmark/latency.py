"""Speed and memory of a predictor: latency at batch 1, images per second in batches, peak memory.

Latency is the time from the encoded bytes of one image to its people, as the median and the 90th percentile over
images after a warm-up; it is split into four stages. Throughput runs whole batches. The numbers hold for this machine
and its load, so the device, the threads and the sizes are part of the result. ``costs.stage_costs`` times more stages.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from das.predictor import Inputs, Predictor
from pipeline.evaluation.benchmark.runtime import COARSE_STAGES, Latency, Runtime, Throughput
from pipeline.infra.images import decode_bytes


def measure(
    predictor: Predictor,
    images: Sequence[bytes],
    Ks: Sequence[np.ndarray],
    distortions: Sequence[np.ndarray],
    batch_size: int = 8,
    warm_up: int = 3,
) -> Runtime:
    """Measures latency and the throughput of one batch size.

    Args:
        predictor: the model, on the device to be measured.
        images: JPEG or PNG bytes; all are timed at batch 1.
        Ks: (3, 3) intrinsics of each, pixels.
        distortions: (5,) of each.
        batch_size: images per batch for the throughput.
        warm_up: images, and if above 0 one batch, that run first and are not timed.

    Raises:
        ValueError: no images, bytes that are not an image, or a batch size below 1.
    """
    if not images or batch_size < 1:
        raise ValueError(f"{len(images)} images, batch_size = {batch_size}, wanted at least 1 of both")
    single = latency(predictor, images, Ks, distortions, warm_up)
    return runtime_of(predictor, single, throughput(predictor, images, Ks, distortions, batch_size, warm_up > 0))


def runtime_of(predictor: Predictor, single: Latency, batched: Throughput) -> Runtime:
    """Both measurements of a predictor, made in this process."""
    cuda = predictor.device.type == "cuda"
    return Runtime(
        device=torch.cuda.get_device_name(predictor.device) if cuda else "cpu",
        threads=torch.get_num_threads(),
        bf16=predictor.bf16,
        image_size=single.image_size,
        input_size=single.input_size,
        images=single.images,
        people=single.people,
        latency_ms_median=single.median_ms,
        latency_ms_p90=single.p90_ms,
        stage_ms=single.stage_ms,
        batch_size=batched.batch_size,
        images_per_second=batched.images_per_second,
        peak_memory_mb=peak_memory_mb(),
        peak_gpu_memory_mb=batched.peak_gpu_memory_mb,
    )


def latency(
    predictor: Predictor,
    images: Sequence[bytes],
    Ks: Sequence[np.ndarray],
    distortions: Sequence[np.ndarray],
    warm_up: int = 3,
) -> Latency:
    """Times every image once at batch 1; arguments and errors as ``measure``."""
    jobs = list(zip(images, Ks, distortions, strict=True))
    for i in range(warm_up):
        _time_batch(predictor, [jobs[i % len(jobs)]])
    runs = [_time_batch(predictor, [job]) for job in jobs]
    totals = [1000 * sum(seconds) for seconds, _, _ in runs]
    stages = 1000 * np.median([seconds for seconds, _, _ in runs], axis=0)
    height, width = runs[0][1].images.shape[2:]
    return Latency(
        image_size=decode_bytes(images[0]).shape[:2],
        input_size=(height, width),
        images=len(jobs),
        people=float(np.mean([people for _, _, people in runs])),
        median_ms=float(np.median(totals)),
        p90_ms=float(np.percentile(totals, 90)),
        stage_ms=dict(zip(COARSE_STAGES, stages.tolist(), strict=True)),
    )


def throughput(
    predictor: Predictor,
    images: Sequence[bytes],
    Ks: Sequence[np.ndarray],
    distortions: Sequence[np.ndarray],
    batch_size: int,
    warm_up: bool = True,
) -> Throughput:
    """Images per second and memory in batches of one size; other arguments and errors as ``measure``.

    Images are repeated if they do not fill one batch, and left out at the end if they do not fill the last batch.

    Args:
        predictor: the model, on the device to be measured.
        images: JPEG or PNG bytes.
        Ks: (3, 3) intrinsics of each, pixels.
        distortions: (5,) of each.
        batch_size: images per batch.
        warm_up: run one batch first that is not timed.
    """
    cuda = predictor.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(predictor.device)
    jobs = list(zip(images, Ks, distortions, strict=True))
    filled = [jobs[i % len(jobs)] for i in range(max(batch_size, len(jobs) // batch_size * batch_size))]
    batches = [filled[i : i + batch_size] for i in range(0, len(filled), batch_size)]
    if warm_up:
        _time_batch(predictor, batches[0])
    start = time.perf_counter()
    for batch in batches:
        _time_batch(predictor, batch)
    return Throughput(
        batch_size=batch_size,
        images_per_second=len(filled) / (time.perf_counter() - start),
        peak_memory_mb=peak_memory_mb(),
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated(predictor.device) / 2**20 if cuda else None,
    )


def peak_memory_mb() -> float:
    """Highest resident memory of this process since its start, MB (2**20 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # macOS counts in bytes, Linux in KB


def _time_batch(predictor: Predictor, jobs: Sequence[tuple[bytes, Any, Any]]) -> tuple[list[float], Inputs, int]:
    """Runs one batch; returns the seconds of each of COARSE_STAGES, the network inputs and the number of people."""
    marks = [time.perf_counter()]

    def mark() -> None:
        if predictor.device.type == "cuda":
            torch.cuda.synchronize(predictor.device)  # kernels run asynchronously
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
