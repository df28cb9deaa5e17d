"""Model versions, and the way from a URI to a predictor; what is known of a version stands in ``versions``.

A version is a checkpoint folder, uploaded as it is to the artifacts of the run that trained it: no pickle is written
or read. Its fingerprint (over names and bytes of all files) stands on the version, names the upload's folder, and is
checked whenever the version is loaded; scores carry it too, so nobody's scores can promote another model.

Every task has its own registered name: a 21-joint model must never replace a 15-joint champion.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from das.checkpoint import load_info
from pipeline.evaluation.scores import SCORES_FILE, Scores
from pipeline.infra.mlflow_client import mlflow_client, refusal, talking_to
from pipeline.models import FINGERPRINT, aliases, all_versions, fingerprint, registered_files, require_run
from pipeline.registry.champion_lock import champion_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAMES = {"panoptic": "das-panoptic", "mupots": "das-mupots", "demo": "das-demo"}
"""Task -> registered model."""
CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases. The challenger is the newest version whose registered files load and give the scores of their evaluation
again, unless it is the champion: what a gate refused by its numbers, or would have to decide on again."""


def register(
    tracking_uri: str, name: str, run_id: str, checkpoint: str | Path, tags: Mapping[str, str] | None = None
) -> int:
    """Uploads a checkpoint folder to the run that trained it, and makes it a version of a registered model.

    The training state stays behind. The lineage (data, terms, code, architecture) is read from the checkpoint's own
    config.json. A folder that is a version of this name already is not registered twice.

    Args:
        tracking_uri: absolute address of the MLflow store.
        name: registered model, see MODEL_NAMES; created if needed.
        run_id: MLflow run of the training.
        checkpoint: local folder.
        tags: further lineage.

    Returns:
        The version's number.

    Raises:
        ValueError: a name that MLflow cannot search for, no checkpoint, a pickle inside it, or no such run.
    """
    if not re.fullmatch(r"[\w-]+", name, flags=re.ASCII):
        raise ValueError(f"registered name = {name!r}, wanted letters, digits, - and _ such as das-panoptic")
    folder = Path(checkpoint)
    mark = fingerprint(folder)
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        require_run(client, run_id, tracking_uri)
        if not _is_registered(client, name):
            _create(client, name)
        if (known := _registered_as(client, name, mark)) is not None:
            return known
        # One folder per content: a later checkpoint of the same run must not change an earlier version.
        target = f"checkpoints/{mark[:16]}"
        with tempfile.TemporaryDirectory() as staging:
            for path in registered_files(folder):
                shutil.copy2(path, staging)
            client.log_artifacts(run_id, staging, target)
        labels = {FINGERPRINT: mark, **_lineage(folder), **(tags or {})}
        source = f"runs:/{run_id}/{target}"
        with champion_lock(tracking_uri, name, source, run_id):
            if (known := _registered_as(client, name, mark)) is not None:  # by another process, meanwhile
                return known
            return int(client.create_model_version(name, source=source, run_id=run_id, tags=labels).version)


def _registered_as(client: MlflowClient, name: str, mark: str) -> int | None:
    """The version that holds exactly these files."""
    return next((int(v.version) for v in all_versions(client, name) if v.tags.get(FINGERPRINT) == mark), None)


def _create(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:
        if refusal(error) != "RESOURCE_ALREADY_EXISTS":  # another process was faster
            raise


def _lineage(checkpoint: Path) -> dict[str, str]:
    """What the model is and what it was made from, as texts."""
    info = load_info(checkpoint)
    return {
        "das.code_version": info.code_version,
        "das.skeleton": info.model.skeleton.name,
        "das.weights": info.weights,
        "das.config": json.dumps(info.model.to_json()),
        **{f"das.data.{name}": json.dumps(value) for name, value in info.data.items()},
    }


def champion_version(tracking_uri: str, name: str) -> int | None:
    """Number of the version that holds the alias ``champion``; None without one, or without such a model."""
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        return aliases(client, name).get(CHAMPION) if _is_registered(client, name) else None


def read_scores(tracking_uri: str, run_id: str) -> Scores:
    """The scores that an evaluation run logged as SCORES_FILE; ValueError without such a run or file."""
    with tempfile.TemporaryDirectory() as folder:
        return Scores.from_json(json.loads(run_file(tracking_uri, run_id, SCORES_FILE, folder).read_text()))


def run_file(tracking_uri: str, run_id: str, path: str, target: str | Path) -> Path:
    """Copies one artifact of a run into a local folder; ValueError without such a run or artifact."""
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        require_run(client, run_id, tracking_uri)
        folder = path.rpartition("/")[0]
        if path not in [file.path for file in client.list_artifacts(run_id, folder or None)]:
            raise ValueError(f"run {run_id} has no artifact {path}, wanted a finished evaluation")
        return Path(client.download_artifacts(run_id, path, str(target)))


# ---- from a URI to a folder ----


# ---- asking the registry, with answers that a person can use ----


def _is_registered(client: MlflowClient, name: str) -> bool:
    try:
        client.get_registered_model(name)
    except Exception as error:
        if refusal(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True
