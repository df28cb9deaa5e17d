"""The folder that a conversion writes: unknown files are not touched, and it must be apart from the originals."""

import resource
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import convert
from pipeline.data.prepare.output_folder import check_only_own_files, remove_leftovers
from pipeline.data.prepare.shard_task import write_shard
from tests.pipeline.data.original_layouts import write_mupots


@pytest.fixture
def config(tmp_path) -> ConvertConfig:
    """A conversion of two frames of MuPoTS."""
    root = write_mupots(tmp_path / "raw", [f"TS1/img_{i:06d}.jpg" for i in range(2)])
    return ConvertConfig("mupots", str(root), str(tmp_path / "out"))


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


UNKNOWN_FILES = (
    "notes.txt",
    ".staged-plan",
    "train/cat.jpg",
    "test/shard",
    "test/shard-00000.parquet",
    "test/shard-00000-0123456789ab.parquet.bak",
    "test/mine/shard-00000-0123456789ab.parquet",
    "_parts/todo.txt",
    "_parts/claims/who.json",
)


@pytest.mark.parametrize("name", UNKNOWN_FILES)
def test_a_folder_with_an_unknown_file_is_refused_by_its_name_and_not_changed(config, inline, name):
    unknown = Path(config.out, name)
    unknown.parent.mkdir(parents=True)
    unknown.write_text("content")
    named = name.removesuffix("/shard-00000-0123456789ab.parquet") if "/mine/" in name else name
    with pytest.raises(ValueError, match=f"/out holds {named}, which no conversion writes"):
        convert(config)
    assert files(Path(config.out)) == [name] and unknown.read_text() == "content"


def test_unknown_files_added_while_the_conversion_runs_or_later_are_kept(config, inline, monkeypatch):
    out = Path(config.out)

    def run(tasks, read_records):
        for name in UNKNOWN_FILES:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            if not (out / name).is_dir():
                (out / name).write_text("content")
        return [write_shard(task, read_records) for task in tasks]

    monkeypatch.setattr("pipeline.data.prepare.run_tasks.run_tasks", run)
    manifest = convert(config)
    (shard,) = manifest.splits["test"].shards
    assert files(out) == sorted((*UNKNOWN_FILES, shard, "index.parquet", "manifest.json"))
    assert convert(config) == manifest
    assert files(out) == sorted((*UNKNOWN_FILES, shard, "index.parquet", "manifest.json"))


def test_all_leftovers_of_conversions_are_accepted_and_removed(config, inline):
    manifest = convert(config)
    out, half = Path(config.out), f".staged-{'0' * 32}-"
    wanted = files(out)
    left = (
        f"{half}manifest.json", f"train/{half}shard", "val/shard-00003-0123456789ab.parquet",
        f"_parts/shards/{half}test-00000-{'1' * 16}.json", f"_parts/shards/test-00000-{'1' * 16}.json",
        f"_parts/shards/test-00000-{'1' * 16}.parquet", f"_parts/test-00000-{'1' * 16}.json",
        f"_parts/claims/{'2' * 32}.json",
    )  # fmt: skip
    for name in left:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    check_only_own_files(str(out))
    remove_leftovers(str(out), manifest)
    assert files(out) == wanted and not (out / "_parts").exists()


@pytest.mark.parametrize(
    ("root", "out", "relation"),
    [
        ("raw", "raw", "is"), ("raw", "raw/../raw/", "is"), ("raw", "raw/prepared", "is inside of"),
        ("raw/a", ".", "contains"), ("linked", "raw/prepared", "is inside of"),
        ("raw", "file://raw/prepared", "is inside of"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_apart_from_the_originals_is_refused(root, out, relation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "linked").symlink_to("raw")
    with pytest.raises(ValueError, match=f"out = '{out}' {relation} the folder of the originals"):
        ConvertConfig("coco", root, out)
    ConvertConfig("coco", root, "raw-prepared")
    ConvertConfig("coco", root, "s3://bucket/raw")


def test_a_full_disk_is_refused_in_one_line_and_leaves_no_partial_file(config, inline):
    convert(replace(config, out=f"{config.out}-whole"))
    with limit_file_size(4000):
        with pytest.raises(ValueError, match=f"{config.out}: reading or writing failed: .*File too large") as caught:
            convert(config)
    assert "\n" not in str(caught.value) and files(Path(config.out)) == []
    convert(config)
    assert files(Path(config.out)) == files(Path(f"{config.out}-whole"))


@contextmanager
def limit_file_size(most: int):
    """Writing fails part of the way, as on a full disk: no file may have more than ``most`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_a_file_in_place_of_a_folder_is_refused_in_one_line(config, inline, tmp_path, place):
    (tmp_path / "file").write_text("content")
    with pytest.raises(ValueError, match=f"{tmp_path}/{place}: reading or writing failed: ") as caught:
        convert(replace(config, out=str(tmp_path / place)))
    assert "\n" not in str(caught.value) and (tmp_path / "file").read_text() == "content"


def test_a_folder_that_other_nodes_cannot_read_is_refused_before_the_tasks_run(config, monkeypatch):
    started = iter([False, True])  # Ray is not running at first, and running once it is joined
    monkeypatch.setattr(ray, "is_initialized", lambda: next(started))
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}] * 2)
    with pytest.raises(ValueError, match=f"out = '{config.out}' is a folder of one machine, but the cluster has 2 nod"):
        convert(config)
    assert files(Path(config.out)) == []
