"""A sweep over the loss weights of Eq. 10 and the number of recursive updates: every trial is one `fit`.

Ray Tune runs as many trials at once as the cluster has resources for, and ASHA (Li et al., MLSys 2020) stops those
whose error is larger than that of other trials after as many epochs. All trials are drawn from the seed before the
first one starts, and each has a name. So an interrupted sweep continues when it is called again: finished trials are
not repeated, the others resume.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import CHECKPOINT_PATH_KEY, TuneReportCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException
from tqdm import tqdm

from pipeline.infra.cluster import connect
from pipeline.infra.configs import flat
from pipeline.infra.files import copy_folder, join
from pipeline.infra.name_claim import claimed_name
from pipeline.infra.redaction import redacted
from pipeline.infra.resources import preflight
from pipeline.tracking.tracker import RunHandle, Tracker
from pipeline.training.config import TrainConfig
from pipeline.training.fit import fit, worker_resources
from pipeline.training.job import training_job
from pipeline.training.run_folder import RunFolder, save_best
from pipeline.training.trials import SweepConfig, Trial, draw_trials
from pipeline.training.validation import SELECT_BY


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep.

    Attributes:
        checkpoint: folder of the best trial's best checkpoint, storage/name/best.
        run_id: the MLflow run of the sweep.
        trials: all of them, the best one first.
        finished_before: an earlier call had finished this sweep; this one did nothing.
    """

    checkpoint: str
    run_id: str
    trials: tuple[Trial, ...]
    finished_before: bool

    def summary(self) -> str:
        """A table of the trials, and the best one's checkpoint."""
        head = "finished before, nothing to do" if self.finished_before else "finished"
        rows = (f"  {trial.line()}" for trial in self.trials)
        best = f"best trial {self.trials[0].name}: {redacted(self.checkpoint)}"
        return "\n".join((f"sweep {head} (MLflow run {self.run_id}), by {SELECT_BY}", *rows, best))


def sweep(config: SweepConfig) -> SweepResult:
    """Runs a sweep to its end; continues an interrupted one, and does nothing for a finished one.

    Raises:
        ValueError: data, model or resources that do not fit together; no val split to compare on; another sweep has
            the same name, or this one is running already.
        TimeoutError: no trial ended an epoch for `no_progress_minutes`.
        RuntimeError: every trial failed.
    """
    job = training_job(config.train)
    if not job.val_rows:
        raise ValueError(f"{job.config.val or job.config.data[0]} has no val split, wanted one to compare trials on")
    cluster = connect(replace(config.train.cluster, dashboard=True))
    folder = RunFolder(join(cluster.storage, config.name), settings_file="sweep.json")
    settings = asdict(config) | {"train": job.settings()}
    del settings["max_concurrent"], settings["no_progress_minutes"]  # a later call may change these
    folder.check_settings(settings)
    if (result := folder.result()) is not None:
        return _result(folder, result, finished_before=True)
    _require_dashboard()
    fitting = preflight(
        config.train.fewest_workers, worker_resources(config.train), config.trials, config.train.spare_cpus
    )
    at_once = min(fitting, config.max_concurrent or fitting)
    # Every trial's folder is inside the sweep's.
    trial_cluster = replace(config.train.cluster, storage=folder.path, tracking_uri=cluster.tracking_uri)
    train = replace(job.config, cluster=trial_cluster)
    monitor = SweepMonitor(draw_trials(config), 60 * config.no_progress_minutes)
    with (
        claimed_name(folder.path, "sweep"),
        Tracker.open(cluster.tracking_uri, train.experiment, config.name, folder.path) as tracker,
    ):
        folder.check_settings(settings)  # again: another may have come first
        folder.write_settings(settings)
        tracker.log_params(flat(config))
        with monitor.bar:
            results = _tuner(config, train, monitor, tracker.handle, folder.path, at_once).fit()
        if monitor.stalled:
            raise TimeoutError(
                f"no trial ended an epoch for {config.no_progress_minutes:g} minutes: the cluster has too few "
                "resources (see `ray status`), or an epoch takes longer than no_progress_minutes"
            )
        errors = {result.config["name"]: result.error for result in results if result.error is not None}
        outcomes = (_outcome(trial, folder.path, errors.get(trial.name)) for trial in monitor.trials.values())
        trials = sorted(outcomes, key=Trial.sort_key)
        if trials[0].score is None:
            raise RuntimeError(f"every trial failed; {trials[0].name}: {trials[0].status}")
        _end_stopped_runs(trials, train, tracker.handle)
        with tempfile.TemporaryDirectory() as local:
            copy_folder(trials[0].checkpoint, local)
            save_best(local, folder.best, tracker)
        tracker.log_metrics({SELECT_BY: trials[0].score, "trials": len(trials)}, step=0)
        tracker.set_tags({"das.best.trial": trials[0].name, "das.best.checkpoint": folder.best})
        tracker.describe(f"Best trial {trials[0].line()}")
        tracker.log_json("trials.json", [asdict(t) for t in trials])
    result = {"run_id": tracker.handle.run_id, "trials": [asdict(t) for t in trials]}
    folder.write_result(result)
    return _result(folder, result, finished_before=False)


def _result(folder: RunFolder, result: dict[str, Any], finished_before: bool) -> SweepResult:
    trials = tuple(Trial(**trial) for trial in result["trials"])
    return SweepResult(folder.best, result["run_id"], trials, finished_before)


