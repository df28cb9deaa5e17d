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


def read_split(folders: Sequence[str], split: str, repeat: Sequence[int] = (), seed: int | None = None) -> Any:
    """A Ray Dataset of the rows of one split of prepared folders, its files shuffled anew every epoch when seeded.

    Args:
        folders: prepared folders or URIs; those without this split contribute nothing.
        split: train, val or test.
        repeat: for each folder, how often its rows appear in one pass; empty means once.
        seed: seed of the file order; None keeps the order.

    Raises:
        ValueError: none of the folders has the split.
    """
    times = repeat or [1] * len(folders)
    paths = [p for folder, n in zip(folders, times, strict=True) for p in list_shards(folder, split) * n]
    if not paths:
        raise ValueError(f"{', '.join(folders)}: split {split!r} has no Parquet shards")
    # The V1 datasource gives its first batch 10 times sooner, which counts at the start of every epoch.
    context = ray.data.DataContext.get_current()
    context.use_datasource_v2 = False
    context.enable_progress_bars = False  # there would be one bar for every epoch of every worker
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # below it: size estimates of every file
    context.custom_execution_callback_classes = [SleepAfterStep]
    shuffle = None if seed is None else ray.data.FileShuffleConfig(seed=seed)
    return ray.data.read_parquet(paths, shuffle=shuffle, override_num_blocks=len(paths))
