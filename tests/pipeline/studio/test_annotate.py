"""Confidences and missing joints of the Panoptic layout."""

import json
from dataclasses import replace

import numpy as np

from pipeline.studio.config import StudioChunk
from pipeline.studio.panoptic_layout import render_panoptic_chunk
from tests.pipeline.studio.small_renderings import SMALL


def test_some_joints_are_missing_and_confidences_vary_as_in_recordings(tmp_path):
    config = replace(SMALL, width=64, height=36, test_frames=60, take_frames=4, chunk_frames=60, supersampling=1)
    render_panoptic_chunk(config, StudioChunk("studio_test_pizza1", 0, 60), tmp_path)
    files = sorted((tmp_path / "studio_test_pizza1" / "hdPose3d_stage1_coco19").iterdir())
    bodies = [body for path in files for body in json.loads(path.read_text())["bodies"]]
    joints = np.array([body["joints19"] for body in bodies]).reshape(-1, 19, 4)
    c = joints[..., 3]
    missing = c == -1
    assert 0.001 < missing.mean() < 0.06
    assert (joints[missing][:, :3] == 0).all(-1).mean() > 0.6
    assert not missing[:, 2].any()  # mid_hip, the root
    assert c.max() <= 0.72 and c[~missing].min() > 0 and c[~missing].std() > 0.05
    heights = -joints[~missing][:, 1]
    assert 0 < np.quantile(heights, 0.02) < 15 and 120 < np.quantile(heights, 0.98) < 195
