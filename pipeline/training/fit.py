"""One training on Ray: checks it, runs the workers, and keeps the best checkpoint."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from ray.train import (
    Checkpoint,
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer
from tqdm import tqdm

from pipeline.infra.cluster import connect
from pipeline.infra.configs import flat
from pipeline.infra.files import join
from pipeline.infra.name_claim import claimed_name
from pipeline.infra.redaction import redacted
from pipeline.infra.resources import preflight
from pipeline.tracking.tracker import RunHandle, Tracker
from pipeline.training.config import TrainConfig
from pipeline.training.job import TrainJob, training_job
from pipeline.training.loop import train_loop
from pipeline.training.lost_workers import LostWorkers, would_repeat
from pipeline.training.measure.step_trace import trace_line
from pipeline.training.run_folder import KeepList, RunFolder, restore_list, save_best
from pipeline.training.validation import SELECT_BY

# Share of time that may go by waiting for images before it is said, and steps after which it is looked at.
_WAITS, _SETTLED = 0.2, 40
# How often Ray looks whether an elastic training can have more workers.
_RESIZE_SECONDS = 30.0
_BAR = "{desc}: {n:.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        checkpoint: folder of the best checkpoint, storage/name/best.
        run_id: its MLflow run.
        metrics: of that checkpoint's epoch.
        finished_before: an earlier call had finished this training; this one did nothing.
        trace: where the trace is that was asked for, in a sentence.
    """

    checkpoint: str
    run_id: str
    metrics: dict[str, Any]
    finished_before: bool
    trace: str | None = None

    def summary(self) -> str:
        """A few lines for the terminal."""
        head = "finished before, nothing to do" if self.finished_before else "finished"
        shown = {k: v for k, v in self.metrics.items() if k.startswith("val/") or k in ("epoch", "step")}
        rows = (f"  {name} {value:.4g}" for name, value in sorted(shown.items()))
        return "\n".join(
            (
                f"training {head}: {redacted(self.checkpoint)} (MLflow run {self.run_id})",
                *rows,
                *([self.trace] if self.trace else []),
            )
        )


def fit(config: TrainConfig, callbacks: Sequence[UserCallback] = (), parent: RunHandle | None = None) -> TrainResult:
    """Runs one training to its end; continues an interrupted one, and does nothing for a finished one.

    Args:
        config: the training.
        callbacks: called in the driver's process at every report of the workers.
        parent: MLflow run of the sweep that this training is a trial of.

    Raises:
        ValueError: data, model or resources that do not fit together; another training has the same name, or this one
            is running already.
    """
    job = training_job(config)
    cluster = connect(config.cluster)
    folder = RunFolder(join(cluster.storage, config.name))
    folder.check_settings(job.settings())
    if (result := folder.result()) is not None:
        return TrainResult(folder.best, result["run_id"], result["metrics"], finished_before=True)

    if parent is None:  # a sweep has checked the resources of all its trials together
        preflight(config.fewest_workers, worker_resources(config), spare_cpus=config.spare_cpus)
    # A trial's folder is inside that of its sweep, which holds its name.
    claim = claimed_name(folder.path, "training") if parent is None else nullcontext()
    with claim, Tracker.open(cluster.tracking_uri, config.experiment, config.name, folder.path, parent) as tracker:
        folder.check_settings(job.settings())  # again: another may have come first
        folder.write_settings(job.settings())
        tracker.log_params(flat(config))
        for manifest, data in zip(job.manifests, job.config.data, strict=True):
            tracker.log_dataset(manifest.source, manifest.fingerprint, data, "train", manifest.split_manifest)
        lost = LostWorkers(config.max_failures) if parent is None else None
        callbacks = [*callbacks, KeepList(folder.path), *([lost] if lost else [])]
        restore_list(folder.path)
        trainer = _trainer(replace(job, run=tracker.handle), cluster.storage, callbacks)
        with _progress_bar(tracker, lost):
            checkpoint, metrics = _best(run_trainer(trainer))
        with checkpoint.as_directory() as local:
            save_best(local, folder.best, tracker)
        tracker.log_json("best.json", metrics)
    folder.write_result({"run_id": tracker.handle.run_id, "metrics": metrics})
    trace = trace_line(folder.path) if config.profile else None
    return TrainResult(folder.best, tracker.handle.run_id, metrics, finished_before=False, trace=trace)


def worker_resources(config: TrainConfig) -> dict[str, float]:
    """What Ray reserves for each training worker."""
    return {"CPU": config.cpus_per_worker, **({"GPU": 1.0} if config.gpu else {})}


