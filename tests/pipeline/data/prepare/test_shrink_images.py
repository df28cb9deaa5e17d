"""Smaller images: pixels, camera, joints and boxes change together; images that are small enough keep their bytes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from das.camera import back_project, project
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import convert
from pipeline.data.prepare.shrink_images import shrink
from pipeline.data.record import decode_image
from pipeline.data.shards import list_shards, read_records
from pipeline.data.validate_record import validate
from tests.pipeline.data.original_layouts import jpeg, write_panoptic
from tests.pipeline.data.records import record


def large(height=180, width=320):
    """A record whose 2D joints are the projections of its 3D joints, lens distortion included."""
    r = record(people=3)
    image = jpeg(height, width, seed=1)
    K = np.array([[300.0, 0, 165], [0, 310, 85], [0, 0, 1]])
    lens = np.array([-0.1, 0.02, 0.001, -0.001, 0.0])
    uv = project(r.joints_cam.astype(float), K, lens).astype(np.float32)
    box = np.concatenate([uv.min(axis=1), uv.max(axis=1)], axis=1)
    return replace(r, image=image, height=height, width=width, K=K, distortion=lens, joints_uv=uv, bbox=box)


def test_an_image_that_is_not_larger_keeps_its_bytes():
    r = large()
    assert shrink(r, 320) is r and shrink(r, 1000) is r


@pytest.mark.parametrize(
    ("height", "width", "size"), [(180, 320, (90, 160)), (320, 180, (160, 90)), (123, 301, (65, 160))]
)
def test_pixels_camera_joints_and_boxes_change_together(height, width, size):
    before = large(height, width)
    after = shrink(before, 160)
    validate(after)
    assert (after.height, after.width) == size and max(size) == 160
    assert decode_image(after).shape[:2] == size and after.image_sha256 != before.image_sha256
    # The 3D joints have not changed, and the smaller image's camera projects them onto its 2D joints.
    projected = project(before.joints_cam.astype(float), after.K, after.distortion)
    assert np.allclose(after.joints_uv, projected, atol=1e-3)
    depth = before.joints_cam[..., 2].astype(float)
    assert np.allclose(
        back_project(after.joints_uv.astype(float), depth, after.K, after.distortion), before.joints_cam, atol=2
    )
    low, high = after.joints_uv.min(axis=1), after.joints_uv.max(axis=1)
    assert np.allclose(after.bbox, np.concatenate([low, high], axis=1), atol=1e-3)
    for name in ("joints_cam", "R", "t_mm", "distortion", "state", "key"):
        assert getattr(after, name) is getattr(before, name)


def test_pixels_are_resized_with_the_same_matrix_as_joints():
    r = large()
    image = np.zeros((180, 320, 3), np.uint8)
    u, v = 200, 60
    image[v - 12 : v + 13, u - 12 : u + 13] = 255  # a square round one pixel
    r = replace(r, image=cv2.imencode(".png", image)[1].tobytes())
    small = decode_image(shrink(r, 160)).astype(float).mean(axis=2)
    rows, columns = np.indices(small.shape)
    centre = (small * columns).sum() / small.sum(), (small * rows).sum() / small.sum()
    assert np.allclose(centre, (u / 2, v / 2), atol=0.1)


def test_photos_without_camera_or_people_are_resized_too():
    r = replace(large(), K=None, distortion=None, R=None, t_mm=None, joints_cam=None, joints_cam_univ=None)
    assert shrink(r, 64).K is None
    empty = record(people=0)
    assert len(shrink(empty, 32)) == 0


def test_the_manifest_says_that_images_are_encoded_again(tmp_path, inline):
    raw = write_panoptic(tmp_path / "raw", "160224_mafia1", frames=range(4))

    def converted(name, **changes):
        return convert(ConvertConfig("panoptic", str(raw), str(tmp_path / name), **changes))

    unchanged, again, too_small = (
        converted("a"),
        converted("b", reencode_long_side=160),
        converted("c", reencode_long_side=999),
    )
    assert [m.reencode_long_side for m in (unchanged, again, too_small)] == [None, 160, 999]
    assert len({m.fingerprint for m in (unchanged, again, too_small)}) == 3
    assert "encoded again" in again.summary() and "encoded again" not in unchanged.summary()
    records = {
        name: [r for shard in list_shards(tmp_path / name, "train") for r in read_records(shard)] for name in "abc"
    }
    assert [r.image for r in records["a"]] == [r.image for r in records["c"]]
    assert [r.key for r in records["a"]] == [r.key for r in records["b"]]
    for before, after in zip(records["a"], records["b"], strict=True):
        assert (after.height, after.width) == (90, 160) and np.allclose(after.K[:2], before.K[:2] / 2)
        assert np.allclose(after.joints_uv, before.joints_uv / 2) and np.allclose(after.bbox, before.bbox / 2)


def test_an_image_that_cannot_be_decoded_is_refused():
    r = large()
    with pytest.raises(ValueError, match="image"):
        shrink(replace(r, image=r.image[:300]), 160)
