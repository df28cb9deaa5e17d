"""Conversions without Ray, for the tests of what a conversion writes."""

from pathlib import Path

import pytest

from pipeline.data.prepare.shard_task import finished_summary, write_shard
from tests.pipeline.data.original_layouts import write_panoptic


@pytest.fixture
def inline(monkeypatch):
    """Tasks run one after another in this process, and those that were finished before are skipped as with Ray."""

    def run(tasks, read_records):
        every = range(len(tasks))
        return [finished_summary(tasks[i]) or write_shard(tasks.complete(i), read_records) for i in every]

    monkeypatch.setattr("pipeline.data.prepare.run_tasks.run_tasks", run)
    monkeypatch.setattr("pipeline.data.prepare.run_tasks.in_tasks", map)
    monkeypatch.setattr("ray.is_initialized", lambda: True)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A train, a val and a test sequence of Panoptic; one train image is missing."""
    root = tmp_path_factory.mktemp("raw")
    write_panoptic(root, "160224_haggling1", frames=range(12))
    write_panoptic(root, "160224_mafia1", frames=range(6), kind="mpi15")
    write_panoptic(root, "160224_mafia2", frames=range(4))
    write_panoptic(root, "160906_pizza1", frames=range(4), bodies=[])
    (root / "160224_haggling1/hdImgs/00_16/00_16_00000002.jpg").unlink()
    return root
