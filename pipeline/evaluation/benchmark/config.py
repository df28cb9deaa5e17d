"""Settings of `das benchmark`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from das.fields import at_least, check_name, check_threshold, check_values
from pipeline.data.splits import Split
from pipeline.infra.cluster import ClusterConfig
from pipeline.infra.configs import device_flag

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class BenchmarkConfig:
    """Which model is measured, on which images and devices."""

    model: str
    """Checkpoint folder, or a registered model such as models:/das-panoptic@champion."""
    data: tuple[str, ...]
    """Prepared data folders (or URIs) whose images are used; annotations are not read."""
    split: Split = "test"
    """Split of these folders."""
    devices: Annotated[
        tuple[Annotated[Device, device_flag(cpu="cpu", cuda="gpu")], ...],
        tyro.conf.arg(name="device"),
    ] = ("cpu",)
    """Devices to measure on, one after the other: cpu, cuda or both."""
    threads: int = 1
    """CPU threads; the same number of CPUs is reserved."""
    bf16: bool = False
    """Run the network under bfloat16 autocast."""
    images: int = 32
    """Number of images, evenly spaced in the data, that are timed at batch 1."""
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    """Batch sizes for throughput and memory."""
    threshold: float | None = None
    """Score threshold for people, whose number changes the time; by default that of the checkpoint."""
    name: str | None = None
    """Name of the output folder and the MLflow run; by default made of data, split and the hash of the model."""
    out: str | None = None
    """Folder or URI for the results; by default benchmarks/NAME in the storage."""
    experiment: str = "das"
    """MLflow experiment."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where the benchmark runs and where its results go."""

    def __post_init__(self) -> None:
        at_least(self, threads=1, images=1)
        sizes, devices = self.batch_sizes, self.devices
        check_values(
            self,
            ("batch_sizes", bool(sizes) and min(sizes) >= 1, "one or more numbers of at least 1"),
            ("devices", bool(devices) and len(set(devices)) == len(devices), "cpu, gpu or both"),
        )
        check_threshold(self)
        check_name(self)
