"""Conversions killed at every step, and several at once into one folder, in real processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from pipeline.data import shards
from pipeline.data.catalog import CATALOG
from pipeline.data.manifest import load_manifest
from pipeline.data.prepare import finish
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import convert
from pipeline.data.prepare.shard_task import write_shard
from pipeline.data.shards import list_shards, read_records
from pipeline.data.sources import panoptic
from pipeline.infra import claims, columns
from pipeline.infra import files as storage
from pipeline.infra.claims import claimed
from pipeline.infra.columns import read_columns
from tests.pipeline.data.original_layouts import write_panoptic
from tests.pipeline.data.prepare.conversions import files
from tests.pipeline.processes import in_a_process, status

PROJECT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A train and a val sequence; one image is missing."""
    root = tmp_path_factory.mktemp("raw")
    write_panoptic(root, "160224_haggling1", frames=range(6))
    write_panoptic(root, "160224_mafia2", frames=range(2))
    (root / "160224_haggling1/hdImgs/00_16/00_16_00000002.jpg").unlink()
    return root


def config(raw: Path, out: Path, **changes) -> ConvertConfig:
    return ConvertConfig("panoptic", str(raw), str(out), **{"allow_missing": True, "shard_mb": 0.04, **changes})


def killed_at(step: int, do: Callable[[], object]) -> Callable[[], None]:
    """A function that calls ``do`` and kills its process at a step.

    Steps are counted before and after every file is written, before it is renamed, and after every deletion.
    """

    def run() -> None:
        passed = 0

        def count_step() -> None:
            nonlocal passed
            passed += 1
            if passed == step:
                os.kill(os.getpid(), signal.SIGKILL)

        staged, delete = storage.staged, storage.delete

        @contextmanager
        def watched(uri, name=None):
            def last():  # the content is written, the file does not have its name yet
                count_step()
                return name() if name else str(uri).rpartition("/")[2]

            count_step()
            with staged(uri, last) as place:
                yield place
            count_step()

        def removed(uri) -> None:
            delete(uri)
            count_step()

        storage.staged = columns.staged = shards.staged = watched
        finish.delete = claims.delete = removed
        do()

    return run


def test_a_conversion_killed_at_any_step_ends_with_the_same_bytes_when_rerun(raw, tmp_path, inline):
    convert(config(raw, tmp_path / "never"))
    wanted, step = files(tmp_path / "never"), 0
    assert len(wanted) >= 6
    while True:
        step += 1
        out = tmp_path / f"out{step}"
        ended = status(in_a_process(killed_at(step, lambda out=out: convert(config(raw, out)))))
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        if list_shards(out, "train"):  # readers must see no shard or all of them
            assert [r.key for s in list_shards(out, "train") for r in read_records(s)] == train_keys(tmp_path / "never")
        manifest = convert(config(raw, out))
        assert manifest == load_manifest(str(tmp_path / "never"))
        assert files(out) == wanted, step
    assert step > 25, "the conversion should be killed at many steps"


def train_keys(prepared: Path) -> list[str]:
    return [r.key for shard in list_shards(prepared, "train") for r in read_records(shard, images=False)]


def test_a_conversion_killed_several_times_ends_with_the_same_bytes(raw, tmp_path, inline):
    convert(config(raw, tmp_path / "never"))
    out = tmp_path / "out"
    kills = 0
    for step in (5, 9, 3, 12, 7):
        ended = status(in_a_process(killed_at(step, lambda: convert(config(raw, out)))))
        kills += ended == -signal.SIGKILL
    assert kills >= 3
    convert(config(raw, out))
    assert files(out) == files(tmp_path / "never")


def test_the_order_in_which_tasks_end_does_not_change_the_result(raw, tmp_path, inline, monkeypatch):
    forwards = convert(config(raw, tmp_path / "forwards"))

    def backwards(tasks, read_records):
        return [write_shard(task, read_records) for task in reversed(tasks)][::-1]

    monkeypatch.setattr("pipeline.data.prepare.run_tasks.run_tasks", backwards)
    assert convert(config(raw, tmp_path / "backwards")) == forwards
    assert files(tmp_path / "backwards") == files(tmp_path / "forwards")


def assert_consistent(prepared: Path) -> None:
    """Asserts that a manifest, its index and the shards that it names hold the same keys."""
    manifest = load_manifest(str(prepared))
    index = read_columns(prepared / "index.parquet")
    keys = [r.key for split in manifest.splits for s in list_shards(prepared, split) for r in read_records(s)]
    assert keys == index["key"]


def test_equal_conversions_at_once_share_their_work(raw, tmp_path, inline):
    convert(config(raw, tmp_path / "alone"))
    for round_ in range(4):
        out = tmp_path / f"out{round_}"
        several = [in_a_process(lambda out=out: convert(config(raw, out))) for _ in range(3)]
        assert {status(process) for process in several} == {0}
        convert(config(raw, out))
        assert files(out) == files(tmp_path / "alone")


