"""The table of registered models."""

import json

import pytest

from pipeline.registry.gate import Gate
from pipeline.registry.tasks import TASKS


def test_every_task_of_this_project_is_in_the_table():
    joints = {name: task.skeleton.name for name, task in TASKS.items()}
    assert joints == {
        "das-panoptic": "panoptic15",
        "das-mupots": "muco21",
        "das-demo": "panoptic15",
        "das-demo-long": "panoptic15",
    }


@pytest.mark.parametrize("name", TASKS)
def test_a_default_gate_is_the_same_when_read_from_its_own_file(name):
    gate = TASKS[name].gate
    assert Gate().changed_by(json.loads(json.dumps(gate.to_json()))) == gate
    assert (gate.min_f1, gate.max_error) == (0.85, 0.9)
