"""A checkpoint becomes a version of its task's registered model, and champion if the gate lets it.

First the candidate alone: its files are loaded back from the registry and must be what was registered, give the scores
of their evaluation again, and have been trained on other images. Then, under the lock (champion_lock.py), it is
compared with whoever is champion at that moment: both are scored again from the predictions that their versions keep,
image by image.

A refused version stays registered, with the reasons on it: history is part of the registry. ``challenger`` is the
newest version that passed all that does not depend on the champion.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from das.checkpoint import ModelInfo, load_info
from das.skeleton import MUCO21, PANOPTIC15
from pipeline.data.record import Record
from pipeline.evaluation.annotations import Annotations, read_annotations
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.scores import SCORES_FILE, Evidence, Scores
from pipeline.infra.cluster import ClusterConfig, absolute_storage
from pipeline.infra.files import exists, join, read_bytes, read_json
from pipeline.models import fingerprint, resolve_model
from pipeline.registry import versions
from pipeline.registry.candidate_checks import fixed_batch, latency, reproduction, unseen
from pipeline.registry.champion_lock import champion_lock
from pipeline.registry.gate import Check, Gate, Verdict, gate_for
from pipeline.registry.gate_inputs import evidence_of
from pipeline.registry.models_store import CHALLENGER, champion_version, register, run_file
from pipeline.registry.versions import Version

ModelName = Literal["das-panoptic", "das-mupots", "das-demo"]
_FILES = (SCORES_FILE, "report.json", "predictions.parquet")
# A model of other joints must never become the champion of a task.
_SKELETONS = {"das-panoptic": PANOPTIC15.name, "das-mupots": MUCO21.name, "das-demo": PANOPTIC15.name}


@dataclass(frozen=True)
class PromoteConfig:
    """One candidate for the alias champion."""

    model: str
    """Checkpoint folder, such as runs/NAME/best, or runs:/RUN_ID/checkpoint."""
    scores: str
    """Its evaluation by `das evaluate`: the folder, the scores.json in it, or the id of the MLflow run."""
    name: ModelName
    """Registered model that it is a version of."""
    run: str | None = None
    """MLflow run of the training, where it cannot be told from `model`."""
    gate: str | None = None
    """JSON file of what a candidate must reach; fields that it leaves out, and all without a file, are those that
    `das registry gate NAME` prints."""
    data: tuple[str, ...] = ()
    """Prepared folders of the evaluation, where they have moved since; by default those that it names itself."""
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


@dataclass(frozen=True)
class _Candidate:
    """A candidate and its evaluation, all read and found to belong together."""

    folder: Path
    info: ModelInfo
    run_id: str
    annotations: Annotations
    predictions_file: Path
    predictions: PredictionSet
    evidence: Evidence


def promote(config: PromoteConfig, gate: Gate | None = None) -> PromoteResult:
    """Registers the checkpoint and lets the gate decide; a checkpoint that is a version already stays that version.

    A new evaluation of the champion itself, on other data say, replaces the one that later candidates have to beat.

    Args:
        config: the candidate.
        gate: the conditions; None reads ``config.gate``, or takes the model's default.

    Raises:
        ValueError: a model, scores, data, gate or run that do not exist or do not belong together; nothing is
            registered.
        TimeoutError: others did not finish their promotions.
    """
    _, tracking_uri = config.cluster.locations()
    gate = gate or read_gate(config)
    with tempfile.TemporaryDirectory(prefix="promote-") as scratch:
        candidate = _read(config, tracking_uri, Path(scratch))
        number = register(tracking_uri, config.name, candidate.run_id, candidate.folder)
        version = versions.read_version(tracking_uri, config.name, number)
        loaded, batch, alone = _examine(candidate, version, gate, tracking_uri, Path(scratch))
        if loaded is None or not all(check.passed for check in alone):
            verdict = Verdict(alone)
            versions.write_verdict(tracking_uri, version, verdict, gate)
        else:
            files = loaded

            def against(champion: int | None) -> tuple[Check, ...]:
                return _compare(candidate, files, batch, champion, config.name, gate, tracking_uri)

            verdict = _decide(candidate, version, alone, against, gate, tracking_uri)
    holder = champion_version(tracking_uri, config.name)
    terms = tuple(dict.fromkeys(candidate.info.data["terms"]))
    return PromoteResult(config.name, number, verdict, holder == number, holder, terms)


def read_gate(config: PromoteConfig) -> Gate:
    """The gate of a promotion; ValueError names a file, or a field in it, that is none."""
    default = gate_for(config.name)
    if config.gate is None:
        return default
    try:
        return default.changed_by(read_json(config.gate))
    except ValueError as error:
        raise ValueError(f"{config.gate}: {error}") from error


# ---- the candidate ----


def _read(config: PromoteConfig, tracking_uri: str, scratch: Path) -> _Candidate:
    """Everything that can be wrong is looked at before anything is registered."""
    folder = resolve_model(config.model, tracking_uri)
    info, mark = load_info(folder), fingerprint(folder)
    files = _evaluation(config.scores, tracking_uri, scratch)
    scores = Scores.from_json(read_json(files[SCORES_FILE]))
    if scores.model_fingerprint != mark:
        raise ValueError(
            f"{config.scores}: scores of model {scores.model_fingerprint[:12]}, but {config.model} is {mark[:12]}: "
            "evaluate this model first"
        )
    if not scores.split.endswith("/test"):
        # The score threshold and the best epoch were chosen on val.
        raise ValueError(f"{config.scores}: scores on {scores.split}, promotion decides by a test split")
    found, wanted = info.model.skeleton.name, _SKELETONS[config.name]
    if found != wanted:
        raise ValueError(f"the model predicts the joint set {found}, versions of {config.name} predict {wanted}")
    run_id = config.run or _training_run(config.model, folder)
    data = config.data or read_json(files["report.json"])["data"]["folders"]
    try:
        annotations = read_annotations([absolute_storage(place) for place in data], "test")
    except ValueError as error:
        raise ValueError(f"{error}; wanted the evaluated data, or --data where it has moved to") from error
    predictions = PredictionSet.load(files["predictions.parquet"])
    if predictions.provenance.model_fingerprint != mark:
        found = predictions.provenance.model_fingerprint[:12]
        raise ValueError(f"{config.scores}: its predictions are of model {found}")
    evidence = evidence_of(annotations, predictions)
    _same_scores(config.scores, scores, evidence.scores, predictions)
    return _Candidate(folder, info, run_id, annotations, files["predictions.parquet"], predictions, evidence)


def _evaluation(where: str, tracking_uri: str, scratch: Path) -> dict[str, Path]:
    """Local copies of an evaluation's files, from its folder, its scores.json or its MLflow run."""
    folder = where.removesuffix(SCORES_FILE).rstrip("/") if where.endswith(".json") else where
    if exists(join(folder, SCORES_FILE)):
        files = {name: scratch / name for name in _FILES}
        for name, path in files.items():
            path.write_bytes(read_bytes(join(folder, name)))
        return files
    if re.fullmatch(r"[0-9a-f]{32}", where):
        return {name: run_file(tracking_uri, where, name, scratch) for name in _FILES}
    raise ValueError(f"scores = {where!r}, wanted scores.json, its folder, or the id of an evaluation's MLflow run")


