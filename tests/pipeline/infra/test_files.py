"""Paths and URIs mean the same place, folders are copied and deleted, and an error names its file."""

import os

import pytest
from pyarrow import fs

from pipeline.infra.files import (
    copy_folder,
    delete,
    exists,
    join,
    locate,
    names,
    read_bytes,
    read_json,
    refuse_other,
    staged,
    write_bytes,
    write_json,
)


def test_paths_and_file_uris_are_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json("a/b.json", {"n": [1, None, "ü"]})
    assert read_json(f"file://{tmp_path}/a/b.json") == {"n": [1, None, "ü"]}
    assert exists("a") and exists(tmp_path / "a" / "b.json") and not exists("a/c")
    assert names("a") == ["b.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": value})
    assert not (tmp_path / "a.json").exists()


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


def test_a_missing_or_malformed_json_file_is_named(tmp_path):
    (tmp_path / "bad.json").write_bytes(b"{")
    with pytest.raises(ValueError, match=r"bad\.json: not JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(ValueError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")


def test_a_staged_file_is_deleted_when_its_block_raises(tmp_path):
    write_bytes(tmp_path / "a", b"before")
    with pytest.raises(OSError, match="disk full"):
        with staged(tmp_path / "a") as (filesystem, path):
            with filesystem.open_output_stream(path) as stream:
                stream.write(b"half")
            raise OSError("disk full")
    assert os.listdir(tmp_path) == ["a"] and read_bytes(tmp_path / "a") == b"before"


def test_the_folder_of_another_run_is_refused_by_the_field_that_differs(tmp_path):
    report = tmp_path / "report.json"
    refuse_other(report, model="a")
    write_json(report, {"model": "a", "data": "b"})
    refuse_other(report, model="a", data="b")
    with pytest.raises(ValueError, match="report.json has data b, wanted c: choose another --name"):
        refuse_other(report, model="a", data="c")
