"""A run's folder: same settings continue, others are refused; the result ends the run."""

import dataclasses
import json

import pytest

from pipeline.training.job import training_job
from pipeline.training.run_folder import RunFolder
from tests.pipeline.training.training_cases import tiny, tiny_optim


def test_another_training_under_the_same_name_is_refused_and_the_difference_named(prepared, tmp_path):
    first = training_job(tiny(prepared)).settings()
    folder = RunFolder(str(tmp_path))
    folder.check_settings(first)  # a new folder takes any settings
    folder.write_settings(first)
    assert json.loads((tmp_path / "training.json").read_text()) == json.loads(json.dumps(first))
    folder.check_settings(first)
    elsewhere = dataclasses.replace(tiny(prepared), val_images=3, workers=2, name="moved", threads=4)
    folder.check_settings(training_job(elsewhere).settings())  # where and how fast it runs is no difference
    changed = training_job(tiny(prepared, optim=tiny_optim(lr=0.5))).settings()
    difference = r"this run has optim.lr = 0.002, the new call 0.5: resume with .* or choose another --name"
    with pytest.raises(ValueError, match=difference):
        folder.check_settings(changed)


def test_a_run_has_a_result_once_it_has_finished(tmp_path):
    folder = RunFolder(str(tmp_path / "run"), settings_file="sweep.json")
    folder.write_settings({"trials": 2})
    assert folder.result() is None
    folder.write_result({"run_id": "r", "metrics": {}})
    assert RunFolder(str(tmp_path / "run")).result() == {"run_id": "r", "metrics": {}}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"sweep.json", "finished.json"}