def _same_scores(where: str, told: Scores, found: Scores, predictions: PredictionSet) -> None:
    """ValueError where scores.json does not follow from the predictions beside it."""
    for name, a in told.to_json().items():
        b = found.to_json()[name]
        close = isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6)
        if a != b and not close:
            threshold = predictions.provenance.score_threshold
            raise ValueError(
                f"{where}: {name} = {a}, but its predictions give {b} above the model's own threshold {threshold:g}: "
                "evaluate again, without --threshold"
            )


def _training_run(model: str, folder: Path) -> str:
    """The MLflow run that trained a checkpoint: named in its URI, or written beside it when training finished."""
    if model.startswith("runs:/"):
        return model.removeprefix("runs:/").split("/")[0]
    note = folder.parent / "finished.json"
    if not note.is_file():
        raise ValueError(f"{model}: its training run is not known (no {note.name} beside it), wanted --run RUN_ID")
    return str(read_json(note)["run_id"])


# ---- the decision ----


def _examine(
    candidate: _Candidate, version: Version, gate: Gate, tracking_uri: str, scratch: Path
) -> tuple[Path | None, list[Record], tuple[Check, ...]]:
    """The candidate alone: its registered files, None if they are not what was registered; the batch; the checks."""
    try:
        # Never from the cache, which may still hold what the store has lost.
        uri = f"models:/{version.name}/{version.number}"
        loaded = resolve_model(uri, tracking_uri, cache=scratch / "registered")
        intact = Check("artefact", True, f"the registered files have the fingerprint {version.fingerprint[:16]}")
    except ValueError as error:
        return None, [], (Check("artefact", False, str(error)),)
    batch = fixed_batch(candidate.annotations, candidate.evidence, gate.batch_images)
    again = reproduction(loaded, batch, candidate.annotations, candidate.predictions, gate)
    # Scores that are marked as train-fit are refused by that mark.
    fit = candidate.evidence.scores.train_fit
    disjoint = () if fit else (unseen(loaded, candidate.annotations),)
    return loaded, batch, (intact, again, *disjoint)


