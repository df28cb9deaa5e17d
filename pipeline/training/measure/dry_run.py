"""`--dry-run`: the first steps of a training, in its workers and with all of its settings; nothing is kept.

The workers are started as a training's are. Each reads its first batches and times how fast they come; then it takes a
few steps with the first of them. What Ray writes lies in a hidden folder of the storage and is removed.
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

import torch
import torch.distributed as dist
from ray.train import RunConfig

from pipeline.infra.cluster import connect
from pipeline.infra.configs import flat
from pipeline.infra.files import STAGED, delete, folders_restored, join
from pipeline.infra.redaction import redacted
from pipeline.infra.resources import preflight
from pipeline.training.config import TrainConfig
from pipeline.training.fit import run_trainer, torch_trainer, worker_resources
from pipeline.training.job import TrainJob, training_job
from pipeline.training.progress import TrainingProgress
from pipeline.training.run_folder import RunFolder
from pipeline.training.step import Stepper, Worker, batches_of, new_state, set_up

STEPS = 4
"""Steps of a dry run; the first is not timed."""
READING = 3.0
"""Seconds for which the batches are timed after the first one."""


@dataclass(frozen=True)
class Seen:
    """What one worker saw.

    Attributes:
        device: its name.
        parameters: of model and criterion.
        steps_per_epoch: of the training.
        first_batch: seconds until the first batch.
        reading: seconds that a step's images take to be read, decoded and augmented, while nothing else runs.
        step: seconds of a step whose images are there.
        loss: of the last step, this worker's share.
        memory, of: largest memory taken, and all there is, GB; of the GPU, or of the process and its machine.
    """

    device: str
    parameters: int
    steps_per_epoch: int
    first_batch: float
    reading: float
    step: float
    loss: float
    memory: float
    of: float


@dataclass(frozen=True)
class DryRun:
    """A training, and what its workers saw in their first steps."""

    job: TrainJob
    workers: list[Seen]
    finished_before: bool

    @property
    def seconds_per_step(self) -> float:
        """Of the slowest worker: of its step, or of reading its images where that takes longer."""
        return max(max(seen.step, seen.reading) for seen in self.workers)

    def hours(self) -> float:
        """Expected duration of the whole training, without validation and checkpoints."""
        optim = self.job.config.optim
        hours = optim.epochs * self.workers[0].steps_per_epoch * self.seconds_per_step / 3600
        return hours if optim.max_minutes is None else min(hours, optim.max_minutes / 60)

    def summary(self) -> str:
        """Lines for the terminal."""
        config, first = self.job.config, self.workers[0]
        step, reading = (max(getattr(seen, name) for seen in self.workers) for name in ("step", "reading"))
        images, ingest = config.images_per_step, config.ingest
        slowest = "reading" if reading > step else "the model"
        rows = sum(part.rows for part in self.job.train)
        steps = config.optim.epochs * first.steps_per_epoch
        peak = max(self.workers, key=lambda seen: seen.memory)
        lines = [
            f"dry run of {config.name}: {STEPS} steps, nothing is kept",
            *_settings("model", self.job.info.model.to_json()),
            *_settings("recipe", self.job.info.recipe),
            *_settings("optim", asdict(config.optim)),
            f"  data      {rows} rows an epoch of {redacted(' '.join(config.data))}, {first.steps_per_epoch} steps",
            f"  workers   {len(self.workers)} on {first.device}, {first.parameters:,} parameters; a step is "
            f"{images} images: {ingest.batch_size} x {ingest.accumulate} accumulated x {config.most_workers} workers",
            f"  step      {step:.3g} s, {images / step:.4g} images/s where they are there; loss "
            f"{sum(seen.loss for seen in self.workers):.4g}",
            f"  reading   {images / reading:.4g} images/s are read, decoded and augmented; the first batch took "
            f"{max(seen.first_batch for seen in self.workers):.3g} s",
            f"  memory    {peak.memory:.2f} of {peak.of:.1f} GB at most"
            f" ({'the GPU' if config.gpu else 'a worker on its machine'})",
            f"  all of it {config.optim.epochs} epochs, {steps} steps: about {_duration(self.hours())} as fast as "
            f"{slowest}; validation and checkpoints come on top",
        ]
        if config.optim.max_minutes is not None:
            lines.append(f"            at most {config.optim.max_minutes:g} minutes (--optim.max-minutes)")
        if self.finished_before:
            lines.append(f"  a training of the name {config.name} has finished: the same command would do nothing")
        return "\n".join(lines)


def _settings(name: str, values: dict[str, Any]) -> list[str]:
    """What presets and options resolve to; of the skeleton its name."""
    shown = {field: value for field, value in flat(values).items() if not re.match(r"skeleton\.(?!name)", field)}
    text = ", ".join(f"{field} {value}" for field, value in shown.items())
    return fill(text, 120, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12).splitlines()


def _duration(hours: float) -> str:
    return f"{hours:.3g} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"


def dry_run(config: TrainConfig) -> DryRun:
    """Takes the first steps of a training, and leaves nothing behind: no folder, no MLflow run, no claim.

    Raises:
        ValueError: as ``fit``, except that another process may hold the name.
    """
    job = training_job(config)
    cluster = connect(config.cluster)
    folder = RunFolder(join(cluster.storage, config.name))
    folder.check_settings(job.settings())
    preflight(config.fewest_workers, worker_resources(config), spare_cpus=config.spare_cpus)
    name = f"{STAGED}dry-run-{uuid.uuid4().hex}"
    with folders_restored(cluster.storage):
        try:
            trainer = torch_trainer(_worker, job, RunConfig(name=name, storage_path=cluster.storage))
            seen = run_trainer(trainer).return_value
        finally:
            delete(join(cluster.storage, name))
    return DryRun(job, seen, folder.result() is not None)


def _worker(arguments: dict[str, TrainJob]) -> list[Seen]:
    """What every worker does; returns what all of them saw."""
    job = arguments["job"]
    config, worker = job.config, Worker.current()
    set_up(config)
    batches = batches_of(job, worker)
    began = time.monotonic()
    steps = batches(0)
    loaded = next(steps)
    first_batch = time.monotonic() - began
    # Those that were made at the same time as the first one say little about how fast the others come.
    read, at, end = 0, time.monotonic(), time.monotonic() + READING
    for _ in steps:
        read += 1
        if time.monotonic() > end:
            break
    reading = (time.monotonic() - at) / read if read else first_batch
    del steps  # ends its threads

    progress = TrainingProgress(config.optim, batches.steps)
    state = new_state(job, batches, progress, worker)
    take_step = Stepper(state, worker, config.optim.clip_norm)
    state.step.train()
    seconds = []
    for _ in range(STEPS):
        began = time.monotonic()
        losses = take_step(loaded).losses
        loss = sum(part["loss"].item() for part in losses)  # waits for the GPU
        seconds.append(time.monotonic() - began)
    memory, of = _memory(worker.device)
    device = torch.cuda.get_device_name(worker.device) if worker.device.type == "cuda" else "CPU"
    parameters = sum(p.numel() for p in state.step.parameters())
    seen = Seen(
        device, parameters, batches.steps, first_batch, reading, median(islice(seconds, 1, None)), loss, memory, of
    )
    if worker.world == 1:
        return [seen]
    every: list[Any] = [None] * worker.world
    dist.all_gather_object(every, seen)
    return every


def _memory(device: torch.device) -> tuple[float, float]:
    """(largest memory taken so far, all there is), GB: of a GPU, or of this process and its machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9, torch.cuda.mem_get_info(device)[1] / 1e9
    # Not getrusage: its maximum begins with that of the parent's process.
    kilobytes: dict[str, int] = {}
    for file in ("/proc/self/status", "/proc/meminfo"):
        rows = (line.split() for line in Path(file).read_text().splitlines())
        kilobytes |= {row[0]: int(row[1]) for row in rows if row[0] in ("VmHWM:", "MemTotal:")}
    return kilobytes["VmHWM:"] / 1e6, kilobytes["MemTotal:"] / 1e6
