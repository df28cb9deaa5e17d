"""MuCo-3DHP and MuPoTS-3D files, read back by their sources."""

import json

import cv2
import numpy as np

from das.skeleton import MUCO21, MUPOTS17
from pipeline.data.record import OCCLUDED, VISIBLE
from pipeline.data.sources import muco, mupots
from tests.pipeline.studio.small_renderings import TINY, read_all


def pixels(cam: np.ndarray, K: np.ndarray) -> np.ndarray:
    points = np.ascontiguousarray(cam.reshape(-1, 3), np.float64)
    return cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, None)[0].reshape(*cam.shape[:-1], 2)


def test_muco_is_read_without_drops_and_joints_project_to_their_pixels(root):
    records = read_all(muco, root / "muco", "train")
    assert len(records) == 16 and {r.sequence for r in records} == {"unaugmented_set", "augmented_set"}
    for r in records:
        assert len(r.joints_uv) and r.joints_cam.shape[1:] == (len(MUCO21), 3) and r.distortion is None
        assert np.abs(pixels(r.joints_cam, r.K) - r.joints_uv).max() < 0.02
        inside = ((r.joints_uv >= -0.5) & (r.joints_uv < (r.width - 0.5, r.height - 0.5))).all(-1)
        np.testing.assert_array_equal(r.state == VISIBLE, inside)
        assert 1500 < np.median(r.joints_cam[..., 2]) < 6000  # mm
        # Boxes contain the joints that are inside the picture.
        low, high = r.bbox[:, None, :2] - 1, r.bbox[:, None, 2:] + 1
        assert ((r.joints_uv >= low) & (r.joints_uv <= high)).all(-1)[inside].mean() > 0.99


def test_mucos_ids_are_list_positions_and_its_unaugmented_half_is_green(root):
    content = json.loads((root / "muco" / "MuCo-3DHP.json").read_text())
    assert [image["id"] for image in content["images"]] == list(range(16))
    assert "no recordings" in content["info"]["description"]
    assert not (root / "muco" / ".parts").exists()
    for image in content["images"]:
        # A corner of an unaugmented picture shows green cloth, of an augmented one the room.
        picture = cv2.imread(str(root / "muco" / image["file_name"])).astype(float)
        corner = picture[:12, -12:].mean((0, 1))
        green = corner[1] > 1.5 * max(corner[0], corner[2])
        assert green == image["file_name"].startswith("unaugmented_set/")


def test_mupots_is_read_without_drops_with_occlusion_and_universal_skeleton(root):
    records = read_all(mupots, root / "mupots", "test")
    assert [r.sequence for r in records] == ["TS1"] * 4 + ["TS2"] * 4
    takes: dict[tuple[str, int], list[np.ndarray]] = {}
    for r in records:
        assert r.joints_cam.shape[1:] == (len(MUPOTS17), 3) and r.valid.all()
        assert np.abs(pixels(r.joints_cam, r.K) - r.joints_uv).max() < 0.02
        pelvis = r.joints_cam[:, [MUPOTS17.root_index]]
        ours, universal = r.joints_cam - pelvis, r.joints_cam_univ - pelvis
        scale = np.linalg.norm(universal, axis=(1, 2)) / np.linalg.norm(ours, axis=(1, 2))
        np.testing.assert_allclose(universal, scale[:, None, None] * ours, atol=0.02)
        assert 0.75 < scale.min() and scale.max() < 1.3
        takes.setdefault((r.sequence, r.frame // TINY.take_frames), []).append(scale)
    # A person's size does not change; both frames of a take show the same people.
    for first, second in takes.values():
        np.testing.assert_allclose(first, second, atol=1e-4)
    states = np.concatenate([r.state.ravel() for r in records])
    assert set(states.tolist()) == {OCCLUDED, VISIBLE} and 0.05 < (states == OCCLUDED).mean() < 0.6
