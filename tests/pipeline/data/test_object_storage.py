"""Prepared data in object storage: a local S3 server process, used through pyarrow."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from pipeline.data.manifest import load_manifest
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import convert
from pipeline.data.ray_rows import read_split
from pipeline.data.schema import from_row
from pipeline.data.shards import list_shards, read_records
from pipeline.evaluation.annotations import read_annotations
from pipeline.infra.claims import claimed
from pipeline.infra.columns import read_columns
from pipeline.infra.files import delete, exists, join, locate, names, read_json, staged, write_bytes, write_json
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.models import resolve_model
from pipeline.tracking import delivery
from pipeline.tracking.tracker import Tracker
from pipeline.training.run_folder import save_best
from tests.pipeline.data.original_layouts import write_panoptic
from tests.servers import s3_server


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory) -> Iterator[str]:
    """Address of an S3 server with an empty bucket; the AWS environment variables are set to it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server.address


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    write_panoptic(root, "160224_haggling1", frames=range(8))
    write_panoptic(root, "160224_mafia2", frames=range(4))
    (root / "160224_haggling1/hdImgs/00_16/00_16_00000002.jpg").unlink()
    return root


def config(raw: Path, out: str, **changes) -> ConvertConfig:
    return ConvertConfig("panoptic", str(raw), out, **{"allow_missing": True, "shard_mb": 0.04, **changes})


def objects(uri: str) -> dict[str, bytes]:
    """All objects below a URI, by name relative to it."""
    filesystem, path = locate(uri)
    selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
    found = [i.path for i in filesystem.get_file_info(selector) if i.type == fs.FileType.File]
    return {name[len(path) + 1 :]: filesystem.open_input_stream(name).read() for name in sorted(found)}


def local_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_conversion_into_a_bucket_gives_the_same_objects_as_files(endpoint, local_ray, raw, tmp_path):
    in_bucket = convert(config(raw, "s3://bucket/prepared"))
    on_disk = convert(config(raw, str(tmp_path / "here")))
    assert in_bucket == on_disk == load_manifest("s3://bucket/prepared")
    assert objects("s3://bucket/prepared") == local_files(tmp_path / "here")
    assert convert(config(raw, "s3://bucket/prepared")) == in_bucket  # finished before
    shards = list_shards("s3://bucket/prepared", "train")
    records = [record for shard in shards for record in read_records(shard)]
    assert [r.key for r in records] == [
        k
        for k, split in zip(*read_columns("s3://bucket/prepared/index.parquet", ["key", "split"]).values())
        if split == "train"
    ]
    assert len(read_annotations(["s3://bucket/prepared"], "val").records) == 4
    assert read_columns("s3://bucket/prepared/quarantine.parquet")["reason"] == ["image missing"]
    rows = read_split(["s3://bucket/prepared"], "train").take_all()
    assert sorted(from_row(row).key for row in rows) == sorted(r.key for r in records)


def test_the_endpoint_may_be_given_in_the_uri(endpoint, raw, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    uri = f"s3://bucket/other?endpoint_override={endpoint}&scheme=http&region=us-east-1"
    write_json(join(uri, "a", "b.json"), {"n": 1})
    assert read_json(join(uri, "a", "b.json")) == {"n": 1} and exists(uri)
    delete(uri)
    assert not exists(join(uri, "a", "b.json"))


def test_an_error_while_writing_leaves_the_old_object(endpoint):
    uri = "s3://bucket/atomic/x.json"
    write_json(uri, {"n": 1})
    with pytest.raises(RuntimeError, match="while writing"):
        with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
            stream.write(b"half of it")
            raise RuntimeError("while writing")
    assert objects("s3://bucket/atomic") == {"x.json": b'{\n "n": 1\n}\n'}
    assert names("s3://bucket/atomic") == ["x.json"] and names("s3://bucket/nothing") == []


def test_a_conversion_into_a_bucket_that_was_cut_off_is_finished_by_a_rerun(endpoint, local_ray, raw, tmp_path):
    out = "s3://bucket/resumed"
    with pytest.raises(ValueError, match="1 frames in quarantine: 1 x image missing"):
        convert(config(raw, out, allow_missing=False))
    unfinished = objects(out)
    assert "manifest.json" not in unfinished and len([n for n in unfinished if n.startswith("_parts/shards/train")]) > 1
    assert list_shards(out, "train") == []
    write_bytes(join(out, "train", "shard-00099-0123456789ab.parquet"), b"leftover")
    convert(config(raw, out))
    convert(config(raw, str(tmp_path / "never")))
    assert objects(out) == local_files(tmp_path / "never")


def test_claims_in_a_bucket_exclude_each_other(endpoint, raw):
    out = "s3://bucket/claimed"
    with claimed(join(out, "_parts", "claims"), "other inputs", out):
        with pytest.raises(ValueError, match=f"{out}: another conversion, .* delete {out}/_parts/claims/"):
            convert(config(raw, out))
    assert objects(out) == {}


def test_a_missing_bucket_is_named(endpoint, raw):
    with pytest.raises((ValueError, OSError), match="(?i)bucket"):
        write_json("s3://no-such-bucket-anywhere/x.json", 1)
    assert os.environ["AWS_ENDPOINT_URL"].endswith(endpoint)


def test_files_of_a_run_in_object_storage_reach_mlflow_also_when_sent_late(endpoint, tmp_path, monkeypatch):
    best = tmp_path / "checkpoint"
    best.mkdir()
    for name in ("config.json", "training_state.pt"):
        (best / name).write_text(name)
    store, folder = f"sqlite:///{tmp_path}/mlflow.db", "s3://bucket/run"
    with Tracker.open(store, "das", "run", folder) as tracker:
        with monkeypatch.context() as lost:
            lost.setattr(delivery, "send_events", unreachable)
            save_best(str(best), "s3://bucket/run/best", tracker)
            write_bytes("s3://bucket/run/tables/a.csv", b"1")
            write_bytes("s3://bucket/run/report.html", b"page")
            tracker.log_files(folder, ("tables", "report.html", "absent"))
            shutil.rmtree(best)
    client = MlflowStore(store).client()
    found = {f.path: f.is_dir for f in client.list_artifacts(tracker.handle.run_id)}
    assert found == {"checkpoint": True, "tables": True, "report.html": False}
    inside = {f.path for name in ("checkpoint", "tables") for f in client.list_artifacts(tracker.handle.run_id, name)}
    assert inside == {"checkpoint/config.json", "tables/a.csv"}
    assert objects(folder + "/best").keys() == {"config.json", "training_state.pt"}
    with pytest.raises(ValueError, match="s3://bucket/run/nothing does not exist"):
        tracker.log_artifact("s3://bucket/run/nothing")


def test_a_model_that_is_not_in_a_bucket_is_named_and_leaves_no_copy(endpoint, tmp_path):
    for uri in ("s3://bucket/no-model", "s3://no-such-bucket-anywhere/best"):
        with pytest.raises(ValueError, match=f"{uri}: no such folder"):
            resolve_model(uri, cache=tmp_path)
    write_bytes("s3://bucket/no-checkpoint/a.txt", b"text")
    with pytest.raises(ValueError, match="s3://bucket/no-checkpoint is no complete .*config.json"):
        resolve_model("s3://bucket/no-checkpoint", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def unreachable(*_):
    raise ConnectionError("the server does not answer")
