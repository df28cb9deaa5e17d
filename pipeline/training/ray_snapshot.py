"""A copy of the list that Ray keeps of a training's checkpoints.

Ray writes the list in place: where the storage is full, an empty file is left, and Ray refuses to go on although the
checkpoints are there. The copy is written whole or not at all, whenever workers report, and put back in that case.
"""

from __future__ import annotations

from typing import Any

from ray.train import UserCallback

from pipeline.infra.files import exists, join, read_bytes, read_json, write_bytes
from pipeline.infra.redaction import redacted

_LIST, _COPY = "checkpoint_manager_snapshot.json", "checkpoints.json"


class KeepList(UserCallback):
    """Copies the list; Ray calls it in the process of its training controller."""

    def __init__(self, folder: str) -> None:
        """``folder``: of the run, or its URI."""
        self._list, self._copy = join(folder, _LIST), join(folder, _COPY)

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
        """Called after all workers have reported. Ray deletes a checkpoint only once a list without it is written."""
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
