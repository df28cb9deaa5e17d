import json

import cv2
import numpy as np
import pytest

from das.camera import back_project, project, transform
from das.release.geometry import convert_person, convert_train_image, converter_box, pixel_to_world, world_to_pixel
from das.skeleton import COCO19, MPI15

K = np.array([[1400.0, 0, 960], [0, 1395, 540], [0, 0, 1]])
DISTORTION = np.array([-0.28, 0.16, 4e-4, -2e-4, 0.07])


def world(rng, n=40):
    """Points (n, 3) in cm about the origin, and a camera R, t (3, 1) that sees them from 3 m away."""
    R = cv2.Rodrigues(rng.normal(size=3))[0]
    return rng.uniform(-80, 80, (n, 3)), R, np.array([[20.0], [-10.0], [300.0]])


def body(rng, joints=19, confidence=0.7):
    points = np.array([0, 0, 300]) + rng.uniform(-1, 1, (joints, 3)) * [40, 80, 40]
    return np.column_stack([points, np.full(joints, confidence)])


LOOKING_ALONG_Z = {"K": K, "R": np.eye(3), "t": np.zeros(3), "distortion": np.zeros(5)}


@pytest.mark.golden
def test_recorded_cameras(golden):
    recorded = np.load(golden / "model" / "H_camera.npz")
    cameras = sorted({key.split("/")[0] for key in recorded.files})
    assert cameras
    for name in cameras:
        K, R, t, X, pixel = (recorded[f"{name}/{key}"] for key in ("K", "R", "t", "X", "pixel"))
        uvz = world_to_pixel(X.T, K, R, t)
        np.testing.assert_allclose(uvz.T, pixel, atol=1e-9, rtol=0, err_msg=name)
        back = pixel_to_world(pixel.T, K, R, t)
        for key, value in zip(("norm_plane", "camera", "world"), back, strict=True):
            np.testing.assert_allclose(value.T, recorded[f"{name}/{key}"], atol=1e-9, rtol=0, err_msg=name + key)


@pytest.mark.golden
def test_the_clean_camera_equals_the_recorded_ones_to_a_ten_thousandth_pixel(golden):
    recorded = np.load(golden / "model" / "H_camera.npz")
    for name in sorted({key.split("/")[0] for key in recorded.files}):
        K, R, t, X, pixel = (recorded[f"{name}/{key}"] for key in ("K", "R", "t", "X", "pixel"))
        points = transform(X.T, R, t[:, 0])
        # The recorded points are as close as 2 m; the release's 1e-5 cm moves them by u x 1e-5 / depth.
        np.testing.assert_allclose(project(points, K), pixel[:2].T, atol=1e-4, rtol=0, err_msg=name)
        again = back_project(pixel[:2].T, pixel[2], K)
        np.testing.assert_allclose(again, recorded[f"{name}/camera"].T, atol=1e-9, rtol=0, err_msg=name)


@pytest.mark.golden
def test_recorded_conversion_of_panoptic_training_frames(golden):
    recorded = json.loads((golden / "metrics" / "dataset_conversion.json").read_text())["panoptic2coco"]
    images, annotations = [], []
    for sequence, content in recorded["input"].items():
        skeleton = {"coco19": COCO19, "mpi15": MPI15}[content["annotation_kind"]]
        field = {COCO19: "joints19", MPI15: "joints15"}[skeleton]
        for camera in content["cameras"]:
            calibration = [np.array(camera[key]) for key in ("K", "R", "t", "distCoef")]
            for frame, people in list(enumerate(content["frames"]))[::2]:
                bodies = [np.array(b[field]).reshape(-1, 4) for b in people]
                converted = convert_train_image(bodies, skeleton, *calibration)
                if converted is not None:
                    images.append(f"{sequence}/hdImgs/{camera['name']}/{camera['name']}_{frame:08d}.jpg")
                    annotations += [(len(images), person) for person in converted]
    output = recorded["output"]
    assert images == [image["file_name"] for image in output["images"]]
    assert [i for i, _ in annotations] == [a["image_id"] for a in output["annotations"]]
    assert images and annotations
    for (_, person), expected in zip(annotations, output["annotations"], strict=True):
        close = {
            "joints3d_img": person.joints_img,
            "joints2d": person.joints_img[:, :2],
            "center2d": person.joints_img[2],
            "joints3d": person.joints_world_mm,
            "bbox": person.bbox,
            "area": person.bbox[2] * person.bbox[3],
        }
        for key, value in close.items():
            np.testing.assert_allclose(value, expected[key], atol=1e-4, rtol=0, err_msg=key)
        assert person.visible.tolist() == [bool(v[0]) for v in expected["joints2d_vis"]]
        assert person.annotated.tolist() == [bool(v[0]) for v in expected["joints3d_vis"]]
        assert person.visible.sum() == expected["num_keypoints"]


