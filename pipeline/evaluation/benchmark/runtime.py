"""Speed and memory of a model as plain numbers; reports use them without torch, which latency.py measures with."""

from __future__ import annotations

from dataclasses import dataclass

COARSE_STAGES = ("decode", "prepare", "network", "people")
"""JPEG to pixels; resize, pad, copy to the device; the network; decoding of its maps to people in camera space."""


@dataclass(frozen=True)
class Latency:
    """Times of single images.

    Attributes:
        image_size: (height, width) of the first image, pixels.
        input_size: (height, width) of the network input made from it, pixels.
        images: number of timed images.
        people: mean number of people found on them; decoding takes longer for more.
        median_ms, p90_ms: per image, milliseconds.
        stage_ms: median of each of COARSE_STAGES, milliseconds.
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    images: int
    people: float
    median_ms: float
    p90_ms: float
    stage_ms: dict[str, float]


@dataclass(frozen=True)
class Throughput:
    """Speed and memory of whole batches, one after the other.

    Attributes:
        batch_size: images in a batch.
        images_per_second: over all batches.
        peak_memory_mb: highest resident memory of the process since its start, MB (2**20 bytes).
        peak_gpu_memory_mb: highest memory that torch allocated on the GPU meanwhile, MB; None on a CPU.
    """

    batch_size: int
    images_per_second: float
    peak_memory_mb: float
    peak_gpu_memory_mb: float | None


@dataclass(frozen=True)
class Runtime:
    """Latency and throughput of one predictor on one device.

    Attributes:
        device: name of the GPU, or "cpu".
        threads: CPU threads of torch.
        bf16: the network ran under bfloat16 autocast.
        image_size, input_size, images, people: as in ``Latency``.
        latency_ms_median, latency_ms_p90: per image at batch 1, milliseconds.
        stage_ms: median of each of COARSE_STAGES, milliseconds.
        batch_size, images_per_second: of the throughput.
        peak_memory_mb: highest resident memory of the process since its start, MB (2**20 bytes).
        peak_gpu_memory_mb: of the throughput; None on a CPU.
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
        """The numbers by their names in MLflow."""
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