def _trainer(job: TrainJob, storage: str, callbacks: Sequence[UserCallback]) -> TorchTrainer:
    """The Ray trainer; with the same storage and name it continues from the last committed checkpoint."""
    config = job.config
    select = {"checkpoint_score_attribute": SELECT_BY, "checkpoint_score_order": "min"} if job.val_rows else {}
    run = RunConfig(
        name=config.name,
        storage_path=storage,
        failure_config=FailureConfig(max_failures=config.max_failures),
        checkpoint_config=CheckpointConfig(num_to_keep=config.keep, **select),
        callbacks=list(callbacks),
    )
    return torch_trainer(train_loop, job, run)


def torch_trainer(worker: Callable[[dict[str, TrainJob]], Any], job: TrainJob, run: RunConfig) -> TorchTrainer:
    """A Ray trainer with the workers of a training; ``worker`` is what each of them does."""
    config = job.config
    scaling = ScalingConfig(
        num_workers=config.workers,
        elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
        use_gpu=config.gpu,
        resources_per_worker=worker_resources(config),
    )
    return TorchTrainer(worker, train_loop_config={"job": job}, scaling_config=scaling, run_config=run)


def run_trainer(trainer: TorchTrainer) -> Any:
    """Runs the trainer and returns Ray's result; an error that would repeat, such as a bad shard, is raised alone."""
    try:
        return trainer.fit()
    except (WorkerGroupError, ControllerError) as error:
        failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else [error.controller_failure]
        if (failure := would_repeat(failures)) is not None:
            raise failure from error
        raise


class Pace:
    """Says once, from the first two shares of the training that are known, how long it takes on this machine."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._said = False

    def line(self, done: float, now: float) -> str | None:
        """The sentence as soon as the speed is known, else None.

        Args:
            done: share of the training that is over, 0 to 1.
            now: seconds of a steady clock.
        """
        if self._said or done <= 0:
            return None
        self._first = self._first or (done, now)
        share, then = self._first
        if done <= share:
            return None
        self._said = True
        minutes = (1 - done) * (now - then) / (done - share) / 60
        return f"about {max(1, round(minutes))} min of training left on this machine"


class Remarks:
    """Lines about a training that goes on but not as it should, each said once."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self._waiting = False

    def lines(self, latest: Mapping[str, float]) -> Iterator[str]:
        """New lines.

        Args:
            latest: the newest numbers of the training, by name.
        """
        if (skipped := latest.get("train/skipped_steps", 0.0)) > self._skipped:
            self._skipped = skipped
            yield f"{skipped:.0f} steps skipped so far: not finite (samples: tag das.skipped_step of the run)"
        share = latest.get("train/wait_share", 0.0)
        if share > _WAITS and latest.get("step", _SETTLED) >= _SETTLED and not self._waiting:
            self._waiting = True
            rate = latest.get("train/images_per_second", 0.0)
            yield (
                f"workers wait {share:.0%} of the time for images: {rate:.0f} images/s are decoded, the model could "
                f"take {rate / (1 - min(share, 0.99)):.0f}; give them more CPUs (--cpus-per-worker), or let other "
                "nodes decode (--ingest.decode-on cluster)"
            )


@contextmanager
def _progress_bar(tracker: Tracker, lost: LostWorkers | None) -> Iterator[None]:
    """Shows share, time and latest numbers, read from MLflow, and lost workers; with None it shows nothing."""
    if lost is None:
        yield
        return
    ended, pace, remarks = threading.Event(), Pace(), Remarks()

    def update() -> None:
        names = ("train/loss", "val/mpjpe", "val/recall")
        with tqdm(total=100, unit="%", desc="train", bar_format=_BAR) as bar:
            while not ended.wait(3.0):
                for line in lost.lines():
                    tqdm.write(line)
                latest = tracker.latest_metrics()
                for line in remarks.lines(latest):
                    tqdm.write(line)
                if (estimate := pace.line(latest.get("train/done", 0.0), time.monotonic())) is not None:
                    tqdm.write(estimate)
                bar.n = 100 * latest.get("train/done", 0.0)
                bar.initial = bar.initial or bar.n  # what an interrupted call has done says nothing about the speed
                bar.set_postfix({name: f"{latest[name]:.4g}" for name in names if name in latest})

    thread = threading.Thread(target=update, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _best(result: Any) -> tuple[Checkpoint, dict[str, Any]]:
    """The best kept checkpoint by validation, or the last one without validation, and its metrics."""
    assert result.checkpoint is not None, "every epoch reports a checkpoint"
    scored = [(c, m) for c, m in result.best_checkpoints if SELECT_BY in m]
    if scored:
        return min(scored, key=lambda pair: pair[1][SELECT_BY])
    return result.checkpoint, result.metrics
