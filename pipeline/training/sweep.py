"""A sweep over the loss weights of Eq. 10 and the number of recursive updates: every trial is one `fit`.

Ray Tune runs as many trials at once as the cluster holds and stops those that fall behind (ASHA); a trial's model
learns through Ray Train exactly as it does alone. What the trials try is drawn before the first one starts, from the
seed alone. So a trial has a name, and a sweep that was interrupted goes on when it is called again: its trials resume,
or find that they have ended.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.integration.ray_train import CHECKPOINT_PATH_KEY, TuneReportCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException
from tqdm import tqdm

from das.fields import check_values
from pipeline.infra.cluster import connect, preflight
from pipeline.infra.configs import flat
from pipeline.infra.files import copy_folder, exists, join, read_json, write_json
from pipeline.tracking.tracker import RunHandle, Tracker
from pipeline.training.config import TrainConfig
from pipeline.training.fit import (
    SELECT_BY,
    fit,
    identity,
    panoptic_presets,
    publish,
    refuse_another,
    small_training,
    training_job,
    worker_resources,
)


@dataclass(frozen=True)
class SweepConfig:
    """One sweep. The same `name` in the same storage resumes; a finished one is a no-op."""

    train: TrainConfig = field(default_factory=small_training)
    """The training that is varied; trials take their names from the sweep."""
    name: str = "das-sweep"
    """Identity of the sweep: its folder in the storage and its MLflow run, the parent of its trials' runs."""
    trials: int = 16
    """Trials; the first is the training as it stands, which the others have to beat."""
    centerness_weight: tuple[float, float] | None = (0.25, 4.0)
    """lambda_1 of Eq. 10 is drawn log-uniformly between these multiples of the training's own; None keeps it."""
    root_weight: tuple[float, float] | None = (0.25, 4.0)
    """lambda_2 of Eq. 10, likewise."""
    pose_weight: tuple[float, float] | None = (0.25, 4.0)
    """lambda_3 of Eq. 10, likewise."""
    update_layers: tuple[int, ...] = (0, 1, 2, 3)
    """Numbers of update layers, tried in turn; empty leaves it as it stands."""
    grace_epochs: int = 1
    """Epochs that every trial gets before it may be stopped."""
    reduction: float = 3.0
    """At every rung (grace_epochs, times this, times this again, ...) about the best 1 / reduction go on."""
    max_concurrent: int | None = None
    """Trials at once, at most; never more than the cluster holds."""
    no_progress_minutes: float = 120.0
    """The sweep gives up when no trial ends an epoch for so long: an epoch must be shorter."""
    seed: int = 0
    """Of what the trials try."""

    def __post_init__(self) -> None:
        checks = (
            ("name", bool(self.name) and "/" not in self.name, "a name without '/'"),
            ("trials", self.trials >= 1, "at least 1"),
            *((w, _is_range(getattr(self, w)), "0 < low < high, or None") for w in WEIGHTS),
            ("grace_epochs", self.grace_epochs >= 1, "at least 1"),
            ("reduction", self.reduction > 1, "above 1"),
            ("max_concurrent", self.max_concurrent is None or self.max_concurrent >= 1, "at least 1, or None"),
            ("no_progress_minutes", self.no_progress_minutes > 0, "above 0"),
        )
        check_values(self, *checks)
        own = self.train.model.build()
        for name in WEIGHTS:
            if getattr(self, name) is not None and getattr(own, name) == 0:
                raise ValueError(f"{name} = {getattr(self, name)}, but the training's own is 0; wanted None")
        for layers in self.update_layers:
            model = replace(self.train.model, update_layers=layers).build()
            if model.layers != layers:
                raise ValueError(f"update_layers = {self.update_layers}, but update = {model.update!r} has none")


WEIGHTS = ("centerness_weight", "root_weight", "pose_weight")


def _is_range(value: tuple[float, float] | None) -> bool:
    return value is None or 0 < value[0] < value[1]


@dataclass(frozen=True)
class Trial:
    """What became of one trial.

    Attributes:
        name: of its training.
        changes: fields of ModelChoice that it changes.
        status: finished, stopped (it fell behind) or failed: and the reason.
        epoch: the epoch that gave the score, 0 if none ended.
        score: its smallest val error, mm (`SELECT_BY`); None if none was measured.
        checkpoint: of that epoch.
    """

    name: str
    changes: dict[str, Any]
    status: str = "running"
    epoch: int = 0
    score: float | None = None
    checkpoint: str = ""

    def key(self) -> float:
        """Sorts the best first."""
        return math.inf if self.score is None else self.score

    def line(self) -> str:
        """For a table."""
        measured = "not measured" if self.score is None else f"{self.score:.4g} mm in epoch {self.epoch}"
        changes = ", ".join(f"{name} {value:g}" for name, value in self.changes.items()) or "as it stands"
        return f"{self.name}: {measured}, {self.status}; {changes}"


