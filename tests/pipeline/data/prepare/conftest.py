"""Conversions without Ray, for the tests of what a conversion writes."""

import pytest

from pipeline.data.prepare import convert as convert_module
from pipeline.data.prepare.shard_task import finished_summary, write_shard


@pytest.fixture
def inline(monkeypatch):
    """Tasks run one after another in this process, and those that were finished before are skipped as with Ray."""

    def run(tasks, read_records):
        return [finished_summary(task) or write_shard(task, read_records) for task in tasks]

    monkeypatch.setattr(convert_module, "run_tasks", run)
    monkeypatch.setattr(convert_module.ray, "is_initialized", lambda: True)
