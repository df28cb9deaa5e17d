"""Finds the MLflow run of a folder, or creates it, and the experiment that it is in.

A run belongs to a folder, not to a name alone: tracking/run.json holds a mark that its MLflow run has as a tag. Where
the folder was deleted, or the name is used on another storage, nothing is continued, and neither is the run.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, cast

from pipeline.infra.files import exists, join, read_json, write_json
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.tracking.run_description import IDENTITY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER_TAG = "das.folder"
"""Tag of a run: the mark of its folder."""


def find_or_create_run(
    store: MlflowStore, experiment: str, identity: str, folder: str, parent_id: str | None
) -> tuple[str, bool]:
    """The run of a folder in an experiment; both are created if needed.

    Args:
        store: the MLflow store; an sqlite file is created.
        experiment: name of the experiment.
        identity: name of the run, unique within the experiment.
        folder: folder or object-storage URI of the run; its mark is written if needed.
        parent_id: run that a new run is nested in.

    Returns:
        The run's id, and whether it existed.

    Raises:
        ValueError: an identity that cannot be searched for, a deleted experiment, or a server that refuses the user.
        ConnectionError: the server does not answer.
    """
    # The identity is part of a filter expression, in which MLflow has no way to escape a quote.
    if not re.fullmatch(r"[\w\-./: ]{1,250}", identity, flags=re.ASCII):
        raise ValueError(f"name = {identity!r}, wanted up to 250 letters, digits and _ - . / : or spaces")
    if not (experiment.strip() and experiment.isprintable() and len(experiment) <= 200):  # becomes a folder's name
        raise ValueError(f"experiment = {experiment!r}, wanted 1 to 200 characters that can be printed")
    with store.connected(must_exist=False) as client:
        experiment_id = _experiment(client, store, experiment)
        mark = _mark(folder)
        same = f"tags.`{IDENTITY_TAG}` = '{identity}' AND tags.`{FOLDER_TAG}` = '{mark}'"
        # The oldest, should two processes have created a run of the same identity at the same moment.
        found = client.search_runs([experiment_id], same, order_by=["attribute.start_time ASC"])
        if found:
            return cast(str, found[0].info.run_id), True
        tags = {IDENTITY_TAG: identity, FOLDER_TAG: mark} | ({"mlflow.parentRunId": parent_id} if parent_id else {})
        return cast(str, client.create_run(experiment_id, tags=tags, run_name=identity).info.run_id), False


def _mark(folder: str) -> str:
    """The folder's mark. It is there before the run, so that a process killed in between leaves no second run."""
    path = join(folder, "tracking", "run.json")
    if not exists(path):
        write_json(path, {"mark": uuid.uuid4().hex})
    return cast(str, read_json(path)["mark"])


def _experiment(client: MlflowClient, store: MlflowStore, name: str) -> str:
    """Id of the experiment, created if needed; with sqlite its artifacts are beside the database."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None
        if store.database is not None:
            # Otherwise MLflow uses ./mlruns in the working folder of the process that creates the experiment.
            location = (store.database.parent / "mlartifacts" / re.sub(r"\W+", "_", name)).as_uri()
        try:
            return cast(str, client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process has just created it
    if found is None or found.lifecycle_stage != "active":
        raise ValueError(f"MLflow experiment {name!r} was deleted; restore it or choose another name")
    return cast(str, found.experiment_id)