def _require_dashboard() -> None:
    """ValueError where the cluster runs without its dashboard, through which Ray frees a stopped trial's resources."""
    try:
        list_nodes(address=ray.get_runtime_context().gcs_address, limit=1)
    except (RayStateApiException, ConnectionError) as error:
        raise ValueError(
            "this cluster has no dashboard, without which stopped trials keep their CPUs and GPUs: wanted one "
            "(`ray start --include-dashboard=true`)"
        ) from error


def _tuner(
    config: SweepConfig, train: TrainConfig, monitor: SweepMonitor, parent: RunHandle, folder: str, at_once: int
) -> tune.Tuner:
    """The Ray tuner; its own files are in tune/ of the sweep's folder."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its tables appear at any verbosity
    trainable = tune.with_parameters(_run_trial, trials=monitor.trials, train=train, parent=parent)
    return tune.Tuner(
        # A trial's own process only waits for its workers, so it reserves no CPU: Ray Data needs the one that is left.
        # Ray requires some resource, hence a byte of memory.
        tune.with_resources(trainable, {"CPU": 0, "memory": 1}),
        param_space={"name": tune.grid_search(list(monitor.trials))},
        tune_config=tune.TuneConfig(
            metric=SELECT_BY, mode="min", scheduler=_scheduler(config), max_concurrent_trials=at_once
        ),
        run_config=tune.RunConfig(name="tune", storage_path=folder, callbacks=[monitor], stop=monitor, verbose=0),
    )


def _scheduler(config: SweepConfig) -> TrialScheduler:
    """ASHA over epochs, none stopped in its last one: a trial that got so far must keep its best checkpoint."""
    last = config.train.optim.epochs - 1
    if config.grace_epochs > last:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epoch",
        max_t=last,
        grace_period=config.grace_epochs,
        reduction_factor=config.reduction,
        stop_last_trials=False,
    )


def _run_trial(space: dict[str, str], trials: dict[str, Trial], train: TrainConfig, parent: RunHandle) -> None:
    """One trial, in its own process: `fit`, which also reports to Tune."""
    trial = trials[space["name"]]
    config = replace(train, name=trial.name, model=replace(train.model, **trial.changes))
    result = fit(config, callbacks=[TuneReportCallback()], parent=parent)
    if result.finished_before:  # this call reported nothing, and the scheduler needs its score
        tune.report({**result.metrics, CHECKPOINT_PATH_KEY: result.checkpoint})


class SweepMonitor(tune.Callback, tune.Stopper):
    """Follows the running trials in the driver: their best epochs, a progress bar, and whether any makes progress.

    Attributes:
        trials: by name, with their best epochs so far.
        stalled: no trial ended, or ended an epoch, for longer than ``patience``, and Tune was stopped.
    """

    def __init__(self, trials: Sequence[Trial], patience: float) -> None:
        """``patience``: seconds."""
        self.trials = {trial.name: trial for trial in trials}
        self.stalled = False
        self._patience = patience
        self._last_progress = time.monotonic()
        self.bar = tqdm(total=len(trials), unit=" trials", desc="sweep")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called by Tune when a trial ends an epoch."""
        self._last_progress = time.monotonic()
        before = self.trials[trial.config["name"]]
        if result[SELECT_BY] < before.sort_key():
            self.trials[before.name] = replace(
                before, epoch=int(result["epoch"]), score=result[SELECT_BY], checkpoint=result[CHECKPOINT_PATH_KEY]
            )
        self.bar.set_postfix(best=f"{min(map(Trial.sort_key, self.trials.values())):.4g} mm")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune when a trial ends or is stopped."""
        self._last_progress = time.monotonic()
        self.bar.update()

    on_trial_error = on_trial_complete

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop one trial: never, that is the scheduler's decision."""
        return False

    def stop_all(self) -> bool:
        """Whether to stop the sweep; Tune calls this again and again while trials run."""
        self.stalled = self.stalled or time.monotonic() - self._last_progress > self._patience
        return self.stalled


def _outcome(trial: Trial, folder: str, error: Exception | None) -> Trial:
    """The trial with its final status and score; those of a finished one are read from its folder.

    Reports of earlier drivers are missing from ``trial``; the folder has the best epoch over all restarts.
    """
    own = RunFolder(join(folder, trial.name))
    if (result := own.result()) is not None:
        metrics = result["metrics"]
        return replace(
            trial, status="finished", epoch=int(metrics["epoch"]), score=metrics[SELECT_BY], checkpoint=own.best
        )
    if trial.checkpoint:  # Ray reports its path without the scheme of object storage
        trial = replace(trial, checkpoint=join(own.path, trial.checkpoint.rstrip("/").rpartition("/")[2]))
    if error is not None:
        return replace(trial, status=f"failed: {' '.join(str(error).split())[-200:]}")
    return replace(trial, status="stopped")


def _end_stopped_runs(trials: Sequence[Trial], train: TrainConfig, parent: RunHandle) -> None:
    """Ends the MLflow runs of stopped trials, whose own processes were killed before they could."""
    for trial in trials:
        if trial.status == "stopped":
            folder = join(train.cluster.storage or "", trial.name)
            run = Tracker.open(parent.tracking_uri, train.experiment, trial.name, folder, parent)
            run.set_tags({"das.stopped": "fell behind the other trials of its sweep"})
            run.finish("KILLED")
