"""What every training worker runs: load, forward, backward, step, report; after each epoch validate and save.

The counts that divide a step's losses, and the clock of the budget, are summed over all workers before the backward
pass; they depend on targets alone. So N workers compute the gradient of one that sees the same global batch, as far as
norms allow it: with norms that compute over one image (group norm) or are frozen the two are equal. Batch norm in
training computes over the images of one worker's batch, as it does over one of several accumulated batches, so there
they are close only. Its running statistics are rank 0's before validation and in checkpoints.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointUploadMode
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from das.backbone import recompute_layers
from das.model import channels_last
from das.model_info import ModelInfo
from das.recipe import RecipeConfig
from das.sample import Batch
from das.train_step import TrainStep
from pipeline.evaluation.train_overlap import TrainingFiles
from pipeline.tracking.tracker import Tracker
from pipeline.training.batches import TrainingBatches
from pipeline.training.config import TrainConfig
from pipeline.training.initial_weights import PRIOR_IMAGES, initialise
from pipeline.training.job import TrainJob
from pipeline.training.progress import TrainingProgress
from pipeline.training.state import TrainingState
from pipeline.training.step_log import StepLog
from pipeline.training.validation import NOT_SCORED, SELECT_BY, Validator

# Optimiser steps between two readings of the losses. In between nothing waits for a GPU.
LOG_EVERY = 20


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


def train_loop(arguments: dict[str, TrainJob]) -> None:
    """One worker's training, from the start or the last checkpoint to the end.

    It reports a checkpoint after every epoch, within epochs as the settings ask for, and when a node is about to go.

    Args:
        arguments: the job, under "job".

    Raises:
        ValueError: not one row of the training data is usable, a shard cannot be read, or too many images are damaged.
        FloatingPointError: losses or gradients of several steps in a row are infinite or NaN; names the samples.
    """
    job = arguments["job"]
    config, worker = job.config, Worker.current()
    torch.set_num_threads(config.threads or max(1, int(config.cpus_per_worker)))
    torch.manual_seed(config.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.optim.tf32

    batches = _batches(job, worker)
    progress = TrainingProgress(config.optim, batches.steps)
    state = _state(job, batches, progress, worker)
    step = state.step
    wrapped = DistributedDataParallel(step, gradient_as_bucket_view=True) if worker.world > 1 else step
    tracker = Tracker.join(job.run) if worker.rank == 0 and job.run is not None else None
    validate = (
        Validator(config, job.info, job.val_rows, worker.rank, worker.world, bf16=state.amp is not None)
        if job.val_rows
        else None
    )
    due = CheckpointsDue(config, progress)
    trained_on = TrainingFiles(job.trained_on or ())
    fp16 = state.scaler.is_enabled()
    log = StepLog(worker.world, config.optim.max_bad_steps, skips=not fp16, tracker=tracker, group=worker.hosts)
    while not progress.finished:
        step.train()
        log.begin_epoch()
        for parts in log.waiting_for(batches(progress.epoch, progress.epoch_step)):
            parts = [part.to(worker.device) for part in parts]
            totals, seconds = _shared_totals(step, parts, progress, worker)
            progress.set_rates(state.optimizer, seconds)
            losses = _backward(wrapped, parts, totals, state, worker)
            norm = state.update(config.optim.clip_norm, [key for part in parts for key in part.keys])
            log.end_step(progress.step, norm, losses, parts)
            if progress.step % LOG_EVERY == 0:
                log.read()
            if progress.step % LOG_EVERY == 0 and log.steps:
                means = log.flush()
                if tracker is not None:
                    means |= {
                        "train/lr": state.optimizer.param_groups[0]["lr"],
                        "train/grad_norm": log.norm,
                        "train/done": progress.done(seconds),
                        "train/images_per_second": config.images_per_step / means["train/seconds_per_step"],
                    }
                    tracker.log_metrics(means, step=progress.step)
            if progress.out_of_time(seconds):
                break
            if due.now(seconds) and progress.epoch_step < batches.steps:
                log.read()
                if worker.world > 1:
                    state.share(worker.rank)
                if tracker is not None:
                    tracker.flush()
                unscored = {SELECT_BY: NOT_SCORED} if validate is not None else {}
                _report({**progress.state(), **unscored}, state, job.info, trained_on, worker)
        log.read()
        progress.end_epoch(seconds)

        if worker.world > 1:
            state.share(worker.rank)
        metrics = {**progress.state(), **{f"left_out/{k}": n for k, n in batches.left_out.items()}}
        info = job.info
        if validate is not None:
            scores, info = validate(state.best_weights)
            metrics |= scores
        if tracker is not None:
            tracker.log_metrics(metrics, step=progress.step)
            tracker.flush()
        _report(metrics, state, info, trained_on, worker)
        due.reported(seconds)


def _batches(job: TrainJob, worker: Worker) -> TrainingBatches:
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


def _state(job: TrainJob, batches: TrainingBatches, progress: TrainingProgress, worker: Worker) -> TrainingState:
    """Model and optimiser on the device, with initial weights or those of the last checkpoint that can be read."""
    config = job.config
    step = TrainStep(job.info.model)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
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
    if checkpoint is not None:
        _restore(state, checkpoint, worker)
    return state


def _restore(state: TrainingState, newest: Checkpoint, worker: Worker) -> None:
    """Continues from the newest checkpoint, or, where that is damaged, from the newest one that is not."""
    older = [found.checkpoint for found in ray.train.get_all_reported_checkpoints()]
    candidates = [newest, *(found for found in reversed(older) if found.path != newest.path)]
    for i, checkpoint in enumerate(candidates):
        try:
            with checkpoint.as_directory() as folder:
                state.restore(folder, worker.rank)
        except (ValueError, OSError) as error:
            if i + 1 == len(candidates):
                raise
            if worker.rank == 0:
                print(f"checkpoint {checkpoint.path} is damaged ({error}); going back to the one before", flush=True)
        else:
            return


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


def _report(
    metrics: dict[str, float],
    state: TrainingState,
    info: ModelInfo,
    trained_on: TrainingFiles,
    worker: Worker,
) -> None:
    """Reports a checkpoint to Ray, which uploads it while training goes on.

    All workers must call it; only rank 0 writes the checkpoint.
    """
    checkpoint = None
    if worker.rank == 0:
        folder = tempfile.mkdtemp()  # Ray deletes it after the upload
        state.save(folder, info)
        trained_on.copy_to(folder)
        checkpoint = Checkpoint.from_directory(folder)
    ray.train.report(
        metrics,
        checkpoint=checkpoint,
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=True,
    )


class CheckpointsDue:
    """Whether it is time for a checkpoint within an epoch; all workers come to the same answer."""

    def __init__(self, config: TrainConfig, progress: TrainingProgress) -> None:
        self._config, self._progress = config, progress
        self._step, self._seconds = progress.step, progress.seconds()
        self._warned = False

    def now(self, seconds: float) -> bool:
        """Whether to report now; ``seconds`` is the slowest worker's clock. True counts as reported.

        A node that is about to be taken away (spot instances) makes a checkpoint due at once. All workers ask for that
        together, which costs an exchange, so they do it every ``LOG_EVERY`` steps.
        """
        minutes, steps = self._config.checkpoint_minutes, self._config.checkpoint_steps
        due = (minutes is not None and seconds - self._seconds >= 60 * minutes) or (
            steps is not None and self._progress.step - self._step >= steps
        )
        if not self._warned and self._progress.step % LOG_EVERY == 0:
            self._warned = ray.train.get_preemption_info() is not None
            due |= self._warned
        if due:
            self.reported(seconds)
        return due

    def reported(self, seconds: float) -> None:
        """A checkpoint was reported."""
        self._step, self._seconds = self._progress.step, seconds
