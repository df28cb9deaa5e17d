"""What every training worker runs: load, forward, backward, step, report; after each epoch validate and save.

The counts that divide a step's losses, and the clock of the budget, are summed over all workers before the backward
pass; they depend on targets alone. So N workers compute the gradient of one that sees the same global batch, as far as
norms allow it: with norms that compute over one image (group norm) or are frozen the two are equal. Batch norm in
training computes over the images of one worker's batch, as it does over one of several accumulated batches, so there
they are close only. Its running statistics are rank 0's before validation and in checkpoints.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train import Checkpoint
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from das.model import channels_last
from das.model_info import ModelInfo
from das.recipe import RecipeConfig
from das.sample import Batch
from das.train_step import TrainStep, require_finite
from pipeline.evaluation.train_overlap import INDEX_FILE
from pipeline.infra.columns import write_columns
from pipeline.tracking.tracker import Tracker
from pipeline.training.batches import TrainingBatches
from pipeline.training.initial_weights import initialise
from pipeline.training.job import TrainJob
from pipeline.training.progress import TrainingProgress
from pipeline.training.state import TrainingState
from pipeline.training.validation import Validator

# Optimiser steps between two reports of the losses.
LOG_EVERY = 20


@dataclass(frozen=True)
class Worker:
    """This process among all training workers: its rank, their number, and its device."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def current(cls) -> Worker:
        """The worker that Ray has started in this process."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        return cls(rank, world, ray.train.torch.get_device())


def train_loop(arguments: dict[str, TrainJob]) -> None:
    """One worker's training, from the start or the last checkpoint to the end; reports a checkpoint every epoch.

    Args:
        arguments: the job, under "job".

    Raises:
        ValueError: not one row of the training data is usable.
        FloatingPointError: a loss or a gradient is infinite or NaN; names the samples.
    """
    job = arguments["job"]
    config, worker = job.config, Worker.current()
    torch.set_num_threads(config.threads or max(1, int(config.cpus_per_worker)))
    torch.manual_seed(config.seed)

    batches = _batches(job, worker)
    images_per_step = config.ingest.batch_size * config.ingest.accumulate * worker.world
    progress = TrainingProgress(config.optim, max(1, job.train_rows // images_per_step))
    state = _state(job, batches, progress, worker)
    step = state.step
    wrapped = DistributedDataParallel(step) if worker.world > 1 else step
    tracker = Tracker.join(job.run) if worker.rank == 0 and job.run is not None else None
    validate = (
        Validator(config, job.info, job.val_keys, worker.rank, worker.world, bf16=state.amp is not None)
        if job.val_keys
        else None
    )

    log = LossLog(worker.world)
    while not progress.finished:
        step.train()
        log.begin_epoch()
        for parts in _groups(batches(progress.epoch), config.ingest.accumulate):
            parts = [part.to(worker.device) for part in parts]
            totals, seconds = _shared_totals(step, parts, progress, worker)
            progress.set_rates(state.optimizer, seconds)
            losses = _backward(wrapped, parts, totals, state, worker)
            # Read only now that all work of the step is queued: reading waits for the GPU.
            for part_losses, part in zip(losses, parts, strict=True):
                require_finite(part_losses, part.keys)
                log.add(part_losses)
            norm = state.update(config.optim.clip_norm, [key for part in parts for key in part.keys])
            log.end_step()
            if progress.step % LOG_EVERY == 0:
                means = log.flush()
                if tracker is not None:
                    means |= {
                        "train/lr": state.optimizer.param_groups[0]["lr"],
                        "train/grad_norm": float(norm),
                        "train/done": progress.done(seconds),
                        "train/images_per_second": images_per_step / means["train/seconds_per_step"],
                    }
                    tracker.log_metrics(means, step=progress.step)
            if progress.out_of_time(seconds):
                break
        progress.end_epoch(seconds)

        metrics = {**progress.state(), **{f"left_out/{k}": n for k, n in batches.transform.left_out.items()}}
        info = job.info
        if worker.world > 1:
            state.share_buffers()
        if validate is not None:
            scores, info = validate(state.best_weights)
            metrics |= scores
        if tracker is not None:
            tracker.log_metrics(metrics, step=progress.step)
        _report(metrics, state, info, job.index, worker)


def _batches(job: TrainJob, worker: Worker) -> TrainingBatches:
    config = job.config
    # Where rows are repeated, a row's copies are spread over all workers, and the rank makes their draws differ.
    # Without repetition the draws do not depend on the number of workers.
    rank = worker.rank if max(config.repeat, default=1) > 1 else 0
    shard = ray.train.get_dataset_shard("train")
    recipe = RecipeConfig.from_json(job.info.recipe)
    return TrainingBatches(shard, config.ingest, job.info.model.skeleton, recipe, config.seed, rank)


def _state(job: TrainJob, batches: TrainingBatches, progress: TrainingProgress, worker: Worker) -> TrainingState:
    """Model and optimiser on the device, with initial weights or those of the last checkpoint."""
    config = job.config
    step = TrainStep(job.info.model)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        initialise(step, config.pretrained, config.optim.start_at_mean, batches(0))
    step.to(worker.device)
    channels_last(step)
    state = TrainingState.new(step, config.optim, progress, worker.device)
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state.restore(folder)
    return state


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches in groups of `size`, one group per optimiser step; an incomplete last group is left out."""
    iterator = iter(batches)
    while len(group := list(islice(iterator, size))) == size:
        yield group


def _shared_totals(
    step: TrainStep, parts: Sequence[Batch], progress: TrainingProgress, worker: Worker
) -> tuple[torch.Tensor, float]:
    """Of all workers: the counts (4,) that divide the losses of a step, and the slowest one's clock in seconds."""
    totals = torch.stack([step.counts(part) for part in parts]).sum(0)
    if worker.world == 1:
        return totals, progress.seconds()
    clock = torch.tensor(progress.seconds(), dtype=torch.float64, device=worker.device)
    dist.all_reduce(totals)
    dist.all_reduce(clock, op=dist.ReduceOp.MAX)
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


def _report(
    metrics: dict[str, float],
    state: TrainingState,
    info: ModelInfo,
    index: dict[str, list[str]] | None,
    worker: Worker,
) -> None:
    """Reports an epoch to Ray. All workers must call it; only rank 0 writes the checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        if worker.rank == 0:
            state.save(folder, info)
            if index is not None:
                write_columns(Path(folder) / INDEX_FILE, index)
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder) if worker.rank == 0 else None)


class LossLog:
    """Means of the losses over the steps since the last flush; losses of a step's parts and workers are summed."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._seconds = 0.0
        self._step_began = time.monotonic()

    def begin_epoch(self) -> None:
        """Restarts the clock, so that validation between epochs does not count as training time."""
        self._step_began = time.monotonic()

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """Adds the losses of one part of a step."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()

    def end_step(self) -> None:
        """Counts a step; call it after all of its parts are added."""
        now = time.monotonic()
        self._seconds += now - self._step_began
        self._step_began = now
        self._steps += 1

    def flush(self) -> dict[str, float]:
        """The means, named train/..., and train/seconds_per_step; all workers must call it together."""
        values = torch.stack([v.double() for v in self._sums.values()])
        if self.world > 1:
            dist.all_reduce(values)
        means = dict(zip(self._sums, (values / self._steps).tolist(), strict=True))
        means["seconds_per_step"] = self._seconds / self._steps
        self._sums, self._steps, self._seconds = {}, 0, 0.0
        return {f"train/{name}": value for name, value in means.items()}
