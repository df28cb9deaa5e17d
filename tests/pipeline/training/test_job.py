"""What a training needs is checked before it starts; its data and those of its initial checkpoint are recorded."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from das.checkpoint import save_model
from das.config import paper_resnet50
from das.model import DAS
from das.model_info import ModelInfo, load_info
from pipeline.data.digest import hashes, write_digest
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.schema import to_table
from pipeline.data.shards import list_shards, read_records
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.train_overlap import (
    OLD_INDEX,
    TrainingFiles,
    digest_name,
    is_train_fit,
    overlap,
    training_files,
)
from pipeline.infra.columns import write_columns
from pipeline.training.config import IngestConfig, ModelChoice, TrainConfig
from pipeline.training.job import training_job
from tests.pipeline.data.prepare.conversions import files
from tests.pipeline.training.ray_train_stand_in import StandIn
from tests.pipeline.training.training_cases import tiny, tiny_optim, train


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": ()}, "data is empty, wanted at least one prepared folder"),
        ({"data": ("/no/such/folder",)}, "/no/such/folder does not exist; wanted a folder made by `das prepare`"),
        ({"val": "/no/such/folder"}, "/no/such/folder does not exist"),
        ({"ingest": IngestConfig(recipe="small", batch_size=33)}, "data has 32 training images, wanted at least .* 33"),
        ({"workers": 5}, "data has 32 training images, wanted at least one step of 40"),
        ({"val_images": 0}, "val_images = 0, wanted at least 1"),
        ({"pretrained": "/no/such/weights"}, "pretrained = '/no/such/weights' does not exist"),
        ({"model": ModelChoice("release_panoptic"), "pretrained": __file__}, "no file of weights that torch can read"),
    ],
)
def test_mistakes_are_refused_before_anything_starts(prepared, change, reason):
    with pytest.raises(ValueError, match=reason):
        training_job(dataclasses.replace(tiny(prepared), **change))


def as_before_converter_version_4(prepared, folder) -> Path:
    """A copy of the prepared folder as older versions wrote it: no digest, no statistics, no row groups."""
    shutil.copytree(prepared, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for info in manifest["splits"].values():
        for name in ("statistics", "row_groups", "digest"):
            del info[name]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "converter_version": 3}))
    (folder / "train-digest.parquet").unlink()
    return folder


def test_a_training_reads_no_annotation_where_the_manifest_has_statistics(prepared, tmp_path, capsys):
    old = as_before_converter_version_4(prepared, tmp_path / "old")
    wanted = training_job(tiny(old))
    assert "reading the annotations of 32 train images" in capsys.readouterr().err
    new = tmp_path / "new"
    shutil.copytree(prepared, new)
    for shard in new.rglob("shard-*.parquet"):
        shard.unlink()
    found = training_job(tiny(new))
    assert capsys.readouterr().err == ""
    assert np.allclose(found.info.mean_pose, wanted.info.mean_pose, rtol=1e-12, atol=1e-9)
    assert dataclasses.replace(found.info, mean_pose=wanted.info.mean_pose) == wanted.info
    assert [p.rows for p in found.val_rows] == [p.rows for p in wanted.val_rows]
    assert found.train[0].row_groups == wanted.train[0].row_groups


def test_of_older_data_the_digest_is_made_from_the_index(prepared, tmp_path):
    new, old = (training_job(tiny(d)) for d in (prepared, as_before_converter_version_4(prepared, tmp_path / "old")))
    for job, name in ((new, "new"), (old, "made")):
        (tmp_path / name).mkdir()
        TrainingFiles(job.trained_on).copy_to(tmp_path / name)
    assert files(tmp_path / "made") == files(tmp_path / "new") and len(files(tmp_path / "new")) == 1


def test_a_prepared_folder_without_its_digest_is_refused_before_anything_starts(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "broken")
    (tmp_path / "broken" / "train-digest.parquet").unlink()
    with pytest.raises(ValueError, match="broken/train-digest.parquet: no such file, wanted all files of the prepared"):
        training_job(tiny(tmp_path / "broken"))


def test_shards_of_older_data_with_other_rows_than_the_manifest_lists_are_refused(prepared, tmp_path):
    broken = as_before_converter_version_4(prepared, tmp_path / "prepared")
    first = sorted((broken / "train").glob("*.parquet"))[0]
    pq.write_table(pq.read_table(first).slice(1), first)
    with pytest.raises(ValueError, match="its shards hold 31 train rows, wanted 32 as its manifest says"):
        training_job(tiny(broken))
    first.unlink()
    with pytest.raises(ValueError, match=f"{first.name}: no such file"):
        training_job(tiny(broken))


def test_a_threshold_chosen_on_val_applies_to_the_score_it_was_chosen_by(prepared):
    assert paper_resnet50().threshold_on == "confidence"
    job = training_job(tiny(prepared, model=ModelChoice("paper_resnet50")))
    assert job.val_rows and job.info.model.threshold_on == "score"


def without_val_depths(prepared, folder) -> str:
    """A copy of the prepared folder whose val split is annotated in 2D only."""
    shutil.copytree(prepared, folder)
    for shard in list_shards(folder, "val"):
        records = [dataclasses.replace(r, joints_cam=None) for r in read_records(shard)]
        pq.write_table(to_table(records), shard)
    manifest = json.loads((folder / "manifest.json").read_text())
    records = (record for shard in list_shards(folder, "val") for record in read_records(shard))
    manifest["splits"]["val"]["statistics"] = JointStatistics(records).to_json()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def test_a_val_split_that_cannot_be_scored_is_refused_or_left_out_before_anything_starts(prepared, tmp_path, capsys):
    flat_val = without_val_depths(prepared, tmp_path / "flat")
    with pytest.raises(ValueError, match=r"val = .*/flat: its val split has images annotated in 2D only, wanted"):
        training_job(tiny(prepared, val=flat_val))
    job = training_job(dataclasses.replace(tiny(prepared), data=(flat_val,)))
    assert job.val_rows == [] and "training goes without validation" in capsys.readouterr().err


# ---- fine-tuning: what a model records of the checkpoint it starts from ----


def parent_of(prepared, folder) -> tuple[TrainConfig, ModelInfo]:
    """A fine-tuning that starts from a checkpoint of other data with other terms; and the info without it."""
    short = tiny(prepared, optim=tiny_optim(epochs=1))
    info = training_job(short).info
    data = {"sources": ["films"], "fingerprints": ["f"], "terms": ["research only"], "split": "train"}
    save_model(folder, DAS(info.model), dataclasses.replace(info, data=data))
    return dataclasses.replace(short, pretrained=str(folder)), info


def test_a_fine_tuned_model_keeps_the_terms_and_is_not_scored_on_the_training_data_of_its_parent(prepared, tmp_path):
    start, info = parent_of(prepared, tmp_path / "parent")
    seen, unseen = (read_annotations([str(prepared)], split) for split in ("test", "val"))
    parents_index = {
        "key": [seen.records[0].key, "films/a/0/00000000"],
        "image_sha256": ["0", seen.records[1].image_sha256],
    }
    write_columns(tmp_path / "parent" / OLD_INDEX, parents_index)
    ((_, child),) = train(StandIn(tmp_path), start, val=False)
    kept = load_info(child).data
    assert kept["terms"] == ["research only", *info.data["terms"]]
    assert (kept["sources"], kept["fingerprints"]) == (["films", "synthetic"], ["f", *info.data["fingerprints"]])
    assert overlap(child, unseen) is None
    assert "trained on 2 of 4 images" in overlap(child, seen), "one by its key, one by its image hash"
    with pytest.raises(ValueError, match="trained on 32 of 32 images"):
        is_train_fit(child, read_annotations([str(prepared)], "train"), allow=False)
    # A third generation keeps what the second one kept.
    again = training_job(dataclasses.replace(start, pretrained=str(child)))
    assert again.info.data == kept and [file.name for file in again.trained_on] == training_files(child)
    (tmp_path / "third").mkdir()
    TrainingFiles(again.trained_on).copy_to(tmp_path / "third")
    assert files(tmp_path / "third") == {name: (child / name).read_bytes() for name in training_files(child)}


def test_a_model_is_not_scored_on_the_training_data_of_any_checkpoint_before_it(prepared, tmp_path):
    start, info = parent_of(prepared, tmp_path / "parent")
    seen, unseen = (read_annotations([str(prepared)], split) for split in ("test", "val"))
    of_parent = hashes([seen.records[0].key, "films/a/0/0"], ["0" * 64, seen.records[1].image_sha256])
    write_digest(tmp_path / "parent" / digest_name("f"), [of_parent])
    ((_, child),) = train(StandIn(tmp_path), start, val=False)
    assert training_files(child) == sorted([digest_name("f"), digest_name(*info.data["fingerprints"])])
    assert overlap(child, unseen) is None and "trained on 2 of 4 images" in overlap(child, seen)
    assert "trained on 32 of 32 images" in overlap(child, read_annotations([str(prepared)], "train"))
    (child / digest_name("f")).unlink()
    assert "what it was trained on is not known" in overlap(child, unseen)


def test_an_initial_checkpoint_without_an_index_leaves_the_training_images_unknown(prepared, tmp_path, capsys):
    start, _ = parent_of(prepared, tmp_path / "parent")
    ((_, child),) = train(StandIn(tmp_path), start, val=False)
    assert "parent does not hold the digests (trained_on-*.parquet) of all its data" in capsys.readouterr().out
    assert training_files(child) is None and "is not known" in overlap(child, read_annotations([str(prepared)], "val"))
