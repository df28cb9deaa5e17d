"""The plan of a conversion: chunks are packed in order, and no key appears twice."""

import pytest

from pipeline.data.prepare.convert import convert
from pipeline.data.prepare.plan import list_chunks, pack
from pipeline.data.sources import panoptic
from pipeline.data.splits import SPLITS, Part, SplitManifest
from tests.pipeline.data.original_layouts import CAMERAS
from tests.pipeline.data.prepare.conversions import config


def test_packing_keeps_the_order_of_chunks_and_never_mixes_splits(raw, tmp_path):
    chunks = list_chunks(panoptic, "panoptic", str(raw), panoptic.SPLITS, SPLITS)
    sizes = [chunk.image_bytes for chunk in chunks]
    for megabytes in (1e-6, sizes[0] / 1e6, 2.5 * max(sizes) / 1e6, 1e3):
        tasks = pack(chunks, str(tmp_path), megabytes, 64)
        assert [chunk for task in tasks for chunk in task.chunks] == chunks
        assert all(chunk.split == task.split for task in tasks for chunk in task.chunks)
        assert len({task.report for task in tasks}) == len({task.id for task in tasks}) == len(tasks)
        for task in tasks:
            assert len(task.chunks) == 1 or sum(chunk.image_bytes for chunk in task.chunks) <= megabytes * 1e6


def test_a_key_that_appears_twice_is_refused(local_ray, raw, tmp_path, monkeypatch):
    twice = (Part("160224_mafia1", "train", "mafia"), Part("160224_mafia1", "val", "mafia"))
    monkeypatch.setattr(panoptic, "SPLITS", SplitManifest("twice", twice, cameras=CAMERAS))
    with pytest.raises(ValueError, match="key panoptic/160224_mafia1/00_16/00000000 appears twice, in panoptic/train"):
        convert(config(raw, tmp_path))
    assert not list(tmp_path.iterdir()), "must be refused before anything is written"
