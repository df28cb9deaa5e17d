"""Shards of records round-trip in bounded memory, appear whole or not at all, and every error names its file."""

import json
import os
import signal
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.shards import find_records, list_shards, read_records, write_records
from pipeline.infra.files import write_json
from tests.pipeline.data.records import assert_equal, many, record

PROJECT = Path(__file__).resolve().parents[3]


def test_records_come_back_in_order_with_and_without_images(tmp_path):
    shard = tmp_path / "train" / "shard-00000.parquet"
    write_records(shard, many(7), rows_per_group=3)
    for original, found in zip(many(7), read_records(shard, rows=2), strict=True):
        assert_equal(original, found)
    for original, found in zip(many(7), read_records(shard, images=False), strict=True):
        assert_equal(replace(original, image=b""), found)


def test_records_are_found_by_key_reading_only_the_row_groups_that_hold_them(tmp_path, monkeypatch):
    shards = [str(tmp_path / f"{i}.parquet") for i in range(2)]
    records = [*many(12)]
    for shard, part in zip(shards, (records[:7], records[7:]), strict=True):
        write_records(shard, part, rows_per_group=2)
    read = []
    whole = pq.ParquetFile.read_row_group

    def recorded(file, group, columns):
        read.append((group, "image" in columns))
        return whole(file, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", recorded)
    wanted = [records[i] for i in (3, 8, 11)]
    found = find_records(shards, {*(r.key for r in wanted), "nothing"})
    assert found.keys() == {r.key for r in wanted}
    for original in wanted:
        assert_equal(original, found[original.key])
    assert [group for group, image in read if image] == [1, 0, 2]


def test_row_groups_end_by_rows_or_by_bytes(tmp_path):
    def groups(**limits):
        write_records(tmp_path / "s.parquet", many(7), **limits)
        file = pq.ParquetFile(tmp_path / "s.parquet")
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]

    assert groups(rows_per_group=3) == [3, 3, 1]
    assert groups(bytes_per_group=2 * len(record().image)) == [2, 2, 2, 1]
    assert groups(bytes_per_group=1) == [1] * 7


def test_writing_holds_one_row_group_in_memory(tmp_path):
    alive = weakref.WeakSet()
    most = 0

    class Counted(type(record())):
        __hash__ = object.__hash__

    def counted():
        nonlocal most
        for r in many(60):
            r = Counted(**vars(r))
            alive.add(r)
            most = max(most, len(alive))
            yield r

    write_records(tmp_path / "s.parquet", counted(), rows_per_group=5)
    assert most <= 5 + 1


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    shard = tmp_path / "shard-00000.parquet"
    write_records(shard, many(2))
    before = shard.read_bytes()

    def failing():
        yield from many(5)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        write_records(shard, failing(), rows_per_group=2)
    bad = replace(record(), image=b"")
    with pytest.raises(ValueError, match="shard-00000.parquet: source/sequence/00_16/00000007: column image"):
        write_records(shard, [bad])
    assert shard.read_bytes() == before and os.listdir(tmp_path) == ["shard-00000.parquet"]


def test_a_killed_writer_leaves_no_half_file(tmp_path):
    script = f"""
import os, signal
from tests.pipeline.data.records import many
from pipeline.data.shards import write_records
def killed():
    yield from many(5)
    os.kill(os.getpid(), signal.SIGKILL)
write_records({str(tmp_path / "train" / "shard-00000.parquet")!r}, killed(), rows_per_group=2)
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path / "train")) == 1  # the unfinished file
    assert list_shards(tmp_path, "train") == []


def test_shards_are_those_that_the_manifest_names(tmp_path):
    for i in (2, 0, 1):
        write_records(tmp_path / "val" / f"shard-{i:05d}.parquet", many(1))
    assert list_shards(tmp_path, "val") == [], "without a manifest no shard is finished"
    listed = ["val/shard-00002.parquet", "val/shard-00001.parquet"]
    write_json(tmp_path / "manifest.json", {"splits": {"val": {"shards": listed}}})
    assert list_shards(tmp_path, "val") == [str(tmp_path / name) for name in listed]
    assert list_shards(tmp_path, "train") == []


def test_a_file_can_be_named_after_its_content(tmp_path):
    seen = []

    def records():
        for r in many(3):
            seen.append(r.frame)
            yield r

    write_records(tmp_path / "shard", records(), validated=True, name=lambda: f"shard-{sum(seen)}.parquet")
    assert os.listdir(tmp_path) == ["shard-3.parquet"]
    assert [r.frame for r in read_records(tmp_path / "shard-3.parquet")] == [0, 1, 2]


def test_files_that_are_not_shards_are_named(tmp_path):
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "text.parquet").write_bytes(b"not parquet at all")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "other.parquet")
    faults = {
        "empty.parquet": "not a Parquet file",
        "text.parquet": "not a Parquet file",
        "other.parquet": "schema version none, wanted 1 or 2",
        "none.parquet": "no such file",
    }
    for name, reason in faults.items():
        with pytest.raises(ValueError, match=f"{name}: {reason}"):
            list(read_records(tmp_path / name))


def test_a_row_damaged_on_disk_is_refused_on_reading(tmp_path):
    shard = tmp_path / "s.parquet"
    write_records(shard, many(2))
    table = pq.read_table(shard)
    metres = [[[x / 1000 for x in person] for person in row] for row in table["joints_cam"].to_pylist()]
    index = table.schema.get_field_index("joints_cam")
    field = table.schema.field(index)
    pq.write_table(table.set_column(index, field, pa.array(metres, field.type)), shard)
    with pytest.raises(ValueError, match="s.parquet: source/sequence/00_16/00000000: column joints_cam: found"):
        list(read_records(shard))


@pytest.mark.parametrize(
    "name", ["../secret.parquet", "/etc/x.parquet", "train/../../secret.parquet", "link.parquet", "", 3]
)
def test_shards_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    folder = tmp_path / "prepared"
    folder.mkdir()
    write_records(tmp_path / "secret.parquet", [record()])
    (folder / "link.parquet").symlink_to(tmp_path / "secret.parquet")
    (folder / "manifest.json").write_text(json.dumps({"splits": {"train": {"shards": [name]}}}))
    with pytest.raises(ValueError, match=r"manifest\.json: shard .* leads out of the folder"):
        list_shards(str(folder), "train")
    (folder / "manifest.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest"):
        list_shards(str(folder), "train")
