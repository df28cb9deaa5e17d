"""The rows of prepared data as a Ray Dataset."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback

from pipeline.data.shards import list_shards


class SleepAfterStep(ExecutionCallback):
    """Sleeps after every step of Ray Data's scheduling loop.

    While blocks that are read already wait for a consumer, the loop finds its tasks ready and does not block: without
    the sleep it keeps a core busy for as long as the training runs.
    """

    def on_execution_step(self, executor: object) -> None:
        """Sleeps 10 ms: 100 steps a second are enough, because a block holds many rows."""
        time.sleep(0.01)


def quiet_context() -> Any:
    """Ray Data's settings of this process, with those of this project."""
    # The V1 datasource gives its first batch 10 times sooner, which counts at the start of every epoch.
    context = ray.data.DataContext.get_current()
    context.use_datasource_v2 = False
    context.enable_progress_bars = False  # there would be one bar for every epoch of every worker
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # below it: size estimates of every file
    context.custom_execution_callback_classes = [SleepAfterStep]
    return context


def read_split(folders: Sequence[str], split: str) -> Any:
    """A Ray Dataset of the rows of one split of prepared folders.

    Args:
        folders: prepared folders or URIs; those without this split contribute nothing.
        split: train, val or test.

    Raises:
        ValueError: none of the folders has the split.
    """
    paths = [path for folder in folders for path in list_shards(folder, split)]
    if not paths:
        raise ValueError(f"{', '.join(folders)}: split {split!r} has no Parquet shards")
    quiet_context()
    return ray.data.read_parquet(paths, override_num_blocks=len(paths))