def test_with_distortion_the_release_is_opencv_up_to_its_slip():
    points, R, t = world(np.random.default_rng(0))
    expected = cv2.projectPoints(points, R, t, K, DISTORTION)[0][:, 0]
    uvz = world_to_pixel(points, K, R, t, DISTORTION)
    difference = np.abs(uvz[:, :2] - expected)
    assert difference[:, 0].max() < 1e-3  # x has the 1e-5 only
    assert 1e-3 < difference[:, 1].max() < 0.1
    np.testing.assert_allclose(uvz[:, 2], transform(points, R, t[:, 0])[:, 2])
    # Without tangential distortion there is nothing to slip on.
    radial = DISTORTION * [1, 1, 0, 0, 1]
    expected = cv2.projectPoints(points, R, t, K, radial)[0][:, 0]
    np.testing.assert_allclose(world_to_pixel(points, K, R, t, radial)[:, :2], expected, atol=1e-3)


def test_the_way_back_misses_by_the_epsilon_and_by_the_distortion():
    points, R, t = world(np.random.default_rng(1))
    _, camera, again = pixel_to_world(world_to_pixel(points, K, R, t), K, R, t)
    miss = np.abs(again - points).max()
    assert 1e-7 < miss < 1e-4
    np.testing.assert_allclose(camera @ R - t[:, 0] @ R, again, atol=1e-9)
    _, _, distorted = pixel_to_world(world_to_pixel(points, K, R, t, DISTORTION), K, R, t)
    assert np.abs(distorted - points).max() > 0.1  # cm: lens distortion stays in this ground truth


def test_the_nose_is_never_annotated_but_the_head_top_is():
    rng = np.random.default_rng(2)
    nose = convert_person(body(rng), COCO19, **LOOKING_ALONG_Z)
    head_top = convert_person(body(rng, 15), MPI15, **LOOKING_ALONG_Z)
    assert nose is not None and head_top is not None
    assert not nose.annotated[1] and nose.annotated.sum() == 14
    assert head_top.annotated.all()


def test_joints_outside_the_image_are_annotated_and_widen_the_box_but_are_not_visible():
    joints = body(np.random.default_rng(3), 15)
    joints[5, :2] = [-250, 0]  # left of the image
    person = convert_person(joints, MPI15, **LOOKING_ALONG_Z)
    assert person is not None
    assert person.annotated[5] and not person.visible[5] and person.visible.sum() == 14
    assert person.bbox[0] == 0


def test_the_world_is_turned_so_that_up_is_positive_z():
    joints = body(np.random.default_rng(4), 15)
    person = convert_person(joints, MPI15, **LOOKING_ALONG_Z)
    assert person is not None
    np.testing.assert_allclose(person.joints_world_mm[:, 2], -10 * joints[:, 1])  # the file's y points down
    np.testing.assert_allclose(person.joints_world_mm[:, :2], 10 * joints[:, [0, 2]])


def test_one_body_given_up_drops_a_training_image():
    rng = np.random.default_rng(5)
    good, bad = body(rng), body(rng)
    bad[2:, 3] = 0.05  # neck and nose are left, and the nose does not count
    assert convert_person(bad, COCO19, **LOOKING_ALONG_Z) is None
    assert convert_train_image([good, bad], COCO19, **LOOKING_ALONG_Z) is None
    assert len(convert_train_image([good, good], COCO19, **LOOKING_ALONG_Z)) == 2
    assert convert_train_image([], COCO19, **LOOKING_ALONG_Z) == []


@pytest.mark.parametrize(
    ("uv", "kept"),
    [
        ([[100, 100], [200, 300], [150, 200]], True),
        ([[100, 100], [200, 300]], False),  # two joints
        ([[-900, 100], [-800, 300], [-850, 200]], False),  # left of the image: nothing after clipping
        ([[100, 100], [106, 106], [102, 103]], True),  # grown to 8.8 x 9.7 pixels
        ([[100, 100], [105, 105], [102, 103]], False),  # 7.5 x 8.25
    ],
)
def test_small_and_absent_boxes_are_given_up(uv, kept):
    box = converter_box(np.array(uv, float), COCO19)
    assert (box is not None) == kept
    if kept:
        assert box[2] * box[3] > 64 and (box[:2] >= 0).all() and box[0] + box[2] <= 1920


def test_a_skew_in_the_second_row_multiplies_the_finished_u():
    points, R, t = world(np.random.default_rng(6))
    skewed = K + np.array([[0, 0, 0], [0.01, 0, 0], [0, 0, 0]])
    straight, uvz = world_to_pixel(points, K, R, t), world_to_pixel(points, skewed, R, t)
    np.testing.assert_allclose(uvz[:, 0], straight[:, 0])
    np.testing.assert_allclose(uvz[:, 1], straight[:, 1] + 0.01 * straight[:, 0])
