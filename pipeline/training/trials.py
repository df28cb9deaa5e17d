"""What a sweep varies: its configuration, and the trials that are drawn from it before the first one starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from das.fields import at_least, check_name, check_values
from pipeline.training.config import TrainConfig
from pipeline.training.presets import panoptic_presets, small_training

# Fields of ModelChoice and SweepConfig: lambda_1, lambda_2 and lambda_3 of Eq. 10.
WEIGHTS = ("centerness_weight", "root_weight", "pose_weight")


@dataclass(frozen=True)
class SweepConfig:
    """One sweep. The same `name` in the same storage resumes; a finished one is a no-op."""

    train: TrainConfig = field(default_factory=small_training)
    """The training that is varied; trials are named after the sweep, NAME-0, NAME-1, ..."""
    name: str = "das-sweep"
    """Name of the sweep: of its folder in the storage and of its MLflow run, the parent of the trials' runs."""
    trials: int = 16
    """Number of trials; the first is the training without changes, as the baseline."""
    centerness_weight: tuple[float, float] | None = (0.25, 4.0)
    """lambda_1 of Eq. 10 is drawn log-uniformly between these multiples of the training's own; None keeps it."""
    root_weight: tuple[float, float] | None = (0.25, 4.0)
    """lambda_2 of Eq. 10, likewise."""
    pose_weight: tuple[float, float] | None = (0.25, 4.0)
    """lambda_3 of Eq. 10, likewise."""
    update_layers: tuple[int, ...] = (0, 1, 2, 3)
    """Numbers of update layers, tried in turn; empty keeps the training's own."""
    grace_epochs: int = 1
    """Epochs that every trial gets before it may be stopped."""
    reduction: float = 3.0
    """After grace_epochs x this ** n epochs, n = 0, 1, ..., about the best 1 / this of the trials continue (ASHA)."""
    max_concurrent: int | None = None
    """Largest number of trials at once; None, or more than fit, means as many as the cluster has resources for."""
    no_progress_minutes: float = 120.0
    """The sweep fails when no trial ends an epoch within this time, so an epoch must be shorter."""
    seed: int = 0
    """Seed of the values that the trials try."""

    def __post_init__(self) -> None:
        check_name(self)
        at_least(self, trials=1, grace_epochs=1, max_concurrent=1)
        check_values(
            self,
            *((w, _is_range(getattr(self, w)), "0 < low < high, or None") for w in WEIGHTS),
            ("reduction", self.reduction > 1, "above 1"),
            ("no_progress_minutes", self.no_progress_minutes > 0, "above 0"),
        )
        if self.train.dry_run:
            raise ValueError("train.dry_run = True, wanted a training: das train-panoptic --dry-run")
        own = self.train.model.build()
        for name in WEIGHTS:
            if getattr(self, name) is not None and getattr(own, name) == 0:
                raise ValueError(f"{name} = {getattr(self, name)}, but the training's own is 0; wanted None")
        for layers in self.update_layers:
            model = replace(self.train.model, update_layers=layers).build()
            if model.layers != layers:
                raise ValueError(f"update_layers = {self.update_layers}, but update = {model.update!r} has none")


def _is_range(value: tuple[float, float] | None) -> bool:
    return value is None or 0 < value[0] < value[1]


@dataclass(frozen=True)
class Trial:
    """One trial: what it changes and its result.

    Attributes:
        name: of its training.
        changes: fields of ModelChoice and their values, where they differ from the sweep's training.
        status: running, finished, stopped (by ASHA, for a larger error than other trials), or "failed: " and the error.
        epoch: the epoch that gave the score, 0 if none ended.
        score: its smallest val error, mm (`SELECT_BY`); None if none was measured.
        checkpoint: folder of that epoch's checkpoint.
    """

    name: str
    changes: dict[str, Any]
    status: str = "running"
    epoch: int = 0
    score: float | None = None
    checkpoint: str = ""

    def sort_key(self) -> float:
        """Sorts the best trial first and those without a score last."""
        return math.inf if self.score is None else self.score

    def line(self) -> str:
        """One line of the summary."""
        measured = "not measured" if self.score is None else f"{self.score:.4g} mm in epoch {self.epoch}"
        changes = ", ".join(f"{name} {value:g}" for name, value in self.changes.items()) or "no changes"
        return f"{self.name}: {measured}, {self.status}; {changes}"


def draw_trials(config: SweepConfig) -> list[Trial]:
    """The trials of a sweep, before any of them runs.

    They depend on the configuration alone, so an interrupted sweep draws the same ones again; with more trials, the
    first ones stay the same.
    """
    from ray import tune  # here: `das sweep --help` needs no Ray

    ranges, own = {name: getattr(config, name) for name in WEIGHTS}, config.train.model.build()
    space = {
        name: tune.loguniform(*(getattr(own, name) * end for end in ends))
        for name, ends in ranges.items()
        if ends is not None
    }
    rng = np.random.RandomState(config.seed)  # Tune's domains draw from this older generator
    trials = [Trial(f"{config.name}-0", {})]
    for i in range(1, config.trials):
        changes = {name: float(f"{domain.sample(random_state=rng):.3g}") for name, domain in space.items()}
        if config.update_layers:
            changes["update_layers"] = config.update_layers[(i - 1) % len(config.update_layers)]
        trials.append(Trial(f"{config.name}-{i}", changes))
    return trials


def sweep_presets() -> dict[str, tuple[str, SweepConfig]]:
    """Name -> (sentence for the help, sweep) over each preset for Panoptic's joints."""
    return {name: (text, SweepConfig(train=train)) for name, (text, train) in panoptic_presets().items()}
