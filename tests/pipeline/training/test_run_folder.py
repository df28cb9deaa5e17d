"""A run's folder: same settings continue, others are refused; the result ends the run."""

import dataclasses
import json
import shutil

import pytest

from pipeline.training.job import training_job
from pipeline.training.run_folder import KeepList, RunFolder, restore_list
from tests.pipeline.training.training_cases import tiny, tiny_optim


def test_another_training_under_the_same_name_is_refused_and_the_difference_named(prepared, tmp_path):
    first = training_job(tiny(prepared)).settings()
    folder = RunFolder(str(tmp_path))
    folder.check_settings(first)  # a new folder takes any settings
    folder.write_settings(first)
    assert json.loads((tmp_path / "training.json").read_text()) == json.loads(json.dumps(first))
    folder.check_settings(first)
    half = dataclasses.replace(tiny(prepared).ingest, batch_size=4)
    elsewhere = dataclasses.replace(tiny(prepared), ingest=half, workers=2, name="moved", threads=4)
    folder.check_settings(training_job(elsewhere).settings())  # where and how fast it runs is no difference
    changed = training_job(tiny(prepared, optim=tiny_optim(lr=0.5))).settings()
    difference = r"this run has optim.lr = 0.002, the new call 0.5: resume with .* or choose another --name"
    with pytest.raises(ValueError, match=difference):
        folder.check_settings(changed)


def other_ingest(prepared, **changes):
    return {"ingest": dataclasses.replace(tiny(prepared).ingest, **changes)}


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        (lambda p: other_ingest(p, batch_size=4), "batch_size x accumulate x workers = 8, the new call 4"),
        (lambda p: other_ingest(p, accumulate=3), "batch_size x accumulate x workers = 8, the new call 24"),
        (lambda p: {"workers": 2}, "batch_size x accumulate x workers = 8, the new call 16"),
        (lambda p: {"val_images": 3}, "val_images = 512, the new call 3"),
    ],
)
def test_what_decides_the_schedule_or_the_best_epoch_is_part_of_the_identity(prepared, tmp_path, changes, difference):
    folder = RunFolder(str(tmp_path))
    folder.write_settings(training_job(tiny(prepared)).settings())
    with pytest.raises(ValueError, match=f"this run has {difference}: resume with the same") as error:
        folder.check_settings(training_job(tiny(prepared, **changes(prepared))).settings())
    assert "\n" not in str(error.value)


def test_other_val_data_are_another_training_and_the_same_data_elsewhere_are_not(prepared, tmp_path):
    job, folder = training_job(tiny(prepared)), RunFolder(str(tmp_path / "run"))
    folder.write_settings(job.settings())
    moved = shutil.copytree(prepared, tmp_path / "moved")
    folder.check_settings(training_job(tiny(prepared, val=str(moved))).settings())
    other = dataclasses.replace(job, validated_on="coco 0123")
    with pytest.raises(ValueError, match=rf"val = '{job.validated_on}', the new call 'coco 0123'"):
        folder.check_settings(other.settings())
    nothing = dataclasses.replace(job, validated_on=None, val_rows=[])
    with pytest.raises(ValueError, match=r"select = 'val/\w+', the new call None"):
        folder.check_settings(nothing.settings())


@pytest.mark.parametrize("prefix", ["", "train"])
def test_settings_of_an_older_version_without_the_later_fields_are_continued(prepared, tmp_path, prefix):
    def nested(settings):
        return {prefix: settings} if prefix else settings

    now, folder = training_job(tiny(prepared)).settings(), RunFolder(str(tmp_path))
    later = ("batch_size x accumulate x workers", "val", "val_images", "select")
    folder.write_settings(nested({name: value for name, value in now.items() if name not in later}))
    folder.check_settings(nested(now))
    with pytest.raises(ValueError, match="seed = 3, the new call 4"):
        folder.check_settings(nested({**now, "seed": 4}))
    folder.write_settings(nested({name: value for name, value in now.items() if name != "seed"}))
    with pytest.raises(ValueError, match="seed = None, the new call 3"):
        folder.check_settings(nested(now))


def test_a_run_of_the_time_before_masking_goes_on_without_it(prepared, tmp_path):
    folder = RunFolder(str(tmp_path))
    old = training_job(tiny(prepared)).settings()
    del old["recipe"]["mask_people_without_root"]
    folder.write_settings(old)
    folder.check_settings(
        training_job(tiny(prepared, **other_ingest(prepared, mask_people_without_root=False))).settings()
    )
    with pytest.raises(ValueError, match=r"recipe.mask_people_without_root = False, the new call True"):
        folder.check_settings(training_job(tiny(prepared)).settings())


def test_a_run_has_a_result_once_it_has_finished(tmp_path):
    folder = RunFolder(str(tmp_path / "run"), settings_file="sweep.json")
    folder.write_settings({"trials": 2})
    assert folder.result() is None
    folder.write_result({"run_id": "r", "metrics": {}})
    assert RunFolder(str(tmp_path / "run")).result() == {"run_id": "r", "metrics": {}}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"sweep.json", "finished.json"}


def test_keys_in_addresses_are_neither_kept_nor_compared(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.write_settings({"data": ["s3://KEY:SECRET@bucket/x"], "seed": 0})
    assert "SECRET" not in (tmp_path / "training.json").read_text()
    folder.check_settings({"data": ("s3://OTHER:NEW@bucket/x",), "seed": 0})
    with pytest.raises(ValueError, match="bucket/x.*bucket/y"):
        folder.check_settings({"data": ("s3://KEY:SECRET@bucket/y",), "seed": 0})


@pytest.mark.parametrize("left", ["", '{"checkpoint_results": [{"check'])
def test_rays_list_of_checkpoints_is_taken_from_its_copy_where_a_full_disk_has_cut_it_short(tmp_path, left, capsys):
    listed = tmp_path / "checkpoint_manager_snapshot.json"
    restore_list(str(tmp_path))  # of a new training there is none
    for text in ('{"checkpoint_results": [1]}', '{"checkpoint_results": [1, 2]}'):
        listed.write_text(text)
        KeepList(str(tmp_path)).after_report(None, [], None)
        restore_list(str(tmp_path))
        assert listed.read_text() == text and capsys.readouterr().out == ""
    listed.write_text(left)
    restore_list(str(tmp_path))
    assert listed.read_text() == text and f"{listed} was cut short" in capsys.readouterr().out
