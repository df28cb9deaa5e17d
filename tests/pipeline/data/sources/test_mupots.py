"""MuPoTS-3D in Moon's form: real frames, corrected spines, occlusion and validity. test_mupots_mat.py has the rest."""

from collections import Counter

import numpy as np

from das.camera import project
from das.skeleton import MUPOTS17
from pipeline.data.sources import mupots
from tests.pipeline.data.original_layouts import coco_like_person, read, write_mupots


def test_the_real_mupots_frames_load(das_data):
    items = read(mupots, das_data / "mupots_small", "test")
    assert Counter(item.sequence for item in items) == {"TS1": 21, "TS6": 55, "TS10": 26}
    assert sum(map(len, items)) == 204 and all(item.skeleton == "mupots17" for item in items)
    assert {item.state.min() for item in items} == {1, 2}, "some frames have occluded joints, none unlabelled ones"
    for item in items:
        # The universal skeleton is a scaling about the pelvis.
        from_pelvis, universal = (x - x[:, 14:15] for x in (item.joints_cam, item.joints_cam_univ))
        scale = np.linalg.norm(universal, axis=(1, 2)) / np.linalg.norm(from_pelvis, axis=(1, 2))
        assert np.allclose(universal, scale[:, None, None] * from_pelvis, atol=0.05)
        assert np.abs(project(item.joints_cam.astype(np.float64), item.K) - item.joints_uv).max() < 0.01
    assert mupots.chunks(das_data / "mupots_small", "train") == []


def test_a_spine_that_does_not_fit_the_camera_is_projected(tmp_path):
    right = coco_like_person(0, 0, 17)
    spine = MUPOTS17.index("spine")
    shifted = [[u + 9.0, v] if k == spine else [u, v] for k, (u, v) in enumerate(right["keypoints_img"])]
    slightly = [[u + 1.0, v] for u, v in coco_like_person(1, 0, 17)["keypoints_img"]]
    changes = {0: {"keypoints_img": shifted}, 1: {"keypoints_img": slightly}}
    (item,) = read(mupots, write_mupots(tmp_path, ["TS1/img_000000.jpg"], changes), "test")
    assert np.allclose(item.joints_uv[0], right["keypoints_img"], atol=1e-3)
    assert np.allclose(item.joints_uv[1], slightly, atol=1e-4), "small differences are the labels' own"


def test_mupots_states_and_validity(tmp_path):
    occlusion = [1] * 5 + [0] * 12
    hidden = [[1]] * 16 + [[0]]
    nowhere = {"keypoints_cam": np.zeros((17, 3)).tolist(), "is_valid": 0}
    changes = {0: {"occlusion": occlusion, "keypoints_vis": hidden}, 1: nowhere}
    root = write_mupots(tmp_path, ["TS2/img_000010.jpg"], changes, images_in="MultiPersonTestSet")
    (item,) = read(mupots, root, "test")
    assert item.key == "mupots/TS2/0/00000010" and item.joints_cam_univ is None
    assert item.state[0].tolist() == [1] * 5 + [2] * 11 + [0]
    assert (item.state[1] == 0).all() and item.valid.tolist() == [True, False]
    x, y, w, h = coco_like_person(0, 0, 17)["bbox"]
    assert np.allclose(item.bbox[0], [x, y, x + w, y + h], atol=1e-3)