@dataclass(frozen=True)
class SweepResult:
    """What a sweep leaves behind.

    Attributes:
        checkpoint: folder of the best trial's best checkpoint, storage/name/best.
        run_id: the MLflow run of the sweep.
        trials: all of them, the best one first.
        finished_before: the sweep had ended before; nothing was done.
    """

    checkpoint: str
    run_id: str
    trials: tuple[Trial, ...]
    finished_before: bool

    def summary(self) -> str:
        """A table of the trials, and the best one's checkpoint."""
        head = "finished before, nothing to do" if self.finished_before else "finished"
        rows = (f"  {trial.line()}" for trial in self.trials)
        best = f"best trial {self.trials[0].name}: {self.checkpoint}"
        return "\n".join((f"sweep {head} (MLflow run {self.run_id}), by {SELECT_BY}", *rows, best))


def sweep_presets() -> dict[str, tuple[str, SweepConfig]]:
    """The usual Panoptic trainings, each as the base of a sweep."""
    return {name: (text, SweepConfig(train=train)) for name, (text, train) in panoptic_presets().items()}


def draw_trials(config: SweepConfig) -> list[Trial]:
    """What every trial tries; the same for the same configuration, and the first ones the same for more trials."""
    ranges, own = {name: getattr(config, name) for name in WEIGHTS}, config.train.model.build()
    space = {
        name: tune.loguniform(*(getattr(own, name) * end for end in ends))
        for name, ends in ranges.items()
        if ends is not None
    }
    rng = np.random.RandomState(config.seed)  # the kind that Tune draws from
    trials = [Trial(f"{config.name}-0", {})]
    for i in range(1, config.trials):
        changes = {name: float(f"{domain.sample(random_state=rng):.3g}") for name, domain in space.items()}
        if config.update_layers:
            changes["update_layers"] = config.update_layers[(i - 1) % len(config.update_layers)]
        trials.append(Trial(f"{config.name}-{i}", changes))
    return trials


def sweep(config: SweepConfig) -> SweepResult:
    """Runs a sweep to its end, or continues it, or says that it has ended before.

    Raises:
        ValueError: data, model or resources that do not fit together; no val split to compare on; a name that
            another sweep has taken.
        TimeoutError: no trial ended an epoch for `no_progress_minutes`.
        RuntimeError: every trial failed.
    """
    job = training_job(config.train)
    if not job.val_keys:
        raise ValueError(f"{job.config.val or job.config.data[0]} has no val split, wanted one to compare trials on")
    cluster = connect(replace(config.train.cluster, dashboard=True))
    folder = join(cluster.storage, config.name)
    asked = asdict(config) | {"train": identity(job)}
    del asked["max_concurrent"], asked["no_progress_minutes"]  # these may change
    if exists(join(folder, "sweep.json")):
        refuse_another(join(folder, "sweep.json"), asked)
    if exists(join(folder, "finished.json")):
        return _ended(folder, finished_before=True)
    _require_dashboard()
    fitting = preflight(config.train.workers, worker_resources(config.train), config.trials, spare_cpus=1.0)
    at_once = min(fitting, config.max_concurrent or fitting)
    write_json(join(folder, "sweep.json"), asked)

    inside = replace(config.train.cluster, storage=folder, tracking_uri=cluster.tracking_uri)
    train = replace(job.config, cluster=inside)
    watch = _Watch(draw_trials(config), 60 * config.no_progress_minutes)
    with Tracker.open(cluster.tracking_uri, train.experiment, config.name, folder) as tracker:
        tracker.log_params(flat(config))
        with watch.bar:
            results = _tuner(config, train, watch, tracker.handle, folder, at_once).fit()
        if watch.stalled:
            raise TimeoutError(
                f"no trial ended an epoch for {config.no_progress_minutes:g} minutes: the cluster gives them too "
                "little (see `ray status`), or an epoch takes longer than no_progress_minutes"
            )
        errors = {result.config["name"]: result.error for result in results if result.error is not None}
        trials = sorted((_outcome(t, folder, errors.get(t.name)) for t in watch.trials.values()), key=Trial.key)
        if trials[0].score is None:
            raise RuntimeError(f"every trial failed; {trials[0].name}: {trials[0].status}")
        _end_stopped_runs(trials, train, tracker.handle)
        with tempfile.TemporaryDirectory() as local:
            copy_folder(trials[0].checkpoint, local)
            publish(local, join(folder, "best"), tracker)
        tracker.log_metrics({SELECT_BY: trials[0].score, "trials": len(trials)}, step=0)
        tracker.set_tags({"das.best.trial": trials[0].name, "das.best.checkpoint": join(folder, "best")})
        tracker.describe(f"Best trial {trials[0].line()}")
        tracker.log_json("trials.json", [asdict(t) for t in trials])
    write_json(join(folder, "finished.json"), {"run_id": tracker.handle.run_id, "trials": [asdict(t) for t in trials]})
    return _ended(folder, finished_before=False)


