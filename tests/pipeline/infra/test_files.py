"""Files appear whole or not at all, shards are read in bounded memory, and every mistake names its file."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from pipeline.data.shards import read_records
from pipeline.infra.columns import Lists, read_columns, read_lists, write_columns, write_lists, write_texts
from pipeline.infra.files import (
    copy_folder,
    delete,
    exists,
    join,
    locate,
    names,
    read_bytes,
    read_json,
    write_bytes,
    write_json,
)


def test_lists_of_numbers_come_back_with_what_they_are(tmp_path):
    lengths, values = np.array([2, 0, 3]), np.arange(5, dtype=np.float32)
    write_lists(tmp_path / "t.parquet", "key", ["a", "b", "c"], {"x": Lists(lengths, values)}, {"format": 1})
    keys, lists, about = read_lists(tmp_path / "t.parquet", "key", ["x"])
    assert keys == ["a", "b", "c"] and about == {"format": 1}
    assert (lists["x"].lengths == lengths).all() and (lists["x"].values == values).all()
    assert pq.read_table(tmp_path / "t.parquet").column("x").to_pylist() == [[0, 1], [], [2, 3, 4]]


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"key": ["a"]}, "column x is missing"),
        ({"key": [1], "x": [[1.0]]}, "column key is int64, wanted texts"),
        ({"key": [None, "a"], "x": [[1.0], [2.0]]}, "column key holds nulls"),
        ({"key": ["a"], "x": ["b"]}, "column x is string, wanted lists"),
        ({"key": ["a"], "x": [None]}, "column x"),
        ({"key": ["a"], "x": [[1.0, None]]}, "column x holds nulls"),
        ({"key": ["a"], "x": [["b"]]}, "column x holds nulls or string"),
        ({"key": ["a"], "x": [[1.0]]}, "no description"),
    ],
)
def test_tables_of_another_form_are_refused_by_name(tmp_path, columns, named):
    write_columns(tmp_path / "t.parquet", columns)
    with pytest.raises(ValueError, match=named) as caught:
        read_lists(tmp_path / "t.parquet", "key", ["x"])
    assert "t.parquet" in str(caught.value)


def test_tables_of_texts_are_written_in_pieces(tmp_path):
    rows = [(f"a{i}", f"b{i}") for i in range(7)]
    write_texts(tmp_path / "t.parquet", ("a", "b"), iter(rows), rows_per_group=3)
    assert read_columns(tmp_path / "t.parquet") == {"a": [a for a, _ in rows], "b": [b for _, b in rows]}
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 3
    write_texts(tmp_path / "none.parquet", ("a", "b"), [])
    assert read_columns(tmp_path / "none.parquet") == {"a": [], "b": []}


def test_paths_and_file_uris_are_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json("a/b.json", {"n": [1, None, "ü"]})
    assert read_json(f"file://{tmp_path}/a/b.json") == {"n": [1, None, "ü"]}
    assert exists("a") and exists(tmp_path / "a" / "b.json") and not exists("a/c")
    assert names("a") == ["b.json"]


def test_object_storage_is_a_uri_with_its_options_at_the_end():
    uri = "s3://bucket/data?region=eu-central-1&endpoint_override=localhost:9"
    shard = join(uri, "train", "shard-00000.parquet")
    filesystem, path = locate(shard)
    assert isinstance(filesystem, fs.S3FileSystem) and path == "bucket/data/train/shard-00000.parquet"
    with pytest.raises(ValueError, match="ftp://host/data"):
        locate("ftp://host/data")


def test_copy_and_delete_folders(tmp_path):
    write_bytes(tmp_path / "a" / "x" / "1", b"one")
    write_bytes(tmp_path / "a" / "2", b"two")
    copy_folder(tmp_path / "a", tmp_path / "b")
    assert read_bytes(tmp_path / "b" / "x" / "1") == b"one"
    assert read_bytes(tmp_path / "b" / "2") == b"two"
    delete(tmp_path / "a")
    delete(tmp_path / "b" / "2")
    delete(tmp_path / "never")
    assert os.listdir(tmp_path) == ["b"] and os.listdir(tmp_path / "b") == ["x"]
    with pytest.raises(ValueError, match="never: no such folder"):
        copy_folder(tmp_path / "never", tmp_path / "c")


def test_columns_round_trip_and_a_missing_one_is_named(tmp_path):
    columns = {"key": ["a", "b"], "score": [0.25, 0.5], "joints": [[1.0, 2.0], []]}
    write_columns(tmp_path / "t.parquet", columns)
    assert read_columns(tmp_path / "t.parquet") == columns
    assert read_columns(tmp_path / "t.parquet", ["score"]) == {"score": [0.25, 0.5]}
    with pytest.raises(ValueError, match="t.parquet: no column image, found key, score, joints"):
        read_columns(tmp_path / "t.parquet", ["image"])


def test_wrong_files_are_named(tmp_path):
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "text.parquet").write_bytes(b"not parquet at all")
    (tmp_path / "bad.json").write_bytes(b"{")
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
    with pytest.raises(ValueError, match=r"bad\.json: not JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(ValueError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")
