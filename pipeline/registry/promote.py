"""Registers a checkpoint as a version of its task's registered model, and makes it champion if the gate passes it.

First the candidate is checked alone: the registered files are loaded back and must have the registered fingerprint,
reproduce the scores of their evaluation, and have been trained on other images. Then, under the lock
(champion_lock.py), it is compared with the version that is champion at that moment: both are scored again from their
stored predictions, image by image.

A refused version stays registered, with the reasons in its description. ``challenger`` is the newest version that
passed all checks that do not involve the champion.
"""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from das.model_info import ModelInfo, Origin, load_info
from das.skeleton import Skeleton
from pipeline.data.record import Record
from pipeline.evaluation.annotations import Annotations, read_annotations
from pipeline.evaluation.predictions_file import PREDICTIONS_FILE, PredictionSet
from pipeline.evaluation.result import REPORT_FILE
from pipeline.evaluation.scores import SCORES_FILE, Evidence, Scores
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.files import beside, exists, join, read_bytes, read_json
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.infra.redaction import redacted
from pipeline.models import FINISHED_FILE, fingerprint, resolve_model, run_file
from pipeline.registry.champion_lock import champion_lock
from pipeline.registry.config import PromoteConfig
from pipeline.registry.gate import Check, Gate, Verdict
from pipeline.registry.gate_inputs import evidence_of
from pipeline.registry.registered_model import RegisteredModel
from pipeline.registry.tasks import TASKS, default_gate
from pipeline.registry.versions import Version
from pipeline.tracking.tracker import Tracker

_FILES = (SCORES_FILE, REPORT_FILE, PREDICTIONS_FILE)


@dataclass(frozen=True)
class PromoteResult:
    """The decision on a candidate.

    Attributes:
        name, version: of the registered model.
        verdict: the gate's decision and its reasons.
        champion: this version is the champion, since this call or before.
        champion_version: number of the champion; None without one.
        terms: of the data that the model was trained on.
    """

    name: str
    version: int
    verdict: Verdict
    champion: bool
    champion_version: int | None
    terms: tuple[str, ...]

    def summary(self) -> str:
        """The decision, its reasons and the terms, a line each."""
        decision = "promoted" if self.verdict.passed else "not promoted"
        n = self.champion_version
        champion = "no version is champion" if n is None else f"champion is version {n}"
        lines = [f"{self.name} version {self.version} {decision}; {champion}"]
        lines += [f"  {reason}" for reason in self.verdict.reasons]
        return "\n".join(lines + [f"  terms of its training data: {terms}" for terms in self.terms])


@dataclass(frozen=True)
class _Candidate:
    """A candidate and its evaluation, after the checks that they belong together.

    Attributes:
        run_id: of its training; None for imported weights.
    """

    folder: Path
    info: ModelInfo
    run_id: str | None
    annotations: Annotations
    predictions_file: Path
    predictions: PredictionSet
    evidence: Evidence


@dataclass(frozen=True)
class _Registered:
    """A candidate's registered files: checked without the champion, and ready to be compared with one.

    Attributes:
        files: downloaded checkpoint; None where it is not what was registered.
        batch: images of the fixed batch; empty without files.
        checks: of the files alone.
    """

    files: Path | None
    batch: list[Record]
    checks: tuple[Check, ...]


def promote(config: PromoteConfig, gate: Gate | None = None) -> PromoteResult:
    """Registers the checkpoint and decides by the gate; a checkpoint that is a version already stays that version.

    A new evaluation of the champion itself, on other data for example, replaces the one that later candidates are
    compared with.

    Args:
        config: the candidate.
        gate: the conditions; None for ``config.gate``, or else the model's default.

    Raises:
        ValueError: a model, scores, data, gate or run that do not exist or do not belong together; nothing is
            registered.
        TimeoutError: other processes held the lock for too long.
    """
    _, tracking_uri = config.cluster.locations()
    model = RegisteredModel(MlflowStore(tracking_uri), config.name)
    gate = gate or read_gate(config)
    with tempfile.TemporaryDirectory(prefix="promote-") as scratch:
        candidate = _read(config, model, Path(scratch))
        run_id = candidate.run_id or _run_of_import(config, candidate.info.origin)
        version = model.version(model.register(run_id, candidate.folder))
        registered = _check_alone(candidate, version, gate, Path(scratch))
        if registered.files is None or not all(check.passed for check in registered.checks):
            verdict = Verdict(registered.checks)
            version.write_verdict(verdict, gate)
        else:
            verdict = _decide(model, candidate, version, registered, gate)
    champion = model.champion()
    terms = tuple(dict.fromkeys(candidate.info.data["terms"]))
    return PromoteResult(config.name, version.number, verdict, champion == version.number, champion, terms)


