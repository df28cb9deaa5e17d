"""Settings of `das promote` and `das registry`."""

from __future__ import annotations

from dataclasses import dataclass, field

import tyro

from pipeline.infra.cluster import StoreConfig


@dataclass(frozen=True)
class PromoteConfig:
    """One candidate for the alias champion."""

    model: str
    """Checkpoint folder (or URI), such as runs/NAME/best, or runs:/RUN_ID/checkpoint."""
    scores: str
    """Its evaluation by `das evaluate`: the folder, the scores.json in it, or the id of the MLflow run."""
    name: str
    """Registered model that it is a version of: das-panoptic, das-mupots, or any other; under a new name it is the
    first version, whose joint set all later ones must have."""
    run: str | None = None
    """MLflow run of the training; needed where `model` is a folder without finished.json beside it, unless it was
    imported (`das import-release`): of such weights an MLflow run of their own is made."""
    gate: str | None = None
    """JSON file with fields of the gate; all fields that it does not set have the values that `das registry gate NAME`
    prints."""
    data: tuple[str, ...] = ()
    """Prepared folders of the evaluation, if they have moved; by default those that its report.json names."""
    cluster: StoreConfig = field(default_factory=StoreConfig)
    """Where runs and registry are."""


@dataclass(frozen=True)
class History:
    """All versions with their scores and verdicts, and every change of champion."""

    name: tyro.conf.Positional[str]
    """Registered model."""
    cluster: StoreConfig = field(default_factory=StoreConfig)
    """Where the registry is."""


@dataclass(frozen=True)
class Diff:
    """What differs between two versions: settings, data, code and, image by image, their scores."""

    name: tyro.conf.Positional[str]
    """Registered model."""
    first: tyro.conf.Positional[str]
    """Number of a version, or an alias such as champion."""
    second: tyro.conf.Positional[str]
    """The version or alias to compare it with."""
    data: tuple[str, ...] = ()
    """Prepared folders of their evaluations, if they have moved."""
    cluster: StoreConfig = field(default_factory=StoreConfig)
    """Where the registry is."""


@dataclass(frozen=True)
class Rollback:
    """Make the version before the champion, or another former one, champion again."""

    name: tyro.conf.Positional[str]
    """Registered model."""
    to: int | None = None
    """A former champion; by default the one that the champion replaced."""
    reason: str = "not given"
    """Reason, shown in the history."""
    cluster: StoreConfig = field(default_factory=StoreConfig)
    """Where the registry is."""


@dataclass(frozen=True)
class DefaultGate:
    """Print the default gate of a registered model as JSON, a template for `das promote --gate FILE`."""

    name: tyro.conf.Positional[str]
    """Registered model."""


@dataclass(frozen=True)
class RegistryConfig:
    """One of the commands of `das registry`."""

    command: History | Diff | Rollback | DefaultGate
    """What to do."""
