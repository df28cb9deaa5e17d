"""The manifest: faults are refused by name, and every schema version is read."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from das.skeleton import COCO19
from pipeline.data.manifest import Manifest, load_manifest
from pipeline.data.samples import to_sample
from pipeline.data.schema import READABLE, VERSION
from pipeline.data.shards import find_records, list_shards, read_records
from pipeline.evaluation.annotations import read_annotations

OLD = Path(__file__).parent / "prepared_v1"  # written by the code of schema version 1
SIX = {"images": 6, "shards": ["train/shard-00000.parquet"], "row_groups": [[4, 3]]}
GOOD = Manifest(VERSION, 1, "0", "coco", "terms", ("coco17",), "coco@0", "f" * 64, "0" * 64, {})


def write(folder: Path, content) -> None:
    (folder / "manifest.json").write_text(json.dumps(content))


def test_a_missing_manifest_and_a_missing_folder_have_different_messages(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist; wanted a folder made by `das prepare`"):
        load_manifest(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="holds no manifest: its conversion did not finish"):
        load_manifest(str(tmp_path))
    assert list_shards(tmp_path, "train") == []


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        ("schema version 9, wanted 1 or 2: prepare .* `das prepare --source coco --root", {"schema_version": 9}),
        ("schema version 0, wanted 1 or 2", {"schema_version": 0}),
        ("schema version None, wanted 1 or 2", {"schema_version": None}),
        (r"schema version \[\], wanted a manifest", None),
        ("not a manifest", {"colour": "red"}),
        ("not a manifest .*shards", {"splits": {"train": {}}}),
        ("not a manifest .*7 rows in the row groups of 1 shards, wanted 6 in 1", {"splits": {"train": SIX}}),
    ],
)
def test_faulty_manifests_are_refused_naming_the_fault(tmp_path, reason, content):
    write(tmp_path, [] if content is None else {**vars(GOOD), **content})
    with pytest.raises(ValueError, match=f"manifest.json: {reason}"):
        load_manifest(str(tmp_path))


def test_a_manifest_is_read_back_unchanged_and_a_missing_split_is_refused(tmp_path):
    write(tmp_path, asdict(GOOD))
    assert load_manifest(str(tmp_path)) == GOOD
    with pytest.raises(ValueError, match="no split 'val', found"):
        read_annotations([str(tmp_path)], "val")


def test_data_of_schema_version_1_are_read_without_conversion():
    assert READABLE == (VERSION - 1, VERSION) and json.loads((OLD / "manifest.json").read_text())["schema_version"] == 1
    manifest = load_manifest(str(OLD))
    assert (manifest.schema_version, manifest.quarantine, manifest.reencode_long_side) == (1, {}, None)
    assert {name: info.images for name, info in manifest.splits.items()} == {"train": 4, "val": 2}
    (shard,) = list_shards(OLD, "train")
    records = list(read_records(shard))
    assert [r.key for r in records] == [
        f"panoptic/160224_haggling1/{c}/0000000{f}" for c in ("00_16", "00_30") for f in (0, 2)
    ]
    for record in records:
        assert record.split_manifest == "" and record.skeleton == COCO19.name and len(record) == 2
        sample, left_out = to_sample(record)
        assert sample.image.shape == (36, 64, 3) and not left_out
    assert find_records([shard], [records[1].key])[records[1].key].image == records[1].image
    assert len(read_annotations([str(OLD)], "val").records) == 2