def _compare(
    candidate: _Candidate,
    files: Path,
    batch: list[Record],
    champion: int | None,
    name: str,
    gate: Gate,
    tracking_uri: str,
) -> tuple[Check, ...]:
    """The candidate against one champion, or against the mean pose where there is none."""
    if champion is None:
        return gate.judge(candidate.evidence, None)
    held = versions.read_version(tracking_uri, name, champion)
    if held.scores is None:
        text = f"version {champion} is champion but was never scored: evaluate and promote it first"
        return (Check("comparable", False, text),)
    barred = gate.incomparable(candidate.evidence.scores, held.scores)
    if barred:
        return barred
    try:
        other = evidence_of(candidate.annotations, versions.read_predictions(tracking_uri, held))
        its_files = resolve_model(f"models:/{name}/{champion}", tracking_uri)
    except ValueError as error:
        return (Check("comparable", False, f"the champion cannot be compared with: {error}"),)
    checks = gate.judge(candidate.evidence, other)
    if gate.latency_margin is not None:
        checks += (latency(files, its_files, batch, gate.latency_margin),)
    return checks


def _decide(
    candidate: _Candidate,
    version: Version,
    alone: tuple[Check, ...],
    against: Callable[[int | None], tuple[Check, ...]],
    gate: Gate,
    tracking_uri: str,
) -> Verdict:
    """Compares with whoever is champion in this candidate's turn, writes the verdict, and moves the aliases."""
    name, number, annotations = version.name, version.number, candidate.annotations
    # Before the turn, so that others need not wait for it; in the turn only if the champion is another one by then.
    expected = champion_version(tracking_uri, name)
    checks = () if expected == number else against(expected)
    with champion_lock(tracking_uri, name, version.source, version.run_id) as mine:
        champion = champion_version(tracking_uri, name)
        scores = candidate.evidence.scores
        versions.keep_evaluation(tracking_uri, version, scores, candidate.predictions_file, annotations.folders)
        if champion == number:
            text = f"version {number} is the champion already; candidates are compared with this evaluation of it"
            return Verdict((Check("champion", False, text),))
        if champion != expected:
            checks = against(champion)
        verdict = Verdict((*alone, *checks))
        versions.write_verdict(tracking_uri, version, verdict, gate)
        if verdict.passed:
            versions.crown(tracking_uri, version, champion, mine, "passed the gate")
            versions.drop_alias(tracking_uri, version, CHALLENGER)
        else:
            versions.set_alias(tracking_uri, version, CHALLENGER)
    return verdict
