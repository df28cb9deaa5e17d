"""What every training worker runs.

Everything that one optimiser step needs from all workers, the counts that divide its losses and the clock, depends on
targets only and is summed before the backward pass; so N workers compute the gradient of one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train import Checkpoint
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from das.assign import assign
from das.backbone import BACKBONES
from das.checkpoint import (
    WEIGHTS_FILE,
    ModelInfo,
    fresh_tensors,
    load_criterion,
    load_tensors,
    load_training_state,
    save_criterion,
    save_model,
    save_training_state,
)
from das.criterion import Criterion
from das.model import DAS, channels_last
from das.recipe import RecipeConfig
from das.sample import Batch
from das.train_step import TrainStep, require_finite
from pipeline.data.manifest import Manifest
from pipeline.evaluation.train_overlap import INDEX_FILE
from pipeline.infra.columns import write_columns
from pipeline.tracking.tracker import RunHandle, Tracker
from pipeline.training import optim
from pipeline.training.batches import TrainingBatches
from pipeline.training.config import TrainConfig
from pipeline.training.optim import Progress
from pipeline.training.validation import Validator

# Optimiser steps between two reports of the losses.
LOG_EVERY = 20
# Batches whose targets give the mean pose that a new model starts from.
PRIOR_BATCHES = 8


@dataclass(frozen=True)
class TrainJob:
    """All that a worker needs beside its rows; pickled to it.

    Attributes:
        info: what the checkpoints will say of the model.
        train_rows: of one pass over all workers.
        val_keys: of the images that are scored after every epoch; empty without a val split.
        index: keys and image hashes of the training data, part of every checkpoint; None where they are not known.
        manifests: of the training data.
        run: the MLflow run that takes the numbers; the driver opens it when all else is right.
    """

    config: TrainConfig
    info: ModelInfo
    train_rows: int
    val_keys: list[str]
    index: dict[str, list[str]] | None
    manifests: list[Manifest]
    run: RunHandle | None = None


def train_loop(arguments: dict[str, TrainJob]) -> None:
    """One worker's training: every epoch trains, validates, and reports a checkpoint."""
    job = arguments["job"]
    config, options = job.config, job.config.optim
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    device = ray.train.torch.get_device()
    torch.set_num_threads(config.threads or max(1, int(config.cpus_per_worker)))
    torch.manual_seed(config.seed)

    recipe = RecipeConfig.from_json(job.info.recipe)
    shard = ray.train.get_dataset_shard("train")
    dealt = rank if max(config.repeat, default=1) > 1 else 0
    batches = TrainingBatches(shard, config.ingest, job.info.model.skeleton, recipe, config.seed, dealt)
    images_per_step = config.ingest.batch_size * config.ingest.accumulate * world
    progress = Progress(options, max(1, job.train_rows // images_per_step))
    step = TrainStep(job.info.model)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        _initialise(step, config, batches)
    step.to(device)
    channels_last(step)
    optimizer = optim.make_optimizer(step, options)
    half = optim.autocast_type(options.amp, device)
    scaler = torch.amp.GradScaler(device.type, init_scale=512.0, enabled=half == torch.float16)
    average = optim.averaged(step.model, options.ema_decay) if options.ema_decay else None
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            _restore(folder, step, optimizer, scaler, average, progress)
    wrapped = DistributedDataParallel(step) if world > 1 else step
    tracker = Tracker.join(job.run) if rank == 0 and job.run is not None else None
    validate = Validator(config, job.info, job.val_keys, rank, world, bf16=half is not None) if job.val_keys else None

    log = LossLog(world)
    while not progress.finished:
        step.train()
        log.begin_epoch()
        for parts in _groups(batches(progress.epoch), config.ingest.accumulate):
            parts = [part.to(device) for part in parts]
            totals = torch.stack([step.counts(part) for part in parts]).sum(0)
            # On the device only where workers agree on it: a GPU would be waited for.
            clock = torch.tensor(progress.seconds(), dtype=torch.float64, device=device if world > 1 else "cpu")
            if world > 1:
                dist.all_reduce(totals)
                dist.all_reduce(clock, op=dist.ReduceOp.MAX)
            progress.set_rates(optimizer, clock.item())
            found: list[dict[str, torch.Tensor]] = []
            for i, part in enumerate(parts):
                alone: AbstractContextManager[None] = nullcontext()
                if isinstance(wrapped, DistributedDataParallel) and i + 1 < len(parts):
                    alone = wrapped.no_sync()
                with alone, torch.autocast(device.type, half, enabled=half is not None):
                    found.append(wrapped(part, totals))
                    # Gradients add over parts; data parallelism takes the mean over workers.
                    torch.autograd.backward(scaler.scale(found[-1]["loss"] * world))
            # Looked at when all work is given out: a GPU is then waited for once.
            for losses, part in zip(found, parts, strict=True):
                require_finite(losses, part.keys)
                log.add(losses)
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(step.parameters(), options.clip_norm)
            if not scaler.is_enabled():  # a scaled step with such a gradient is skipped, and the scale halved
                require_finite({"gradient norm": norm}, [key for part in parts for key in part.keys])
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update_parameters(step.model)
            progress.step += 1
            log.end_step()
            if progress.step % LOG_EVERY == 0:
                means = log.flush()
                if tracker is not None:
                    state = {
                        "train/lr": optimizer.param_groups[0]["lr"],
                        "train/grad_norm": float(norm),
                        "train/done": progress.done(clock.item()),
                        "train/images_per_second": images_per_step / means["train/seconds_per_step"],
                    }
                    tracker.log_metrics({**means, **state}, step=progress.step)
            if progress.out_of_time(clock.item()):
                break
        progress.end_epoch(clock.item())

        best = step.model if average is None else cast(DAS, average.module)
        metrics = {**progress.state(), **{f"left_out/{k}": n for k, n in batches.transform.left_out.items()}}
        info = job.info
        if validate is not None:
            scores, threshold = validate(best)
            metrics |= scores
            info = replace(info, score_threshold=threshold)
        if tracker is not None:
            tracker.log_metrics(metrics, step=progress.step)
        with tempfile.TemporaryDirectory() as folder:
            if rank == 0:
                save_model(folder, best, info)
                save_criterion(folder, step.criterion)
                save_training_state(folder, _state(step, optimizer, scaler, average, progress))
                if job.index is not None:
                    write_columns(Path(folder) / INDEX_FILE, job.index)
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)


class LossLog:
    """Means of the losses since the last flush, over steps; a step's parts and workers add up to its loss."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._seconds = 0.0
        self._step_began = time.monotonic()

    def begin_epoch(self) -> None:
        """Time spent between epochs, on validation, is no training time."""
        self._step_began = time.monotonic()

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """Adds the shares of one part of a step."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()

    def end_step(self) -> None:
        """All parts of a step are in."""
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


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches in groups of `size`, one group per optimiser step; an incomplete last group is left out."""
    iterator = iter(batches)
    while len(group := list(islice(iterator, size))) == size:
        yield group


def _initialise(step: TrainStep, config: TrainConfig, batches: TrainingBatches) -> None:
    """Weights of a new training: ImageNet or a checkpoint where given, and offsets that start at the mean pose.

    All workers do this alike but for the mean of their own first batches; data parallelism sends rank 0's to all.
    """
    if config.pretrained is not None and Path(config.pretrained).is_dir():
        fresh = fresh_tensors(config.pretrained, step.model.config)
        if fresh:  # new joints start at their mean; what is known of the rest is loaded over it
            step.model.set_priors(*mean_targets(step.criterion, islice(batches(0), PRIOR_BATCHES)))
        load_tensors(Path(config.pretrained) / WEIGHTS_FILE, step.model, fresh)
        return
    if config.pretrained is not None:
        if not BACKBONES[step.model.config.backbone].imagenet:
            raise ValueError(f"pretrained = {config.pretrained!r}: ImageNet files are for ResNet backbones only")
        step.model.backbone.load_imagenet(config.pretrained)
    if config.optim.start_at_mean:
        step.model.set_priors(*mean_targets(step.criterion, islice(batches(0), PRIOR_BATCHES)))


def mean_targets(criterion: Criterion, batches: Iterable[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean root (3,) and joint offsets (J, 3) over all positives, in network units; 0 where nothing is labelled."""
    every = [criterion.targets(batch, assign(batch, criterion.config)) for batch in batches]
    root, joints = torch.cat([t.root for t in every]), torch.cat([t.joints for t in every])
    has_depth = torch.cat([t.has_depth for t in every])
    supervised, has_z = torch.cat([t.supervised for t in every]), torch.cat([t.has_z for t in every])
    always = torch.ones_like(has_depth)
    return (
        _mean_where(root, torch.stack([always, always, has_depth], dim=-1)),
        _mean_where(joints, torch.stack([supervised, supervised, has_z], dim=-1)),
    )


def _mean_where(values: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    return values.where(labelled, 0.0).sum(0) / labelled.sum(0).clamp(min=1)


def _state(
    step: TrainStep,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: nn.Module | None,
    progress: Progress,
) -> dict[str, Any]:
    """Everything that the model folder does not hold and that continuing needs."""
    return {
        "model": step.model.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": progress.state(),
    }


def _restore(
    folder: str,
    step: TrainStep,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: nn.Module | None,
    progress: Progress,
) -> None:
    """Inverse of `_state` and the criterion's file."""
    state = load_training_state(folder)
    step.model.load_state_dict(state["model"])
    load_criterion(folder, step.criterion)
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    if average is not None:
        average.load_state_dict(state["average"])
    progress.restore(state["progress"])
