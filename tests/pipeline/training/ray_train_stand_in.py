"""A stand-in for Ray Train within one process: rows from Parquet, reports and checkpoints in a folder.

`train_loop` itself is the real one. The order of the rows depends on the seed of the epoch alone, so that a training
can be repeated exactly. Worker r of N gets every N-th row from row r on, so that N workers see the global batches of
one.
"""

import random
import shutil
from pathlib import Path

import pytest
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint

from pipeline.data.schema import to_table
from pipeline.data.shards import list_shards, read_records


class Rows:
    """A batch in the form in which Ray Data passes it to a collate function."""

    def __init__(self, rows):
        self.rows = rows

    def to_pylist(self):
        return self.rows


class Shard:
    """One worker's rows."""

    def __init__(self, rows, rank=0, world=1):
        self.rows, self.rank, self.world = rows, rank, world

    def iter_rows(self):
        return iter(self.rows)

    def iter_torch_batches(self, batch_size, collate_fn, local_shuffle_seed, drop_last, **_):
        assert drop_last
        rows = list(self.rows)
        random.Random(local_shuffle_seed).shuffle(rows)
        rows = rows[self.rank :: self.world]
        for start in range(0, len(rows) - batch_size + 1, batch_size):
            yield collate_fn(Rows(rows[start : start + batch_size]))


class StandIn:
    """Ray Train for one worker. ``reports``: (metrics, checkpoint folder) of every report so far."""

    def __init__(self, prepared, folder, rank=0, world=1):
        self.folder, self.rank, self.world = Path(folder), rank, world
        self.rows = {
            split: to_table(r for shard in list_shards(prepared, split) for r in read_records(shard)).to_pylist()
            for split in ("train", "val")
        }
        self.reports = []
        self.crash_after = None

    def install(self, patch: pytest.MonkeyPatch):
        patch.setattr(ray.train, "get_dataset_shard", self.shard)
        patch.setattr(ray.train, "get_checkpoint", self.checkpoint)
        patch.setattr(ray.train, "report", self.report)
        patch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))

    def shard(self, name):
        whole = name == "val"  # every worker reads all of it
        return Shard(self.rows[name], *((0, 1) if whole else (self.rank, self.world)))

    def checkpoint(self):
        kept = sorted(self.folder.glob("checkpoint-*"))
        return Checkpoint.from_directory(kept[-1]) if kept else None

    def report(self, metrics, checkpoint=None):
        path = self.folder / f"checkpoint-{int(metrics['epoch']):03d}"
        if checkpoint is not None:
            shutil.copytree(checkpoint.path, path)
        self.reports.append((metrics, path))
        if len(self.reports) == self.crash_after:
            raise KeyboardInterrupt("crash of the process")
