"""The rows of prepared data as a Ray Dataset."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback

from pipeline.data.shards import list_shards


class Unhurried(ExecutionCallback):
    """A rest after every step of Ray Data's scheduling loop.

    While what it has read is not taken yet, the loop finds its tasks ready and never waits: it would keep a core
    busy for as long as the training lasts.
    """

    def on_execution_step(self, executor: object) -> None:
        """Rests: 100 steps a second are plenty for blocks of many rows."""
        time.sleep(0.01)


def read_split(folders: Sequence[str], split: str, repeat: Sequence[int] = (), seed: int | None = None) -> Any:
    """A Ray Dataset of the rows of one split of prepared folders, files reshuffled every epoch when seeded.

    Args:
        folders: prepared folders or URIs; those without this split contribute nothing.
        split: train, val or test.
        repeat: how often each folder's rows appear in one pass; empty means once.
        seed: of the file order; None keeps it.

    Raises:
        ValueError: if none of the folders has the split.
    """
    times = repeat or [1] * len(folders)
    paths = [p for folder, n in zip(folders, times, strict=True) for p in list_shards(folder, split) * n]
    if not paths:
        raise ValueError(f"{', '.join(folders)}: split {split!r} has no Parquet shards")
    # The V1 datasource reaches its first batch 10 times sooner, and every epoch pays for that again.
    context = ray.data.DataContext.get_current()
    context.use_datasource_v2 = False
    context.enable_progress_bars = False  # one bar for every epoch of every worker tells nobody anything
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # nor do its estimates of every file
    context.custom_execution_callback_classes = [Unhurried]
    shuffle = None if seed is None else ray.data.FileShuffleConfig(seed=seed)
    return ray.data.read_parquet(paths, shuffle=shuffle, override_num_blocks=len(paths))
