"""The folder that a conversion writes: no file of anybody else's is touched, and it lies apart from the originals."""

import resource
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from pipeline.data.prepare import convert as convert_module
from pipeline.data.prepare.convert import ConvertConfig, convert
from pipeline.data.prepare.output_folder import check_only_own_files, remove_leftovers
from pipeline.data.prepare.shard_task import write_shard
from tests.pipeline.data.original_layouts import write_mupots


@pytest.fixture
def config(tmp_path) -> ConvertConfig:
    """Two frames of MuPoTS, to be converted into a folder beside them."""
    root = write_mupots(tmp_path / "raw", [f"TS1/img_{i:06d}.jpg" for i in range(2)])
    return ConvertConfig("mupots", str(root), str(tmp_path / "out"))


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


SOMEBODYS = (
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


@pytest.mark.parametrize("name", SOMEBODYS)
def test_a_folder_with_somebodys_file_is_refused_by_name_and_left_as_it_is(config, inline, name):
    theirs = Path(config.out, name)
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    named = name.removesuffix("/shard-00000-0123456789ab.parquet") if "/mine/" in name else name
    with pytest.raises(ValueError, match=f"/out holds {named}, which no conversion writes"):
        convert(config)
    assert files(Path(config.out)) == [name] and theirs.read_text() == "theirs"


def test_what_somebody_puts_there_while_the_conversion_runs_or_later_stays(config, inline, monkeypatch):
    out = Path(config.out)

    def run(tasks, read_records):
        for name in SOMEBODYS:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            if not (out / name).is_dir():
                (out / name).write_text("theirs")
        return [write_shard(task, read_records) for task in tasks]

    monkeypatch.setattr(convert_module, "run_tasks", run)
    manifest = convert(config)
    (shard,) = manifest.splits["test"].shards
    assert files(out) == sorted((*SOMEBODYS, shard, "index.parquet", "manifest.json"))
    assert convert(config) == manifest
    assert files(out) == sorted((*SOMEBODYS, shard, "index.parquet", "manifest.json"))


def test_all_that_a_conversion_leaves_is_known_as_its_own_and_removed(config, inline):
    manifest = convert(config)
    out, half = Path(config.out), f".staged-{'0' * 32}-"
    wanted = files(out)
    left = (
        f"{half}manifest.json", f"train/{half}shard", "val/shard-00003-0123456789ab.parquet",
        f"_parts/{half}test-00000-{'1' * 16}.json", f"_parts/test-00000-{'1' * 16}.json",
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
def test_a_folder_of_the_originals_is_refused(root, out, relation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "linked").symlink_to("raw")
    with pytest.raises(ValueError, match=f"out = '{out}' {relation} the folder of the originals"):
        ConvertConfig("coco", root, out)
    ConvertConfig("coco", root, "raw-prepared")
    ConvertConfig("coco", root, "s3://bucket/raw")


def test_a_full_disk_is_one_line_and_leaves_no_half_file(config, inline):
    convert(replace(config, out=f"{config.out}-whole"))
    with most_bytes_in_a_file(4000):
        with pytest.raises(ValueError, match=f"{config.out}: reading or writing failed: .*File too large") as caught:
            convert(config)
    assert "\n" not in str(caught.value) and files(Path(config.out)) == []
    convert(config)
    assert files(Path(config.out)) == files(Path(f"{config.out}-whole"))


@contextmanager
def most_bytes_in_a_file(most: int):
    """As on a full disk, writing fails half-way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_a_file_where_a_folder_should_be_is_one_line(config, inline, tmp_path, place):
    (tmp_path / "file").write_text("theirs")
    with pytest.raises(ValueError, match=f"{tmp_path}/{place}: reading or writing failed: ") as caught:
        convert(replace(config, out=str(tmp_path / place)))
    assert "\n" not in str(caught.value) and (tmp_path / "file").read_text() == "theirs"


def test_a_folder_that_other_nodes_do_not_see_is_refused_before_the_work(config, monkeypatch):
    started = iter([False, True])  # Ray, as it is joined
    monkeypatch.setattr(ray, "is_initialized", lambda: next(started))
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}] * 2)
    with pytest.raises(ValueError, match=f"out = '{config.out}' is a folder of one machine, but the cluster has 2 nod"):
        convert(config)
    assert files(Path(config.out)) == []
