"""What a sweep varies: its configuration, and the trials that are drawn from it before the first one starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ray import tune

from das.fields import at_least, check_name, check_values
from pipeline.training.config import TrainConfig
from pipeline.training.presets import small_training

# Fields of ModelChoice and SweepConfig: lambda_1, lambda_2 and lambda_3 of Eq. 10.
WEIGHTS = ("centerness_weight", "root_weight", "pose_weight")


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
        check_name(self)
        at_least(self, trials=1, grace_epochs=1, max_concurrent=1)
        check_values(
            self,
            *((w, _is_range(getattr(self, w)), "0 < low < high, or None") for w in WEIGHTS),
            ("reduction", self.reduction > 1, "above 1"),
            ("no_progress_minutes", self.no_progress_minutes > 0, "above 0"),
        )
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

    def sort_key(self) -> float:
        """Sorts the best trial first and those without a score last."""
        return math.inf if self.score is None else self.score

    def line(self) -> str:
        """For a table."""
        measured = "not measured" if self.score is None else f"{self.score:.4g} mm in epoch {self.epoch}"
        changes = ", ".join(f"{name} {value:g}" for name, value in self.changes.items()) or "as it stands"
        return f"{self.name}: {measured}, {self.status}; {changes}"


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