def test_unfinished_files_of_a_running_equal_conversion_are_kept(raw, tmp_path, inline):
    alone, out = convert(config(raw, tmp_path / "alone")), tmp_path / "out"
    half = [
        out / name / f".staged-{'0' * 32}-{last}" for name, last in (("train", "shard"), ("_parts/shards", "x.json"))
    ]
    with claimed(str(out / "_parts" / "claims"), alone.inputs, "OUT") as other:
        for path in half:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half of it")
        assert convert(config(raw, out)) == alone == convert(config(raw, out)), (
            "converted in the first call, found finished in the second"
        )
        assert all(path.exists() for path in half) and (out / "_parts" / "claims" / other.name).exists()
    convert(config(raw, out))
    assert files(out) == files(tmp_path / "alone")


def test_a_conversion_without_rows_removes_its_own_reports_and_no_others(raw, tmp_path, inline):
    root, out = write_panoptic(tmp_path / "raw", "160224_mafia2", frames=range(2)), tmp_path / "out"
    other = out / "_parts" / "shards" / f"train-00007-{'1' * 16}.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    shutil.rmtree(root / "160224_mafia2" / "hdImgs")
    with pytest.raises(ValueError, match="gives no image: 2 x image missing"):
        convert(config(root, out))
    assert files(out) == {f"_parts/shards/{other.name}": b"{}"}


def test_different_conversions_at_once_exclude_each_other(raw, tmp_path, inline):
    options = ({}, {"step": 1}, {"rows_per_group": 1})
    for i, change in enumerate(options):
        convert(config(raw, tmp_path / f"alone{i}", **change))
    alone = [files(tmp_path / f"alone{i}") for i in range(len(options))]
    for round_ in range(4):
        out = tmp_path / f"out{round_}"
        several = [in_a_process(lambda out=out, c=c: convert(config(raw, out, **c))) for c in options]
        ended = [status(process) for process in several]
        assert set(ended) <= {0, 3} and ended.count(0) <= 1, (
            "at most one of several different conversions may finish in one folder"
        )
        if 0 in ended:
            assert_consistent(out)
            left = {name: data for name, data in files(out).items() if not name.startswith("_parts")}
            assert left == alone[ended.index(0)]
        else:  # each was refused because of the others: nothing is finished, and a rerun succeeds
            convert(config(raw, out))
            assert files(out) == alone[0]


# ---- with Ray ----


def test_a_killed_task_is_run_again(local_ray, raw, tmp_path, monkeypatch):
    convert(config(raw, tmp_path / "never"))
    mark = tmp_path / "died"

    def records(chunk):
        for i, item in enumerate(panoptic.records(chunk)):
            if i == 1 and chunk.camera == "00_30" and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    source = SimpleNamespace(TERMS=panoptic.TERMS, SPLITS=panoptic.SPLITS, chunks=panoptic.chunks, records=records)
    monkeypatch.setitem(CATALOG, "panoptic", replace(CATALOG["panoptic"], source=source))
    convert(config(raw, tmp_path / "out"))
    assert mark.exists() and files(tmp_path / "out") == files(tmp_path / "never")


def test_a_rerun_after_a_killed_driver_uses_its_finished_tasks(local_ray, raw, tmp_path):
    out = tmp_path / "out"
    script = f"""
import sys, time
from dataclasses import replace
from types import SimpleNamespace
from pipeline.data.prepare import convert as c
from pipeline.infra.cluster import ClusterConfig
from pipeline.data.sources import panoptic
def records(chunk):
    if chunk.split == "val":
        time.sleep(3)
    yield from panoptic.records(chunk)
source = SimpleNamespace(TERMS=panoptic.TERMS, SPLITS=panoptic.SPLITS, chunks=panoptic.chunks, records=records)
c.CATALOG["panoptic"] = replace(c.CATALOG["panoptic"], source=source)
cluster = ClusterConfig(address="{ray.get_runtime_context().gcs_address}")
c.convert(c.ConvertConfig("panoptic", {str(raw)!r}, {str(out)!r}, allow_missing=True, shard_mb=0.012, cluster=cluster))
"""
    # Two train shards of one chunk each, then two of val, which take 3 s each.
    small = {"shard_mb": 0.012}
    convert(config(raw, tmp_path / "small", **small))
    driver = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    deadline = time.monotonic() + 300
    while len([*out.glob("_parts/shards/*.json")]) < 2:
        assert driver.poll() is None and time.monotonic() < deadline, "the driver ended before it could be killed"
        time.sleep(0.02)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL and not (out / "manifest.json").exists()
    reports = {p.name: p.stat().st_mtime_ns for p in out.glob("_parts/shards/*.json")}
    assert len(reports) >= 2
    convert(config(raw, out, **small))
    assert files(out) == files(tmp_path / "small")
