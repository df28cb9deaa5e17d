"""One version of a registered model: its tags, and what a gate needs of it: evaluation and verdict.

All of it is in MLflow, where it can be read on the version's page: tags and description. The predictions of a version's
evaluation are stored beside its checkpoint, in a folder named by their hash, because an evaluation that is repeated
under the same name replaces its own files.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.evaluation.predictions_file import PREDICTIONS_FILE, PredictionSet
from pipeline.evaluation.scores import Scores
from pipeline.infra.code_version import code_version
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.infra.redaction import redacted_values
from pipeline.infra.regular_files import sha256_of
from pipeline.models import FINGERPRINT_TAG, resolve_model, run_file
from pipeline.registry.gate import Gate, Verdict

PROMOTED_TAG, REPLACED_TAG = "das.promoted", "das.replaced"
_SCORES, _EVALUATION, _GATE = "das.scores", "das.evaluation", "das.gate"
_VERDICT, _VERDICT_TIME, _VERDICT_CODE = "das.verdict", "das.judged", "das.judged_by"


@dataclass(frozen=True)
class Version:
    """One version of a registered model, as it was in the store when it was read.

    Attributes:
        store: of the registered model.
        name, number: of the version. run_id: the training. source: runs:/RUN_ID/PATH. fingerprint: of its files.
        aliases: that point at it. created_ms: when it was registered, milliseconds since 1970.
        tags: all of them.
    """

    store: MlflowStore
    name: str
    number: int
    run_id: str
    source: str
    fingerprint: str
    aliases: tuple[str, ...]
    created_ms: int
    tags: dict[str, str]

    @classmethod
    def of(cls, store: MlflowStore, found: Any, aliases: dict[str, int]) -> Version:
        """From MLflow's entity of the version and the aliases of its registered model."""
        number = int(found.version)
        return cls(
            store=store,
            name=found.name,
            number=number,
            run_id=found.run_id,
            source=found.source,
            fingerprint=found.tags[FINGERPRINT_TAG],
            aliases=tuple(sorted(alias for alias, version in aliases.items() if version == number)),
            created_ms=int(found.creation_timestamp),
            tags=dict(found.tags),
        )

    # ---- what its tags say ----

    @property
    def scores(self) -> Scores | None:
        """Of the last evaluation that it was promoted or refused with; None without one."""
        return Scores.from_json(json.loads(self.tags[_SCORES])) if _SCORES in self.tags else None

    @property
    def data(self) -> tuple[str, ...]:
        """Prepared folders of that evaluation."""
        return tuple(json.loads(self.tags[_EVALUATION])["data"]) if _EVALUATION in self.tags else ()

    @property
    def verdict(self) -> str:
        """The last verdict as a sentence; empty before the first."""
        return self.tags.get(_VERDICT, "")

    @property
    def verdict_time(self) -> str:
        """When the last verdict was written, UTC; empty before the first."""
        return self.tags.get(_VERDICT_TIME, "")

    @property
    def replaced(self) -> int | None:
        """The champion that this version replaced; None if it was never champion, or the first one."""
        return int(self.tags[REPLACED_TAG]) if REPLACED_TAG in self.tags else None

    @property
    def was_champion(self) -> bool:
        """It is, or has been, the champion."""
        return PROMOTED_TAG in self.tags

    # ---- its files ----

    def files(self, cache: Path | None = None) -> Path:
        """Local folder of its checkpoint; ValueError where the files are not those that were registered.

        Args:
            cache: folder of downloads; None for the user's, which may still contain files that the store has lost.
        """
        uri = f"models:/{self.name}/{self.number}"
        return resolve_model(uri, self.store.uri) if cache is None else resolve_model(uri, self.store.uri, cache)

    def predictions(self) -> PredictionSet:
        """The predictions of its stored evaluation.

        Raises:
            ValueError: none were stored, or the file is not the one that was stored.
        """
        if _EVALUATION not in self.tags:
            raise ValueError(
                f"version {self.number} of {self.name} has no stored predictions: evaluate and promote it again"
            )
        stored = json.loads(self.tags[_EVALUATION])
        with tempfile.TemporaryDirectory() as folder:
            path = run_file(self.store, self.run_id, stored["predictions"], folder)
            found = sha256_of(path)
            if found != stored["sha256"]:
                wanted = stored["sha256"][:16]
                raise ValueError(
                    f"version {self.number} of {self.name}: predictions {wanted} were stored, but the file is "
                    f"{found[:16]}: it was changed"
                )
            return PredictionSet.load(path)

    # ---- what promotion adds ----

    def store_evaluation(self, scores: Scores, predictions: Path, data: Sequence[str]) -> None:
        """Stores what a later comparison needs: the scores, and a copy of the predictions that they follow from.

        Args:
            scores: the headline.
            predictions: local predictions file.
            data: prepared folders that were evaluated.
        """
        found = sha256_of(predictions)
        target = f"evaluations/{found[:16]}"
        with self.store.connected() as client, tempfile.TemporaryDirectory() as staging:
            shutil.copy2(predictions, Path(staging) / PREDICTIONS_FILE)
            client.log_artifacts(self.run_id, staging, target)
            evaluation = {
                "predictions": f"{target}/{PREDICTIONS_FILE}",
                "sha256": found,
                "data": redacted_values(list(data)),
            }
            for key, value in ((_EVALUATION, evaluation), (_SCORES, scores.to_json())):
                client.set_model_version_tag(self.name, str(self.number), key, json.dumps(value))

    def write_verdict(self, verdict: Verdict, gate: Gate) -> None:
        """Writes a verdict: its sentence and the gate as tags, all checks as the version's description."""
        labels = {
            _VERDICT: str(verdict),
            _VERDICT_TIME: utc_now(),
            _VERDICT_CODE: code_version(),
            _GATE: json.dumps(gate.to_json()),
        }
        with self.store.connected() as client:
            for key, value in labels.items():
                client.set_model_version_tag(self.name, str(self.number), key, value)
            client.update_model_version(self.name, str(self.number), description=verdict.markdown())


def utc_now() -> str:
    """The current time as text with its zone, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
