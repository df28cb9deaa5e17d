"""Records: the hash of their content, their decoded image, and the sample for training and evaluation."""

import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pytest

from das.skeleton import COCO17, MUPOTS17, skeleton_named
from das.transforms import inside
from pipeline.data.record import decode_image
from pipeline.data.samples import to_sample
from pipeline.data.validate_record import validate
from tests.pipeline.data.records import HEIGHT, WIDTH, encoded, record


def test_the_content_hash_depends_on_every_field_and_is_reproducible():
    a = record()
    assert a.content_hash() == record().content_hash()
    changes = {
        "split": "val", "frame": 8, "K": a.K * 1.000001, "joints_cam": None, "state": a.state ^ 1,
        "image_sha256": "0" * 64, "valid": ~a.valid, "person_id": a.person_id + 1,
    }  # fmt: skip
    hashes = {replace(a, **{name: value}).content_hash() for name, value in changes.items()}
    assert len(hashes | {a.content_hash()}) == len(changes) + 1


def test_to_sample_decodes_rgb_as_stored_and_ignores_the_orientation_tag():
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 2] = 250  # red, in OpenCV's order
    data = cv2.imencode(".jpg", pixels)[1].tobytes()
    # EXIF with one tag: orientation 6, "turn by 90 degrees".
    tag = b"\x00\x01" + b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00" + b"\x00" * 4
    exif = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08" + tag
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (WIDTH, HEIGHT)
    a = replace(record(), image=turned, image_sha256=hashlib.sha256(turned).hexdigest())
    validate(a)
    image = to_sample(a)[0].image
    assert image.shape == (HEIGHT, WIDTH, 3) and image[..., 0].min() > 240 and image[..., 1:].max() < 10


def test_to_sample_leaves_out_unusable_people_and_counts_the_reasons():
    state = np.full((5, 17), 2, np.uint8)
    state[3, MUPOTS17.index("pelvis")] = 0
    a = replace(
        record(people=5),
        state=state,
        ignore=np.array([True, False, False, False, False]),
        valid=np.array([True, False, True, True, True]),
    )
    sample, left_out = to_sample(a)
    assert left_out == {"ignored": 1, "invalid": 1, "root unlabelled": 1}
    assert np.array_equal(sample.joints_uv, a.joints_uv[[2, 4]])
    assert np.array_equal(sample.joints_depth, a.joints_cam[[2, 4], :, 2])
    assert np.array_equal(sample.root_uv, a.joints_uv[[2, 4], 14])
    assert np.array_equal(sample.root_depth, a.joints_cam[[2, 4], 14, 2])
    assert sample.has_depth.all() and sample.key == a.key and np.array_equal(sample.K, a.K)
    seen = (state > 0) & inside(a.joints_uv, HEIGHT, WIDTH)
    boxes = [np.concatenate([a.joints_uv[k][seen[k]].min(0), a.joints_uv[k][seen[k]].max(0)]) for k in (0, 1, 3)]
    assert np.array_equal(sample.masked, boxes), "people who are left out are no background either"


def test_a_joint_is_visible_when_it_is_labelled_and_inside_the_image():
    uv = np.full((1, 17, 2), 20, np.float32)
    uv[0, :6] = [(-0.6, 20), (-0.4, 20), (WIDTH - 0.6, 20), (WIDTH - 0.4, 20), (20, HEIGHT - 0.4), (20, -3)]
    state = np.full((1, 17), 1, np.uint8)  # occluded ones are labelled
    state[0, 8] = 0
    a = replace(record(people=1), joints_uv=uv, state=state, ignore=np.zeros(1, bool), valid=np.ones(1, bool))
    visible = to_sample(a)[0].visible[0]
    assert np.flatnonzero(~visible).tolist() == [0, 3, 4, 5, 8]


def test_a_photo_without_camera_gets_an_assumed_camera_and_no_depth():
    state = np.full((2, 17), 2, np.uint8)
    state[1, COCO17.index("r_hip")] = 0
    a = replace(
        record(COCO17, in_3d=False, extras=False),
        state=state,
        ignore=np.zeros(2, bool),
        valid=np.ones(2, bool),
    )
    sample, left_out = to_sample(a)
    assert left_out == {"root unlabelled": 1}
    assert not sample.has_depth.any() and (sample.root_depth == 0).all()
    hips = [COCO17.index("l_hip"), COCO17.index("r_hip")]
    assert np.allclose(sample.root_uv[0], a.joints_uv[0, hips].mean(axis=0))
    assert sample.K[0, 0] == pytest.approx(WIDTH / 2 / np.tan(np.radians(30)))


def test_the_root_between_two_joints_has_their_mean_depth():
    a = record(COCO17, people=3, extras=False)
    state, none = np.full((3, 17), 2, np.uint8), np.zeros(3, bool)
    sample, _ = to_sample(replace(a, state=state, ignore=none, valid=~none))
    left, right = (a.joints_cam[:, COCO17.index(hip), 2].astype(float) for hip in ("l_hip", "r_hip"))
    assert np.allclose(sample.root_depth, (left + right) / 2)


def test_an_image_without_people_is_a_sample():
    sample, left_out = to_sample(record(skeleton_named("muco21"), people=0))
    assert sample.visible.shape == (0, 21) and not left_out


def test_a_damaged_image_is_refused_naming_its_key():
    whole = record()
    for image in (whole.image[:200], b"", whole.image[:60] + b"\xff\xd9", encoded(40, 64)):
        with pytest.raises(ValueError, match=f"^{whole.key}: image"):
            decode_image(replace(whole, image=image))


def test_an_image_whose_header_has_another_size_than_the_row_is_refused_before_it_is_decoded(monkeypatch):
    large = replace(record(), image=encoded(2 * HEIGHT, WIDTH))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=f"image decodes to {WIDTH}x{2 * HEIGHT} pixels, wanted {WIDTH}x{HEIGHT}"):
        decode_image(large)
