"""How a split is divided into parts, and where their files are."""

from dataclasses import asdict, replace

import pytest

from pipeline.data.shards import write_records
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.parts import parts_folder, parts_of
from pipeline.infra.files import write_json
from tests.pipeline.evaluation.evaluation_cases import manifest_of, provenance_of, scene


@pytest.fixture
def annotations(tmp_path):
    """Two shards of 100 rows, in row groups of 30."""
    records = scene(frames=200)
    shards = [f"test/shard-{i:05d}.parquet" for i in range(2)]
    for i, shard in enumerate(shards):
        write_records(tmp_path / shard, records[100 * i : 100 * (i + 1)], rows_per_group=30)
    write_json(tmp_path / "manifest.json", asdict(manifest_of(records, "test", shards)))
    return read_annotations([str(tmp_path)], "test")


def test_parts_hold_all_rows_of_a_split_once_in_order(annotations):
    parts = parts_of(annotations)
    assert [part.groups for part in parts] == [(0, 1), (2, 3)] * 2
    assert [part.rows for part in parts] == [60, 40] * 2 and parts[0].sizes == (30, 30)
    assert [part.shard for part in parts] == [shard for shard in annotations.shards for _ in range(2)]
    assert len({part.name for part in parts}) == 4


def test_files_of_parts_change_their_place_with_all_that_predictions_depend_on(annotations):
    here = provenance_of(annotations.records)
    folders = {parts_folder("runs/mine", here)}
    for change in ({"model_fingerprint": "n"}, {"data_fingerprint": "n"}, {"least_score": 0.02}, {"code_version": "1"}):
        folders.add(parts_folder("runs/mine", replace(here, **change)))
    assert len(folders) == 5


def test_rows_that_are_packed_otherwise_are_other_parts(annotations, tmp_path):
    before = {part.name for part in parts_of(annotations)}
    write_records(tmp_path / "test" / "shard-00000.parquet", scene(frames=100), rows_per_group=20)
    again = parts_of(read_annotations([str(tmp_path)], "test"))
    assert [part.groups for part in again[:2]] == [(0, 1, 2), (3, 4)]
    assert before & {part.name for part in again} == {part.name for part in again[2:]}
