"""The folder storage/NAME of one training or sweep: its settings, its result and its best checkpoint.

training.json or sweep.json    settings; a later call of the same name must have the same ones
finished.json                  result; written last, so where it exists there is nothing left to do
best/                          the best checkpoint
checkpoints.json               copy of the list that Ray keeps of the checkpoints

Ray writes its list in place: where the storage is full, an empty file is left, and Ray refuses to go on although the
checkpoints are there. The copy is written whole or not at all, whenever workers report, and put back in that case.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ray.train import UserCallback

from das.model_info import TRAINING_STATE_FILE
from pipeline.infra.configs import flat
from pipeline.infra.files import copy_folder, exists, join, read_bytes, read_json, write_bytes, write_json
from pipeline.infra.redaction import redacted, redacted_values
from pipeline.models import FINISHED_FILE
from pipeline.tracking.tracker import Tracker

# Settings of a training that older runs did not write.
_ADDED_LATER = frozenset({"batch_size x accumulate x workers", "val", "val_images", "oks_thresholds", "select"})
# Settings that older runs did not write either, with the value that they were trained with.
_ONCE = {"recipe.mask_people_without_root": False}


_LIST, _COPY = "checkpoint_manager_snapshot.json", "checkpoints.json"


class RunFolder:
    """One run's folder, a path or a URI of object storage.

    Args:
        path: of the folder.
        settings_file: name of the file with the settings.

    Attributes:
        path: of the folder.
        best: path of the best checkpoint in it.
    """

    def __init__(self, path: str, settings_file: str = "training.json") -> None:
        self.path = path
        self.best = join(path, "best")
        self._settings = join(path, settings_file)
        self._result = join(path, FINISHED_FILE)

    def check_settings(self, wanted: dict[str, Any]) -> None:
        """ValueError naming the first setting in which an earlier run in this folder differs from ``wanted``.

        Settings that an older version of this code did not write, because it did not compare them, are not compared.
        """
        if not exists(self._settings):
            return
        # Through JSON, as the file's settings went: tuples become lists. Keys in addresses are not compared.
        earlier, now = (
            flat(redacted_values(value)) for value in (read_json(self._settings), json.loads(json.dumps(wanted)))
        )
        missing = {name: name.removeprefix("train.") for name in now.keys() - earlier.keys()}
        unknown = {name for name, field in missing.items() if field in _ADDED_LATER}
        earlier |= {name: _ONCE[field] for name, field in missing.items() if field in _ONCE}
        for name in sorted((earlier | now).keys() - unknown):
            if earlier.get(name) != now.get(name):
                raise ValueError(
                    f"{self._settings}: this run has {name} = {earlier.get(name)!r}, the new call {now.get(name)!r}: "
                    "resume with the same settings, or choose another --name"
                )

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Writes the settings that ``check_settings`` compares with, without the keys in addresses."""
        write_json(self._settings, redacted_values(settings))

    def result(self) -> dict[str, Any] | None:
        """What ``write_result`` wrote, or None where the run has not finished."""
        return read_json(self._result) if exists(self._result) else None

    def write_result(self, result: dict[str, Any]) -> None:
        """Marks the run as finished."""
        write_json(self._result, result)


def save_best(checkpoint: str, best: str, tracker: Tracker) -> None:
    """Copies a checkpoint folder to ``best`` and to the MLflow run's artifacts, there without the optimiser's state.

    Args:
        checkpoint: local folder.
        best: folder or URI of object storage.
        tracker: of the run.
    """
    copy_folder(checkpoint, best)
    for file in sorted(Path(checkpoint).iterdir()):
        if file.name != TRAINING_STATE_FILE:
            # Logged from `best`: a lost server is sent the file later, when the local folder may be gone.
            tracker.log_artifact(join(best, file.name), "checkpoint")


class KeepList(UserCallback):
    """Copies the list; Ray calls it in the process of its training controller."""

    def __init__(self, folder: str) -> None:
        """``folder``: of the run, or its URI."""
        self._list, self._copy = join(folder, _LIST), join(folder, _COPY)

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
        """Called after all workers have reported, and after Ray has written its list.

        What fails there leaves a copy of the list before, all of whose checkpoints are there: Ray deletes one only once
        a list without it is written.
        """
        if exists(self._list):
            write_bytes(self._copy, read_bytes(self._list))


def restore_list(folder: str) -> None:
    """Puts the copy in the place of a list that is not whole."""
    path, copy = join(folder, _LIST), join(folder, _COPY)
    if not (exists(path) and exists(copy)):
        return
    try:
        read_json(path)
    except ValueError:
        print(f"{redacted(path)} was cut short, as by a full disk: its copy is taken")
        write_bytes(path, read_bytes(copy))
