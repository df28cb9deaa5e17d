"""The plan of a conversion: training rows are shuffled, others packed in order, and no key appears twice."""

import tracemalloc

import numpy as np
import pytest

from pipeline.data.prepare.convert import convert
from pipeline.data.prepare.plan import RUN, list_chunks, pack
from pipeline.data.sources import panoptic
from pipeline.data.sources.base import Chunk
from pipeline.data.splits import SPLITS, Part, SplitManifest
from tests.pipeline.data.original_layouts import CAMERAS
from tests.pipeline.data.prepare.conversions import config


def test_packing_keeps_the_order_of_val_and_test_and_never_mixes_splits(raw, tmp_path):
    chunks = list_chunks(panoptic, "panoptic", str(raw), panoptic.SPLITS, SPLITS)
    sizes = [chunk.image_bytes for chunk in chunks]
    for megabytes in (1e-6, sizes[0] / 1e6, 2.5 * max(sizes) / 1e6, 1e3):
        tasks = pack(chunks, str(tmp_path), megabytes, 64)
        assert tasks.frames == sum(task.frames for task in tasks) == sum(len(chunk.frames) for chunk in chunks)
        packed = [chunk for task in tasks for chunk in task.chunks]
        for split in ("val", "test"):
            assert [c for c in packed if c.split == split] == [c for c in chunks if c.split == split]
        assert sorted(keys(packed)) == sorted(keys(chunks)), "every frame once"
        assert all(chunk.split == task.split for task in tasks for chunk in task.chunks)
        assert len({task.report for task in tasks}) == len({task.id for task in tasks}) == len(tasks)
        for task in tasks:
            assert len(task.chunks) == 1 or sum(chunk.image_bytes for chunk in task.chunks) <= megabytes * 1e6


def keys(chunks) -> list[tuple]:
    return [(chunk.sequence, chunk.camera, frame) for chunk in chunks for frame in chunk.frames]


def recorded(sequences: int, frames: int, split="train", **changes) -> list[Chunk]:
    """Chunks of sequences that two cameras see, 100 kB an image."""
    named = [(f"seq{s}", camera) for s in range(sequences) for camera in ("0", "1")]
    return [
        Chunk("s", "/", split, *place, "", tuple(range(at, at + 256)), 256 * 100_000, **changes)
        for place in named
        for at in range(0, frames, 256)
    ]


def test_shards_of_training_rows_mix_sequences_and_cameras_in_runs_of_neighbouring_frames(tmp_path):
    chunks = recorded(sequences=10, frames=2048)
    tasks = pack(chunks, str(tmp_path), 64.0, 64)
    assert sorted(keys(c for task in tasks for c in task.chunks)) == sorted(keys(chunks))
    for task in tasks:
        assert all(len(run.frames) == RUN == run.frames[-1] - run.frames[0] + 1 for run in task.chunks)
        assert sum(run.image_bytes for run in task.chunks) == task.frames * 100_000 <= 64e6
    places = [len({(run.sequence, run.camera) for run in task.chunks}) for task in tasks[:-1]]
    assert np.mean(places) > 18, "80 runs of a shard should come from nearly all of the 20 places"
    assert pack(chunks, str(tmp_path), 64.0, 64)[3].id == tasks[3].id == [*tasks][3].id


def test_more_sequences_leave_the_runs_of_the_others_in_their_order(tmp_path):
    few, more = (pack(recorded(n, 512), str(tmp_path), 1e3, 64) for n in (3, 5))
    in_few = [run for task in few for run in task.chunks]
    assert [run for task in more for run in task.chunks if run.sequence in ("seq0", "seq1", "seq2")] == in_few


def test_chunks_that_cannot_be_read_in_parts_stay_whole_and_in_order(tmp_path):
    videos, images = recorded(2, 512, in_order=True), recorded(3, 256)
    tasks = pack([*videos, *images], str(tmp_path), 64.0, 64)
    assert [c for task in tasks for c in task.chunks if c.in_order] == videos
    assert all(len({c.in_order for c in task.chunks}) == 1 for task in tasks), "in shards of their own"
    assert [task.number for task in tasks] == [*range(len(tasks))]


def test_planning_a_million_frames_holds_little_more_than_their_listing(tmp_path):
    frames = tuple(range(256))
    listed = [Chunk("s", "/", "train", f"seq{i}", "0", "", frames, 256 * 300_000) for i in range(1_000_000 // 256)]
    tracemalloc.start()
    try:
        tasks = pack(listed, str(tmp_path), 192.0, 64)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(tasks) > 1500 and held < 4e6 and peak < 15e6, "their numbers alone take 8 MB"


def test_a_key_that_appears_twice_is_refused(local_ray, raw, tmp_path, monkeypatch):
    twice = (Part("160224_mafia1", "train", "mafia"), Part("160224_mafia1", "val", "mafia"))
    monkeypatch.setattr(panoptic, "SPLITS", SplitManifest("twice", twice, cameras=CAMERAS))
    with pytest.raises(ValueError, match="key panoptic/160224_mafia1/00_16/00000000 appears twice, in panoptic/train"):
        convert(config(raw, tmp_path))
    assert not list(tmp_path.iterdir()), "must be refused before anything is written"
