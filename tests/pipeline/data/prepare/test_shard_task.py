"""One task: what it leaves when it is killed, when its report counts as finished, and frames that cannot be read."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.data.prepare.convert import plan_conversion
from pipeline.data.prepare.frames import read_frames
from pipeline.data.prepare.shard_task import finished_summary, write_shard
from pipeline.data.record import Record
from pipeline.data.shards import list_shards
from pipeline.data.sources import panoptic
from pipeline.data.sources.base import Chunk, DroppedFrame
from tests.pipeline.data.original_layouts import write_panoptic
from tests.pipeline.data.prepare.conversions import config

PROJECT = Path(__file__).resolve().parents[4]


def test_a_killed_worker_leaves_no_partial_shard(raw, tmp_path):
    script = f"""
import os, signal, time
from pathlib import Path
from pipeline.data.prepare import convert
from pipeline.data.prepare.shard_task import write_shard
from pipeline.data.sources import panoptic
read = panoptic.records
def killed(chunk):
    for i, item in enumerate(read(chunk)):
        while i == 3:
            if any(file.stat().st_size > 10_000 for file in Path({str(tmp_path)!r}).rglob(".staged-*")):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)
        yield item
config = convert.ConvertConfig("panoptic", {str(raw)!r}, {str(tmp_path)!r}, rows_per_group=1)
write_shard(convert.plan_conversion(config).tasks[-1], killed)  # of test: those of train are written at once
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    assert done.returncode == -signal.SIGKILL
    (left,) = (p for p in tmp_path.rglob("*") if p.is_file())
    assert left.name.startswith(".staged-") and left.stat().st_size > 10_000
    assert list_shards(tmp_path, "train") == []


def test_a_task_with_other_options_or_without_its_shard_is_not_finished(raw, tmp_path):
    (task,) = (task for task in plan_conversion(config(raw, tmp_path)).tasks if task.split == "val")
    summary = write_shard(task, panoptic.records)
    assert finished_summary(task) == json.loads(json.dumps(summary))
    assert finished_summary(replace(task, rows_per_group=1)) is None
    assert finished_summary(replace(task, reencode_long_side=64)) is None
    assert finished_summary(replace(task, chunks=task.chunks[:1])) is None
    assert finished_summary(replace(task, chunks=tuple(replace(c, root="/x") for c in task.chunks)))
    os.remove(tmp_path / summary["shard"])
    assert finished_summary(task) is None


def test_a_task_with_faults_is_not_finished_when_the_faulty_files_have_changed(raw, tmp_path):
    root = write_panoptic(tmp_path / "raw", "160224_mafia2", frames=range(4))
    images = sorted((root / "160224_mafia2" / "hdImgs" / "00_16").iterdir())
    good = images[0].read_bytes()
    images[0].write_bytes(good[:900])
    images[2].unlink()
    (task,) = plan_conversion(config(root, tmp_path / "out")).tasks
    assert write_shard(task, panoptic.records)["quarantine"] == {"image damaged": 1, "image missing": 1}
    assert finished_summary(task)["quarantine"] == {"image damaged": 1, "image missing": 1}
    images[2].write_bytes(good)
    assert finished_summary(task) is None
    assert write_shard(task, panoptic.records)["quarantine"] == {"image damaged": 1}
    images[0].write_bytes(good)
    assert finished_summary(task) is None


def test_frames_after_a_fault_are_read_and_a_repeated_message_is_raised():
    chunk = Chunk("s", "/", "train", "seq", "0", "", tuple(range(6)), 0)

    def records(words):
        def read(chunk):
            for frame in chunk.frames:
                if frame in (0, 2, 3, 5):
                    raise ValueError(words(frame))
                yield DroppedFrame(f"s/seq/0/{frame:08d}", "image missing")

        return read

    found = list(read_frames(chunk, records(lambda frame: f"file {frame}")))
    assert [int(item.key[-1]) for item in found] == [*range(6)]
    assert [item.frame for item in found if isinstance(item, Record)] == []
    assert [item.reason for item in found].count("annotation unreadable") == 4
    with pytest.raises(ValueError, match="no camera"):
        list(read_frames(chunk, records(lambda frame: "no camera")))
