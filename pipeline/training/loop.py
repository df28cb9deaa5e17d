"""What every training worker runs: load, forward, backward, step, report; after each epoch validate and save.

A step is in step.py. Running statistics of batch norm are rank 0's before validation and in checkpoints.
"""

from __future__ import annotations

import tempfile

import ray.train
from ray.train import Checkpoint, CheckpointUploadMode

from das.model_info import ModelInfo
from pipeline.evaluation.train_overlap import TrainingFiles
from pipeline.tracking.tracker import Tracker
from pipeline.training.config import TrainConfig
from pipeline.training.job import TrainJob
from pipeline.training.measure.step_trace import StepTrace
from pipeline.training.progress import TrainingProgress
from pipeline.training.state import TrainingState
from pipeline.training.step import Stepper, Worker, batches_of, new_state, set_up
from pipeline.training.step_log import StepLog
from pipeline.training.validation import NOT_SCORED, SELECT_BY, Validator

# Optimiser steps between two readings of the losses. In between nothing waits for a GPU.
LOG_EVERY = 20


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
    set_up(config)
    batches = batches_of(job, worker)
    progress = TrainingProgress(config.optim, batches.steps)
    checkpoint = ray.train.get_checkpoint()
    state = new_state(job, batches, progress, worker, initial=checkpoint is None)
    if checkpoint is not None:
        _restore(state, checkpoint, worker)
    take_step = Stepper(state, worker, config.optim.clip_norm)
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
    trace = None
    if config.profile and worker.rank == 0 and job.run is not None:
        trace = StepTrace(job.run.folder, worker.device, progress.total_steps - progress.step)
    while not progress.finished:
        state.step.train()
        log.begin_epoch()
        for parts in log.waiting_for(batches(progress.epoch, progress.epoch_step)):
            taken = take_step(parts)
            seconds = taken.seconds
            log.end_step(progress.step, taken.norm, taken.losses, taken.parts)
            if trace is not None:
                trace.end_step()
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