def _ended(folder: str, finished_before: bool) -> SweepResult:
    ended = read_json(join(folder, "finished.json"))
    trials = tuple(Trial(**trial) for trial in ended["trials"])
    return SweepResult(join(folder, "best"), ended["run_id"], trials, finished_before)


def _require_dashboard() -> None:
    """ValueError on a cluster whose dashboard is off: through it Ray frees what a stopped trial held."""
    try:
        list_nodes(address=ray.get_runtime_context().gcs_address, limit=1)
    except (RayStateApiException, ConnectionError) as error:
        raise ValueError(
            "this cluster has no dashboard, without which stopped trials keep their CPUs and GPUs: wanted one "
            "(`ray start --include-dashboard=true`)"
        ) from error


def _tuner(
    config: SweepConfig, train: TrainConfig, watch: _Watch, parent: RunHandle, folder: str, at_once: int
) -> tune.Tuner:
    """The Ray tuner; its own notes lie in tune/ of the sweep's folder."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its tables appear at any verbosity
    trainable = tune.with_parameters(_run_trial, trials=watch.trials, train=train, parent=parent)
    return tune.Tuner(
        # The trial itself only waits for its workers. Any share of a CPU would leave less than the whole one that
        # reading needs, and Ray wants to see some resource: a byte of memory.
        tune.with_resources(trainable, {"CPU": 0, "memory": 1}),
        param_space={"name": tune.grid_search(list(watch.trials))},
        tune_config=tune.TuneConfig(
            metric=SELECT_BY, mode="min", scheduler=_scheduler(config), max_concurrent_trials=at_once
        ),
        run_config=tune.RunConfig(name="tune", storage_path=folder, callbacks=[watch], stop=watch, verbose=0),
    )


def _scheduler(config: SweepConfig) -> TrialScheduler:
    """ASHA over epochs, without a rung at the last one: a trial that got there may write its best checkpoint."""
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
    """One trial, in a process of its own: the same `fit` that trains alone, reporting to Tune as well."""
    trial = trials[space["name"]]
    config = replace(train, name=trial.name, model=replace(train.model, **trial.changes))
    result = fit(config, callbacks=[TuneReportCallback()], parent=parent)
    if result.finished_before:  # nothing was reported this time, and the scheduler compares
        tune.report({**result.metrics, CHECKPOINT_PATH_KEY: result.checkpoint})


class _Watch(tune.Callback, tune.Stopper):
    """The driver's view of the running trials: their best epochs, a progress bar, and whether anything moves.

    Attributes:
        trials: by name, with their best epochs so far.
        stalled: nothing moved for longer than patience (s), and Tune was told to stop.
    """

    def __init__(self, trials: Sequence[Trial], patience: float) -> None:
        self.trials = {trial.name: trial for trial in trials}
        self.stalled = False
        self._patience = patience
        self._moved = time.monotonic()
        self.bar = tqdm(total=len(trials), unit=" trials", desc="sweep")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch of a trial has ended."""
        self._moved = time.monotonic()
        known = self.trials[trial.config["name"]]
        if result[SELECT_BY] < known.key():
            self.trials[known.name] = replace(
                known, epoch=int(result["epoch"]), score=result[SELECT_BY], checkpoint=result[CHECKPOINT_PATH_KEY]
            )
        self.bar.set_postfix(best=f"{min(map(Trial.key, self.trials.values())):.4g} mm")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended or was stopped."""
        self._moved = time.monotonic()
        self.bar.update()

    on_trial_error = on_trial_complete

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is stopped here."""
        return False

    def stop_all(self) -> bool:
        """Whether to give up; Tune asks all the time."""
        self.stalled = self.stalled or time.monotonic() - self._moved > self._patience
        return self.stalled


def _outcome(trial: Trial, folder: str, error: Exception | None) -> Trial:
    """The trial with what became of it; of a finished one, all restarts included, its own folder tells."""
    home = join(folder, trial.name)
    if exists(join(home, "finished.json")):
        metrics = read_json(join(home, "finished.json"))["metrics"]
        return replace(
            trial,
            status="finished",
            epoch=int(metrics["epoch"]),
            score=metrics[SELECT_BY],
            checkpoint=join(home, "best"),
        )
    if trial.checkpoint:  # reported as a path without the scheme of object storage
        trial = replace(trial, checkpoint=join(home, trial.checkpoint.rstrip("/").rpartition("/")[2]))
    if error is not None:
        return replace(trial, status=f"failed: {' '.join(str(error).split())[-200:]}")
    return replace(trial, status="stopped")


def _end_stopped_runs(trials: Sequence[Trial], train: TrainConfig, parent: RunHandle) -> None:
    """Ends the MLflow runs of trials that fell behind: their drivers were stopped before they could."""
    for trial in trials:
        if trial.status == "stopped":
            home = join(train.cluster.storage or "", trial.name)
            run = Tracker.open(parent.tracking_uri, train.experiment, trial.name, home, parent)
            run.set_tags({"das.stopped": "fell behind the other trials of its sweep"})
            run.finish("KILLED")
