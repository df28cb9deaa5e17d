"""A stand-in for Ray Train's reports and checkpoints within one process; the loop and its batches are the real ones."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint

from pipeline.training.step import Worker


class StandIn:
    """Ray Train for one worker. ``reports``: (metrics, checkpoint folder) of every report so far."""

    def __init__(self, folder, rank=0, world=1):
        self.folder, self.rank, self.world = Path(folder), rank, world
        self.reports = []
        self.crash_after = None

    def install(self, patch: pytest.MonkeyPatch):
        patch.setattr(ray.train, "get_checkpoint", self.checkpoint)
        patch.setattr(ray.train, "get_all_reported_checkpoints", self.checkpoints)
        patch.setattr(ray.train, "get_preemption_info", lambda: None)
        patch.setattr(ray.train, "report", self.report)
        patch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
        patch.setattr(Worker, "current", lambda: Worker(self.rank, self.world, torch.device("cpu")))

    def checkpoints(self):
        kept = sorted(self.folder.glob("checkpoint-*"))
        return [SimpleNamespace(checkpoint=Checkpoint.from_directory(folder)) for folder in kept]

    def checkpoint(self):
        kept = self.checkpoints()
        return kept[-1].checkpoint if kept else None

    def report(self, metrics, checkpoint=None, **_):
        path = self.folder / f"checkpoint-{int(metrics['step']):04d}"
        if checkpoint is not None:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(checkpoint.path, path)
        self.reports.append((metrics, path))
        if len(self.reports) == self.crash_after:
            raise KeyboardInterrupt("crash of the process")
