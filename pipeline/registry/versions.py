"""What the registry knows of a version besides its files: its evaluation, the verdict on it, and its succession.

Everything stands in MLflow, where a person can read it too: tags and description of the version, and, of the registered
model, one tag for every time that an alias moved. A version keeps the predictions of its evaluation beside its
checkpoint, under their hash, since an evaluation that is repeated under the same name replaces its files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.scores import Scores
from pipeline.infra.code_version import code_version
from pipeline.infra.mlflow_client import mlflow_client, talking_to
from pipeline.models import FINGERPRINT, aliased, aliases, all_versions, find_version
from pipeline.registry.champion_lock import ChampionLock
from pipeline.registry.gate import Gate, Verdict
from pipeline.registry.models_store import CHAMPION, run_file

_SCORES, _EVALUATION, _VERDICT, _GATE = "das.scores", "das.evaluation", "das.verdict", "das.gate"
_JUDGED, _JUDGED_BY, _REPLACED, _PROMOTED = "das.judged", "das.judged_by", "das.replaced", "das.promoted"
_MOVE = "das.move."
_PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class Version:
    """One version of a registered model, as the store has it now.

    Attributes:
        name, number: of the version. run_id: the training. source: runs:/RUN_ID/PATH. fingerprint: of its files.
        aliases: that point at it. created_ms: when it was registered, milliseconds since 1970.
        tags: all of them.
    """

    name: str
    number: int
    run_id: str
    source: str
    fingerprint: str
    aliases: tuple[str, ...]
    created_ms: int
    tags: dict[str, str]

    @property
    def scores(self) -> Scores | None:
        """Of its last evaluation that a gate has seen."""
        return Scores.from_json(json.loads(self.tags[_SCORES])) if _SCORES in self.tags else None

    @property
    def data(self) -> tuple[str, ...]:
        """Prepared folders of that evaluation."""
        return tuple(json.loads(self.tags[_EVALUATION])["data"]) if _EVALUATION in self.tags else ()

    @property
    def verdict(self) -> str:
        """The last verdict in a sentence; empty where no gate has judged."""
        return self.tags.get(_VERDICT, "")

    @property
    def judged(self) -> str:
        """When, UTC."""
        return self.tags.get(_JUDGED, "")

    @property
    def replaced(self) -> int | None:
        """The champion before, of a version that became champion."""
        return int(self.tags[_REPLACED]) if _REPLACED in self.tags else None

    @property
    def was_champion(self) -> bool:
        """It is, or has been, the champion."""
        return _PROMOTED in self.tags


@dataclass(frozen=True)
class Move:
    """One change of who is champion: when (UTC), from and to which version, and why."""

    time: str
    before: int | None
    after: int
    why: str


def read_version(tracking_uri: str, name: str, which: int | str) -> Version:
    """A version by its number or by an alias; ValueError where there is none."""
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        number = int(which) if str(which).isdigit() else aliased(client, name, str(which))
        return _version(find_version(client, name, number), aliases(client, name))


def read_versions(tracking_uri: str, name: str) -> list[Version]:
    """All versions that this project registered, the oldest first; ValueError without such a model."""
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        held = aliases(client, name)
        return [_version(found, held) for found in all_versions(client, name) if FINGERPRINT in found.tags]


def read_moves(tracking_uri: str, name: str) -> list[Move]:
    """Who became champion when, the first one first."""
    with talking_to(tracking_uri):
        tags = mlflow_client(tracking_uri, must_exist=True).get_registered_model(name).tags
    return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_MOVE)]


def _version(found: Any, held: dict[str, int]) -> Version:
    number = int(found.version)
    return Version(
        name=found.name,
        number=number,
        run_id=found.run_id,
        source=found.source,
        fingerprint=found.tags[FINGERPRINT],
        aliases=tuple(sorted(alias for alias, version in held.items() if version == number)),
        created_ms=int(found.creation_timestamp),
        tags=dict(found.tags),
    )


# ---- the evaluation ----


def keep_evaluation(
    tracking_uri: str, version: Version, scores: Scores, predictions: str | Path, data: Sequence[str]
) -> None:
    """Stores what a later comparison needs with a version: its scores, and a copy of the predictions behind them.

    Args:
        tracking_uri: absolute address of the MLflow store.
        version: the evaluated one.
        scores: the headline.
        predictions: local predictions file.
        data: prepared folders that were evaluated.
    """
    mark = _hash(predictions)
    target = f"evaluations/{mark[:16]}"
    with talking_to(tracking_uri), tempfile.TemporaryDirectory() as staging:
        client = mlflow_client(tracking_uri, must_exist=True)
        shutil.copy2(predictions, Path(staging) / _PREDICTIONS)
        client.log_artifacts(version.run_id, staging, target)
        evaluation = {"predictions": f"{target}/{_PREDICTIONS}", "sha256": mark, "data": list(data)}
        for key, value in ((_EVALUATION, evaluation), (_SCORES, scores.to_json())):
            client.set_model_version_tag(version.name, str(version.number), key, json.dumps(value))


def read_predictions(tracking_uri: str, version: Version) -> PredictionSet:
    """The predictions that a version was judged by.

    Raises:
        ValueError: it was never judged by any, or the file is not the one that was stored.
    """
    if _EVALUATION not in version.tags:
        raise ValueError(
            f"version {version.number} of {version.name} keeps no predictions: evaluate and promote it again"
        )
    kept = json.loads(version.tags[_EVALUATION])
    with tempfile.TemporaryDirectory() as folder:
        path = run_file(tracking_uri, version.run_id, kept["predictions"], folder)
        found = _hash(path)
        if found != kept["sha256"]:
            wanted = kept["sha256"][:16]
            raise ValueError(
                f"version {version.number} of {version.name}: predictions {wanted} were stored, but the file is "
                f"{found[:16]}: it was changed"
            )
        return PredictionSet.load(path)


def _hash(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- verdict and aliases ----


def write_verdict(tracking_uri: str, version: Version, verdict: Verdict, gate: Gate) -> None:
    """Writes a verdict on its version: a sentence and the gate as tags, every check as the description."""
    labels = {
        _VERDICT: str(verdict),
        _JUDGED: now(),
        _JUDGED_BY: code_version(),
        _GATE: json.dumps(gate.to_json()),
    }
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        for key, value in labels.items():
            client.set_model_version_tag(version.name, str(version.number), key, value)
        client.update_model_version(version.name, str(version.number), description=verdict.markdown())


def set_alias(tracking_uri: str, version: Version, alias: str) -> None:
    """Points an alias at a version; never ``champion``, which ``crown`` moves."""
    assert alias != CHAMPION
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        client.set_registered_model_alias(version.name, alias, str(version.number))


def drop_alias(tracking_uri: str, version: Version, alias: str) -> None:
    """Takes an alias from a version, if it is this one that holds it."""
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        if aliases(client, version.name).get(alias) == version.number:
            client.delete_registered_model_alias(version.name, alias)


def crown(
    tracking_uri: str,
    version: Version,
    before: int | None,
    champion_lock: ChampionLock,
    why: str,
    replaces: bool = True,
) -> None:
    """Makes a version champion; only inside one's turn, in which ``before`` was read as the champion.

    Args:
        tracking_uri: absolute address of the MLflow store.
        version: the new champion.
        before: the champion until now; None without one.
        champion_lock: held while this runs.
        why: for the history.
        replaces: it takes the place of ``before``, to which a rollback leads; False for a rollback itself.

    Raises:
        RuntimeError: the turn was lost; nothing has moved.
    """
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        number = str(version.number)
        # All that the version has to say is written before the alias moves: a champion that does not know whom it
        # replaced could not be rolled back.
        if replaces:
            client.set_model_version_tag(version.name, number, _PROMOTED, now())
            if before is not None:
                client.set_model_version_tag(version.name, number, _REPLACED, str(before))
        champion_lock.require()
        client.set_registered_model_alias(version.name, CHAMPION, number)
        moves = [key for key in client.get_registered_model(version.name).tags if key.startswith(_MOVE)]
        move = {"time": now(), "before": before, "after": version.number, "why": why}
        client.set_registered_model_tag(version.name, f"{_MOVE}{len(moves) + 1:05d}", json.dumps(move))


def now() -> str:
    """The time for people, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
