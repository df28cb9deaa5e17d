"""One optimiser step of a training worker, and what it takes: the worker's place, its batches and its state.

The counts that divide a step's losses, and the clock of the budget, are summed over all workers before the backward
pass; they depend on targets alone. So N workers compute the gradient of one that sees the same global batch, as far as
norms allow it: with norms that compute over one image (group norm) or are frozen the two are equal. Batch norm in
training computes over the images of one worker's batch, as it does over one of several accumulated batches, so there
they are close only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass

import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from das.backbone import recompute_layers
from das.model import channels_last
from das.recipe import RecipeConfig
from das.sample import Batch
from das.train_step import TrainStep
from pipeline.training.batches import TrainingBatches
from pipeline.training.config import TrainConfig
from pipeline.training.initial_weights import PRIOR_IMAGES, initialise
from pipeline.training.job import TrainJob
from pipeline.training.progress import TrainingProgress
from pipeline.training.state import TrainingState


@dataclass(frozen=True)
class Worker:
    """This process among all training workers.

    Attributes:
        rank, world: its rank, and their number.
        device: its own.
        hosts: over which they exchange numbers that lie on their hosts; None: as they exchange gradients.
    """

    rank: int
    world: int
    device: torch.device
    hosts: dist.ProcessGroup | None = None

    @classmethod
    def current(cls) -> Worker:
        """The worker that Ray has started in this process."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        device = ray.train.torch.get_device()
        # nccl exchanges what is on GPUs alone, and a number on its way back from there has to be waited for.
        hosts = dist.new_group(backend="gloo") if world > 1 and device.type == "cuda" else None
        return cls(rank, world, device, hosts)


def set_up(config: TrainConfig) -> None:
    """Threads, seed, precision and memory of this process."""
    _keep_freed_memory()
    torch.set_num_threads(config.threads or max(1, int(config.cpus_per_worker)))
    torch.manual_seed(config.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.optim.tf32


def _keep_freed_memory() -> None:
    """Keeps memory that was freed for the next step, where the allocator is glibc's.

    It would give most of it back to the system after every step and take it again, page by page: on a CPU that cost a
    twelfth of a step of the small model. Blocks above 32 MB, the most that it allows, are still given back.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # numbers of malloc.h
    with suppress(AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 1 << 30)
        libc.mallopt(top_pad, 64 << 20)


def batches_of(job: TrainJob, worker: Worker) -> TrainingBatches:
    """The training's batches for this worker."""
    config = job.config
    if config.ingest.decode_on == "cluster":
        from pipeline.training.cluster_decoding import open_runs_on_cluster as opened
    else:
        from pipeline.training.batches import open_runs as opened
    return TrainingBatches(
        job.train,
        config.ingest,
        job.info.model,
        RecipeConfig.from_json(job.info.recipe),
        config.seed,
        config.images_per_step,
        worker.rank,
        worker.world,
        threads=config.ingest.threads or max(2, int(config.cpus_per_worker)),
        pin=worker.device.type == "cuda",
        opened=opened,
    )


def new_state(
    job: TrainJob, batches: TrainingBatches, progress: TrainingProgress, worker: Worker, initial: bool = True
) -> TrainingState:
    """Model and optimiser on the device; without ``initial``, their weights are still to come from a checkpoint."""
    config = job.config
    step = TrainStep(job.info.model)
    if initial:
        first = batches.first_images(PRIOR_IMAGES)
        initialise(step, config.pretrained, config.cluster.tracking_uri, config.optim.start_at_mean, first)
    step.to(worker.device)
    channels_last(step)
    if config.optim.recompute_backbone:
        recompute_layers(step.model.backbone)
    if config.optim.sync_norms and worker.world > 1:
        step = nn.SyncBatchNorm.convert_sync_batchnorm(step)
    state = TrainingState.new(step, config.optim, progress, worker.device)
    if config.optim.compile:
        step.model.compile()
    return state


@dataclass(frozen=True)
class Taken:
    """What a step gave: this worker's parts, their losses, the gradient's norm, and the slowest worker's clock."""

    parts: list[Batch]
    losses: list[dict[str, torch.Tensor]]
    norm: torch.Tensor
    seconds: float


class Stepper:
    """Takes optimiser steps.

    Args:
        state: what a step changes.
        worker: this one.
        clip_norm: largest L2 norm of the gradient.
    """

    def __init__(self, state: TrainingState, worker: Worker, clip_norm: float) -> None:
        self.state, self.worker, self.clip_norm = state, worker, clip_norm
        self._wrapped: nn.Module = state.step
        if worker.world > 1:
            self._wrapped = DistributedDataParallel(state.step, gradient_as_bucket_view=True)

    def __call__(self, loaded: Sequence[Batch]) -> Taken:
        """One step from this worker's parts of its batch; all workers must call it together. It waits for no GPU."""
        state = self.state
        parts = [part.to(self.worker.device) for part in loaded]
        totals, seconds = _shared_totals(state.step, parts, state.progress, self.worker)
        state.progress.set_rates(state.optimizer, seconds)
        losses = _backward(self._wrapped, parts, totals, state, self.worker)
        norm = state.update(self.clip_norm, [key for part in parts for key in part.keys])
        return Taken(parts, losses, norm, seconds)


def _shared_totals(
    step: TrainStep, parts: Sequence[Batch], progress: TrainingProgress, worker: Worker
) -> tuple[torch.Tensor, float]:
    """Of all workers: the counts (4,) that divide the losses of a step, and the slowest one's clock in seconds.

    Both are on the host, where the counts came with the batches: to share them waits for no GPU.
    """
    totals = torch.stack([step.counts(part) for part in parts]).sum(0)
    if worker.world == 1:
        return totals, progress.seconds()
    clock = torch.tensor(progress.seconds(), dtype=torch.float64)
    dist.all_reduce(totals, group=worker.hosts)
    dist.all_reduce(clock, op=dist.ReduceOp.MAX, group=worker.hosts)
    return totals, clock.item()


def _backward(
    wrapped: nn.Module, parts: Sequence[Batch], totals: torch.Tensor, state: TrainingState, worker: Worker
) -> list[dict[str, torch.Tensor]]:
    """Adds the gradients of all parts of a step to the parameters; returns the losses of every part."""
    found: list[dict[str, torch.Tensor]] = []
    for i, part in enumerate(parts):
        sync: AbstractContextManager[None] = nullcontext()
        if isinstance(wrapped, DistributedDataParallel) and i + 1 < len(parts):
            sync = wrapped.no_sync()  # one exchange a step, with the last part
        with sync, torch.autocast(worker.device.type, state.amp, enabled=state.amp is not None):
            found.append(wrapped(part, totals))
            # Losses are shares of the global batch, so gradients must add up over workers; data parallelism averages
            # them, which the factor `world` undoes.
            torch.autograd.backward(state.scaler.scale(found[-1]["loss"] * worker.world))
    return found
