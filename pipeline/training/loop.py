"""What every training worker runs: load, forward, backward, step, report; after each epoch validate and save.

The counts that divide a step's losses, and the clock of the budget, are summed over all workers before the backward
pass; they depend on targets alone. So N workers compute the gradient of one that sees the same global batch, as far as
norms allow it: with norms that compute over one image (group norm) or are frozen the two are equal. Batch norm in
training computes over the images of one worker's batch, as it does over one of several accumulated batches, so there
they are close only. Its running statistics are rank 0's before validation and in checkpoints.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointUploadMode
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from das.model import channels_last
from das.model_info import ModelInfo
from das.recipe import RecipeConfig
from das.sample import Batch
from das.train_step import TrainStep
from pipeline.evaluation.train_overlap import TrainingFiles
from pipeline.tracking.tracker import Tracker
from pipeline.tracking.worker_log import WorkerLog
from pipeline.training.batches import TrainingBatches
from pipeline.training.config import TrainConfig
from pipeline.training.initial_weights import PRIOR_IMAGES, initialise
from pipeline.training.job import TrainJob
from pipeline.training.progress import TrainingProgress
from pipeline.training.state import TrainingState
from pipeline.training.validation import NOT_SCORED, SELECT_BY, Validator

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
    bad = BadSteps(config.optim.max_bad_steps, tracker)

    trained_on = TrainingFiles(job.trained_on or ())
    log = LossLog(worker.world)
    while not progress.finished:
        step.train()
        log.begin_epoch()
        for parts in log.waiting_for(batches(progress.epoch, progress.epoch_step)):
            parts = [part.to(worker.device) for part in parts]
            totals, seconds = _shared_totals(step, parts, progress, worker)
            progress.set_rates(state.optimizer, seconds)
            losses = _backward(wrapped, parts, totals, state, worker)
            norm = state.update(config.optim.clip_norm, [key for part in parts for key in part.keys])
            # Read only now that all work of the step is queued: reading waits for the GPU.
            if bad.check(norm, losses, parts, progress.step, skips=not state.scaler.is_enabled()):
                log.skip_step()
            else:
                log.end_step(losses)
            if progress.step % LOG_EVERY == 0 and log.steps:
                means = log.flush()
                if tracker is not None:
                    means |= {
                        "train/lr": state.optimizer.param_groups[0]["lr"],
                        "train/grad_norm": float(norm),
                        "train/done": progress.done(seconds),
                        "train/images_per_second": config.images_per_step / means["train/seconds_per_step"],
                    }
                    tracker.log_metrics(means, step=progress.step)
            if progress.out_of_time(seconds):
                break
            if due.now(seconds) and progress.epoch_step < batches.steps:
                if worker.world > 1:
                    state.share(worker.rank)
                if tracker is not None:
                    tracker.flush()
                unscored = {SELECT_BY: NOT_SCORED} if validate is not None else {}
                _report({**progress.state(), **unscored}, state, job.info, trained_on, worker)
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
        job.info.model.skeleton,
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
        initialise(step, config.pretrained, config.optim.start_at_mean, batches.first_images(PRIOR_IMAGES))
    step.to(worker.device)
    channels_last(step)
    state = TrainingState.new(step, config.optim, progress, worker.device)
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


class BadSteps:
    """Steps whose loss or gradient is infinite or NaN: named, counted, and too many in a row end the training."""

    def __init__(self, most: int, tracker: WorkerLog | None) -> None:
        self._most, self._tracker = most, tracker
        self._in_a_row = self._all = 0

    def check(
        self,
        norm: torch.Tensor,
        losses: Sequence[dict[str, torch.Tensor]],
        parts: Sequence[Batch],
        step: int,
        skips: bool,
    ) -> bool:
        """Whether a step was bad; its gradient's norm is the same on all workers.

        Args:
            norm: of the gradient.
            losses: of this worker's parts of the step.
            parts: of the step, this worker's.
            step: its number.
            skips: an infinite gradient alone counts. With fp16 the scaler looks for the largest scale without one.

        Raises:
            FloatingPointError: the largest number of bad steps in a row is reached.
        """
        finite = norm.isfinite() if skips else torch.stack([part["loss"] for part in losses]).isfinite().all()
        if finite:
            self._in_a_row = 0
            return False
        self._in_a_row += 1
        self._all += 1
        own = [(part.keys, {k: v.item() for k, v in found.items()}) for part, found in zip(parts, losses, strict=True)]
        faulty = [key for keys, found in own if not all(map(math.isfinite, found.values())) for key in keys]
        named = ", ".join(faulty or [key for keys, _ in own for key in keys])
        numbers = ", ".join(f"{name} {value:g}" for name, value in own[0][1].items())
        line = f"step {step} skipped, not finite: gradient norm {norm.item():g}, {numbers}, on samples {named}"
        print(line, file=sys.stderr, flush=True)
        if self._tracker is not None:
            self._tracker.log_metrics({"train/skipped_steps": self._all}, step=step)
            self._tracker.set_tags({"das.skipped_step": line})
        if self._in_a_row >= self._most:
            raise FloatingPointError(
                f"{self._in_a_row} steps in a row skipped (optim.max_bad_steps), the last: not finite: gradient norm "
                f"{norm.item():g}, {numbers}, on samples {named}"
            )
        return True


class LossLog:
    """Means of the losses over the steps since the last flush; losses of a step's parts and workers are summed."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.steps = 0
        self._sums: dict[str, torch.Tensor] = {}
        self._seconds = self._waited = 0.0
        self._step_began = time.monotonic()

    def begin_epoch(self) -> None:
        """Restarts the clock, so that validation between epochs does not count as training time."""
        self._step_began = time.monotonic()

    def waiting_for(self, batches: Iterable[list[Batch]]) -> Iterator[list[Batch]]:
        """The same batches; measures how long each is waited for."""
        iterator = iter(batches)
        while True:
            began = time.monotonic()
            found = next(iterator, None)
            if found is None:
                return
            self._waited += time.monotonic() - began
            yield found

    def end_step(self, losses: Sequence[dict[str, torch.Tensor]]) -> None:
        """Adds the losses of the parts of a step."""
        for part in losses:
            for name, value in part.items():
                self._sums[name] = self._sums.get(name, 0) + value.detach()
        self.skip_step()
        self.steps += 1

    def skip_step(self) -> None:
        """Counts the time of a step whose losses are left out."""
        now = time.monotonic()
        self._seconds += now - self._step_began
        self._step_began = now

    def flush(self) -> dict[str, float]:
        """The means, named train/..., seconds per step, and the share of time that went by waiting for images.

        All workers must call it together.
        """
        values = torch.stack([v.double() for v in self._sums.values()])
        if self.world > 1:
            dist.all_reduce(values)
        means = dict(zip(self._sums, (values / self.steps).tolist(), strict=True))
        means["seconds_per_step"] = self._seconds / self.steps
        means["wait_share"] = self._waited / max(self._seconds, 1e-9)
        self._sums, self.steps, self._seconds, self._waited = {}, 0, 0.0, 0.0
        return {f"train/{name}": value for name, value in means.items()}