def read_gate(config: PromoteConfig) -> Gate:
    """The gate of a promotion; ValueError names the file, and the field in it, that is wrong."""
    default = default_gate(config.name)
    if config.gate is None:
        return default
    fields = read_json(config.gate)
    try:
        return default.changed_by(fields)
    except ValueError as error:
        raise ValueError(f"{config.gate}: {error}") from error


# ---- the candidate ----


def _read(config: PromoteConfig, model: RegisteredModel, scratch: Path) -> _Candidate:
    """Reads and checks everything that a user may have got wrong, before anything is registered."""
    folder = resolve_model(config.model, model.store.uri)
    info, digest = load_info(folder), fingerprint(folder)
    files = _evaluation(config.scores, model.store, scratch)
    scores = Scores.from_json(read_json(files[SCORES_FILE]))
    if scores.model_fingerprint != digest:
        raise ValueError(
            f"{config.scores}: scores of model {scores.model_fingerprint[:12]}, but {config.model} is {digest[:12]}: "
            "evaluate this model first"
        )
    if not scores.split.endswith("/test"):
        # Scores on val are too good: the score threshold and the best epoch were chosen there.
        raise ValueError(f"{config.scores}: scores on {scores.split}, promotion decides by a test split")
    _check_joint_set(model, info.model.skeleton)
    run_id = config.run or (None if info.imported else _training_run(config.model, folder))
    data = config.data or read_json(files[REPORT_FILE])["data"]["folders"]
    try:
        annotations = read_annotations([absolute_storage(place) for place in data], "test")
    except ValueError as error:
        raise ValueError(f"{error}; wanted the evaluated data, or --data with the folders where it is now") from error
    predictions = PredictionSet.load(files[PREDICTIONS_FILE])
    if predictions.provenance.model_fingerprint != digest:
        found = predictions.provenance.model_fingerprint[:12]
        raise ValueError(f"{config.scores}: its predictions are of model {found}")
    evidence = evidence_of(annotations, predictions)
    _same_scores(config.scores, scores, evidence.scores, predictions)
    return _Candidate(folder, info, run_id, annotations, files[PREDICTIONS_FILE], predictions, evidence)


def _evaluation(where: str, store: MlflowStore, scratch: Path) -> dict[str, Path]:
    """Local copies of an evaluation's files, from its folder, its scores.json or its MLflow run."""
    folder = where.removesuffix(SCORES_FILE).rstrip("/") if where.endswith(".json") else where
    if exists(join(folder, SCORES_FILE)):
        files = {name: scratch / name for name in _FILES}
        for name, path in files.items():
            path.write_bytes(read_bytes(join(folder, name)))
        return files
    if re.fullmatch(r"[0-9a-f]{32}", where):
        return {name: run_file(store, where, name, scratch) for name in _FILES}
    raise ValueError(f"scores = {where!r}, wanted scores.json, its folder, or the id of an evaluation's MLflow run")


def _same_scores(where: str, written: Scores, computed: Scores, predictions: PredictionSet) -> None:
    """ValueError where scores.json does not follow from the predictions beside it."""
    for name, a in written.to_json().items():
        b = computed.to_json()[name]
        close = isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6)
        if a != b and not close:
            threshold = predictions.provenance.score_threshold
            raise ValueError(
                f"{where}: {name} = {a}, but its predictions give {b} above the model's own threshold {threshold:g}: "
                "evaluate again, without --threshold"
            )


def _check_joint_set(model: RegisteredModel, found: Skeleton) -> None:
    """ValueError where a candidate predicts other joints than the versions of a name; a new name takes any."""
    wanted = TASKS[model.name].skeleton if model.name in TASKS else model.skeleton()
    if wanted is None or (found.joints, found.root) == (wanted.joints, wanted.root):
        return
    same = found.name == wanted.name  # own joint sets may have any name
    first, second = (f"{s.name} ({', '.join(s.joints)})" if same else s.name for s in (found, wanted))
    raise ValueError(f"the model predicts the joint set {first}, versions of {model.name} predict {second}")


