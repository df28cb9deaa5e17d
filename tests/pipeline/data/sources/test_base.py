"""Chunks of a source: their size, their names, and that they can be pickled."""

import io
import pickle
from dataclasses import replace

from das.skeleton import COCO19
from pipeline.data.sources import panoptic
from pipeline.data.sources.base import FRAMES_PER_CHUNK
from tests.pipeline.data.original_layouts import write_panoptic


def test_chunks_can_be_pickled_and_have_unique_sorted_names(tmp_path):
    frames = range(2 * FRAMES_PER_CHUNK + 10)
    poses = write_panoptic(tmp_path, "160906_pizza1", frames=[0]) / "160906_pizza1" / "hdPose3d_stage1_coco19"
    for frame in frames:
        (poses / f"body3DScene_{frame:08d}.json").write_text('{"bodies": []}')
    found = panoptic.chunks(tmp_path, "test", replace(panoptic.SPLITS, test_frames=None))
    assert [len(s.frames) for s in found] == [FRAMES_PER_CHUNK, FRAMES_PER_CHUNK, 10] * 2
    assert len({s.name for s in found}) == 6 and sorted(s.name for s in found) == [s.name for s in found]
    assert pickle.load(io.BytesIO(pickle.dumps(found))) == found
    assert COCO19.name == "coco19"
