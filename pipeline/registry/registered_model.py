"""A registered model in the MLflow registry: registering checkpoints, reading versions, moving aliases.

A version is a checkpoint folder, uploaded as it is to the artifacts of the run that trained it: no pickle is written or
read. Its fingerprint (over names and bytes of all files) is a tag of the version and the name of the upload's folder,
and is compared with the files whenever the version is loaded. Scores carry the fingerprint too, so the scores of one
model cannot promote another.

All versions of a name predict one joint set, that of its task (tasks.py) or of its first version: a 21-joint model must
never replace a 15-joint champion.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from das.model_info import load_info
from das.skeleton import Skeleton
from pipeline.infra.mlflow_client import MlflowStore, error_code
from pipeline.models import (
    FINGERPRINT_TAG,
    aliased,
    aliases,
    all_versions,
    find_version,
    fingerprint,
    is_registered,
    registered_files,
    require_run,
)
from pipeline.registry.champion_lock import ChampionLock, champion_lock
from pipeline.registry.versions import PROMOTED_TAG, REPLACED_TAG, Version, utc_now

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases. The challenger is the newest version whose registered files load and reproduce the scores of their
evaluation, unless it is the champion: a gate refused it by its numbers, or has not decided on it yet."""
_CHANGE = "das.move."  # tags of the registered model: das.move.00001, ...


@dataclass(frozen=True)
class ChampionChange:
    """One change of the champion: when (UTC), from and to which version, and why. Fields as stored in the tag."""

    time: str
    before: int | None
    after: int
    why: str


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model by its name; it need not exist before the first ``register``.

    A name that MLflow cannot search for is a ValueError. All methods raise ConnectionError where the MLflow server does
    not answer, and ValueError where a model, a version, an alias or an sqlite store does not exist.

    Attributes:
        store: where it is registered. name: such as das-panoptic, see tasks.py.
    """

    store: MlflowStore
    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name, flags=re.ASCII):
            raise ValueError(f"registered name = {self.name!r}, wanted letters, digits, - and _ such as das-panoptic")

    # ---- reading ----

    def champion(self) -> int | None:
        """Number of the version with the alias ``champion``; None without one, or without such a model."""
        with self.store.connected() as client:
            return aliases(client, self.name).get(CHAMPION) if is_registered(client, self.name) else None

    def version(self, which: int | str) -> Version:
        """A version by its number or by an alias; ValueError where there is none."""
        with self.store.connected() as client:
            number = int(which) if str(which).isdigit() else aliased(client, self.name, str(which))
            return Version.of(self.store, find_version(client, self.name, number), aliases(client, self.name))

    def versions(self) -> list[Version]:
        """All versions that ``register`` made, the oldest first; ValueError without such a model."""
        with self.store.connected() as client:
            held = aliases(client, self.name)
            found = [found for found in all_versions(client, self.name) if FINGERPRINT_TAG in found.tags]
            return [Version.of(self.store, version, held) for version in found]

    def skeleton(self) -> Skeleton | None:
        """Joint set of its versions, as the first one says; None without a version."""
        with self.store.connected() as client:
            if not is_registered(client, self.name):
                return None
        first = next(iter(self.versions()), None)
        return None if first is None else Skeleton.from_json(json.loads(first.tags["das.config"])["skeleton"])

    def champion_changes(self) -> list[ChampionChange]:
        """All changes of the champion, the oldest first."""
        with self.store.connected() as client:
            tags = client.get_registered_model(self.name).tags
        return [ChampionChange(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_CHANGE)]

    # ---- registering ----

    def register(self, run_id: str, checkpoint: str | Path, tags: Mapping[str, str] | None = None) -> int:
        """Uploads a checkpoint folder to the run that trained it, and makes it a version.

        The training state is not uploaded. The lineage (data, terms, code, architecture) is read from the checkpoint's
        own config.json. A folder that is a version of this model already is not registered twice.

        Args:
            run_id: MLflow run of the training.
            checkpoint: local folder.
            tags: further lineage.

        Returns:
            The version's number.

        Raises:
            ValueError: no checkpoint, a pickle inside it, or no such run.
        """
        name = self.name
        folder = Path(checkpoint)
        found = fingerprint(folder)
        with self.store.connected() as client:
            require_run(client, run_id)
            if not is_registered(client, name):
                _create(client, name)
            if (known := _registered_as(client, name, found)) is not None:
                return known
            # One folder per content: a later checkpoint of the same run must not change an earlier version.
            target = f"checkpoints/{found[:16]}"
            with tempfile.TemporaryDirectory() as staging:
                for path in registered_files(folder):
                    shutil.copy2(path, staging)
                client.log_artifacts(run_id, staging, target)
            labels = {FINGERPRINT_TAG: found, **_lineage(folder), **(tags or {})}
            source = f"runs:/{run_id}/{target}"
            with champion_lock(self.store, name, source, run_id):
                if (known := _registered_as(client, name, found)) is not None:  # by another process, meanwhile
                    return known
                return int(client.create_model_version(name, source=source, run_id=run_id, tags=labels).version)

    # ---- aliases ----

    def set_challenger(self, number: int) -> None:
        """Points the alias ``challenger`` at a version."""
        with self.store.connected() as client:
            client.set_registered_model_alias(self.name, CHALLENGER, str(number))

    def drop_challenger(self, number: int) -> None:
        """Removes the alias ``challenger`` if it points at this version."""
        with self.store.connected() as client:
            if aliases(client, self.name).get(CHALLENGER) == number:
                client.delete_registered_model_alias(self.name, CHALLENGER)

    def set_champion(
        self, number: int, before: int | None, lock: ChampionLock, why: str, replaces: bool = True
    ) -> None:
        """Points the alias ``champion`` at a version and records the change.

        Args:
            number: the new champion.
            before: the champion until now, read while ``lock`` was held; None without one.
            lock: held by this process.
            why: for the history.
            replaces: a later rollback leads back to ``before``; False for a rollback itself.

        Raises:
            RuntimeError: the lock was lost; the alias has not moved.
        """
        with self.store.connected() as client:
            # Written before the alias moves: a champion without this tag could not be rolled back.
            if replaces:
                client.set_model_version_tag(self.name, str(number), PROMOTED_TAG, utc_now())
                if before is not None:
                    client.set_model_version_tag(self.name, str(number), REPLACED_TAG, str(before))
            lock.require()
            client.set_registered_model_alias(self.name, CHAMPION, str(number))
            changes = [key for key in client.get_registered_model(self.name).tags if key.startswith(_CHANGE)]
            change = {"time": utc_now(), "before": before, "after": number, "why": why}
            client.set_registered_model_tag(self.name, f"{_CHANGE}{len(changes) + 1:05d}", json.dumps(change))


def _registered_as(client: MlflowClient, name: str, wanted: str) -> int | None:
    """The version with this fingerprint; None where there is none."""
    return next((int(v.version) for v in all_versions(client, name) if v.tags.get(FINGERPRINT_TAG) == wanted), None)


def _create(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":  # another process has just created it
            raise


def _lineage(checkpoint: Path) -> dict[str, str]:
    """What the model is and what it was trained on, as tags."""
    info = load_info(checkpoint)
    return {
        "das.code_version": info.code_version,
        "das.skeleton": info.model.skeleton.name,
        "das.weights": info.weights,
        "das.config": json.dumps(info.model.to_json()),
        **{f"das.data.{name}": json.dumps(value) for name, value in info.data.items()},
    }