def _run_of_import(config: PromoteConfig, origin: Origin | None) -> str:
    """The MLflow run that holds imported weights, which no training has made; one for all promotions of a file."""
    assert origin is not None, "only imported weights have no training run"
    storage, tracking_uri = config.cluster.locations()
    identity = f"imports/{origin.sha256[:16]}"
    with Tracker.open(tracking_uri, "das", identity, join(storage, identity)) as tracker:
        tracker.log_params({"origin": asdict(origin)})
    return tracker.handle.run_id


def _training_run(model: str, folder: Path) -> str:
    """The MLflow run that trained a checkpoint: named in its URI, or written beside it when training finished."""
    if model.startswith("runs:/"):
        return model.removeprefix("runs:/").split("/")[0]
    note = beside(model if "://" in model else folder, FINISHED_FILE)
    if not exists(note):
        raise ValueError(
            f"{redacted(model)}: no {FINISHED_FILE} beside it that names its training run, wanted --run RUN_ID"
        )
    return str(read_json(note)["run_id"])


# ---- the decision ----


def _check_alone(candidate: _Candidate, version: Version, gate: Gate, scratch: Path) -> _Registered:
    """Downloads the registered files and checks them without the champion."""
    # Here: it imports torch, and a candidate that is refused before it is registered needs none of it.
    from pipeline.registry.candidate_checks import disjoint_from_training, fixed_batch, reproduction

    try:
        # Not from the user's cache, which may still contain files that the store has lost.
        files = version.files(cache=scratch / "registered")
        intact = Check("artefact", True, f"the registered files have the fingerprint {version.fingerprint[:16]}")
    except ValueError as error:
        return _Registered(None, [], (Check("artefact", False, str(error)),))
    batch = fixed_batch(candidate.annotations, candidate.evidence, gate.batch_images)
    again = reproduction(files, batch, candidate.annotations, candidate.predictions, gate)
    # Scores that are marked as train-fit are refused for that reason already, see Gate.incomparable.
    train_fit = candidate.evidence.scores.train_fit
    disjoint = () if train_fit else (disjoint_from_training(files, candidate.annotations),)
    return _Registered(files, batch, (intact, again, *disjoint))


def _compare(
    model: RegisteredModel, candidate: _Candidate, registered: _Registered, champion: int | None, gate: Gate
) -> tuple[Check, ...]:
    """The candidate against one champion, or against the mean pose where there is none."""
    if champion is None:
        return gate.compare(candidate.evidence, None)
    version = model.version(champion)
    if version.scores is None:
        text = f"version {champion} is champion but was never scored: evaluate and promote it first"
        return (Check("comparable", False, text),)
    obstacles = gate.incomparable(candidate.evidence.scores, version.scores)
    if obstacles:
        return obstacles
    try:
        evidence = evidence_of(candidate.annotations, version.predictions())
        champion_files = version.files()
    except ValueError as error:
        return (Check("comparable", False, f"the champion cannot be compared with: {error}"),)
    checks = gate.compare(candidate.evidence, evidence)
    if gate.latency_margin is not None:
        from pipeline.registry.candidate_checks import latency

        assert registered.files is not None  # only candidates whose files passed are compared
        checks += (latency(registered.files, champion_files, registered.batch, gate.latency_margin),)
    return checks


def _decide(
    model: RegisteredModel, candidate: _Candidate, version: Version, registered: _Registered, gate: Gate
) -> Verdict:
    """Compares with the version that is champion while the lock is held, writes the verdict, moves the aliases."""
    number = version.number
    # The slow comparison is made before the lock is taken, and again under the lock only if the champion has changed.
    expected = model.champion()
    checks = () if expected == number else _compare(model, candidate, registered, expected, gate)
    with champion_lock(model.store, model.name, version.source, version.run_id) as lock:
        champion = model.champion()
        version.store_evaluation(candidate.evidence.scores, candidate.predictions_file, candidate.annotations.folders)
        if champion == number:
            text = f"version {number} is the champion already; candidates are compared with this evaluation of it"
            return Verdict((Check("champion", False, text),))
        if champion != expected:
            checks = _compare(model, candidate, registered, champion, gate)
        verdict = Verdict((*registered.checks, *checks))
        version.write_verdict(verdict, gate)
        if verdict.passed:
            model.set_champion(number, champion, lock, "passed the gate")
            model.drop_challenger(number)
        else:
            model.set_challenger(number)
    return verdict
