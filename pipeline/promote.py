"""A checkpoint becomes a version of its task's registered model, and champion if the gate lets it.

A refused version stays registered, with the reasons on it and without an alias: history is part of the registry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from das.checkpoint import ModelInfo, load_info
from das.skeleton import MUCO21, PANOPTIC15
from pipeline import registry
from pipeline.cluster import ClusterConfig
from pipeline.gate import Gate, Scores, Verdict
from pipeline.storage import exists, join, read_json

# A model of other joints must never become the champion of a task.
_SKELETONS = {"das-panoptic": PANOPTIC15.name, "das-mupots": MUCO21.name, "das-demo": PANOPTIC15.name}


@dataclass(frozen=True)
class PromoteConfig:
    """One candidate for the alias champion."""

    model: str
    """Checkpoint folder, such as runs/NAME/best, or runs:/RUN_ID/checkpoint."""
    scores: str
    """Its scores.json from `das evaluate`, the evaluation's folder, or the id of the evaluation's MLflow run."""
    name: Literal["das-panoptic", "das-mupots", "das-demo"]
    """Registered model that it is a version of."""
    run: str | None = None
    """MLflow run of the training, where it cannot be told from `model`."""
    gate: Gate = field(default_factory=Gate)
    """What a candidate must reach."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where runs and registry are: storage and tracking_uri count, Ray is not started."""


@dataclass(frozen=True)
class PromoteResult:
    """What became of a candidate.

    Attributes:
        name, version: of the registered model.
        verdict: the gate's decision and its reasons.
        champion: this version is the champion now, made so today or before.
        holder: the version that is; None without one.
        terms: of the data that the model was trained on.
    """

    name: str
    version: int
    verdict: Verdict
    champion: bool
    holder: int | None
    terms: tuple[str, ...]

    def summary(self) -> str:
        """The decision, its reasons and the terms, a line each."""
        decision = "promoted" if self.verdict.passed else "not promoted"
        holder = "nobody" if self.holder is None else f"version {self.holder}"
        lines = [f"{self.name} version {self.version} {decision}; champion is {holder}"]
        lines += [f"  {reason}" for reason in self.verdict.reasons]
        return "\n".join(lines + [f"  terms of its training data: {terms}" for terms in self.terms])


def promote(config: PromoteConfig) -> PromoteResult:
    """Registers the checkpoint and lets the gate decide; a checkpoint that is a version already stays that version.

    Raises:
        ValueError: a model, scores or run that do not exist or do not belong together; nothing is registered.
    """
    _, tracking_uri = config.cluster.locations()
    folder = registry.resolve_model(config.model, tracking_uri)
    info, mark = load_info(folder), registry.fingerprint(folder)
    scores = _scores(config.scores, tracking_uri)
    if scores.model_fingerprint != mark:
        raise ValueError(
            f"{config.scores}: scores of model {scores.model_fingerprint[:12]}, but {config.model} is {mark[:12]}: "
            "evaluate this model first"
        )
    if not scores.split.endswith("/test"):
        # The score threshold and the best epoch were chosen on val.
        raise ValueError(f"{config.scores}: scores on {scores.split}, promotion decides by a test split")
    _check_task(config.name, info)
    run_id = config.run or _training_run(config.model, folder)
    version = registry.register(tracking_uri, config.name, run_id, folder)
    verdict = registry.promote(tracking_uri, config.name, version, scores, config.gate)
    holder = registry.champion_version(tracking_uri, config.name)
    terms = tuple(dict.fromkeys(info.data["terms"]))
    return PromoteResult(config.name, version, verdict, holder == version, holder, terms)


def _scores(where: str, tracking_uri: str) -> Scores:
    """Scores from a file, an evaluation's folder or an MLflow run."""
    for path in (where, join(where, registry.SCORES_FILE)):
        if path.endswith(".json") and exists(path):
            return Scores.from_json(read_json(path))
    if re.fullmatch(r"[0-9a-f]{32}", where):
        return registry.read_scores(tracking_uri, where)
    raise ValueError(f"scores = {where!r}, wanted scores.json, its folder, or the id of an evaluation's MLflow run")


def _check_task(name: str, info: ModelInfo) -> None:
    found, wanted = info.model.skeleton.name, _SKELETONS[name]
    if found != wanted:
        raise ValueError(f"the model predicts the joint set {found}, versions of {name} predict {wanted}")


def _training_run(model: str, folder: Path) -> str:
    """The MLflow run that trained a checkpoint: named in its URI, or written beside it when training finished."""
    if model.startswith("runs:/"):
        return model.removeprefix("runs:/").split("/")[0]
    note = folder.parent / "finished.json"
    if not note.is_file():
        raise ValueError(f"{model}: its training run is not known (no {note.name} beside it), wanted --run RUN_ID")
    return str(read_json(note)["run_id"])
