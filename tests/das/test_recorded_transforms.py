"""Recorded values of the release: targets, resizing, flips, windows and augmentations, in its own pose vectors."""

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from das.camera import mean_focal
from das.recipe import InputSize, release_mupots_recipe, release_panoptic_recipe
from das.sample import Sample
from das.skeleton import COCO17, MUCO21, PANOPTIC15
from das.transforms import (
    Draw,
    DroppedSample,
    augment,
    convert_joints,
    flip_matrix,
    move,
    resize_matrix,
    scale_matrix,
    train_transform,
    warp,
    window_matrix,
)


def release_poses(s, unit=1.0):
    """The release's training vectors of a sample whose depths are ``unit`` times the release's."""
    relative = (s.joints_depth - s.root_depth[:, None])[..., None] / unit
    depth = s.root_depth[:, None] / unit / mean_focal(s.K)
    joints = np.concatenate([s.joints_uv, relative], axis=-1).reshape(len(depth), -1)
    return np.hstack([s.root_uv, depth, joints, s.visible])


def recorded_panoptic(annotations, info, image=None):
    """Panoptic annotations of the release (cm) as a sample (mm); people whose root is invisible are ignored."""
    kept = [a for a in annotations if not a["iscrowd"] and a["joints2d_vis"][PANOPTIC15.root_index][0]]
    joints = np.array([a["joints3d_img"] for a in kept])
    if image is None:
        image = np.zeros((info["height"], info["width"], 3), np.uint8)
    return Sample(
        "recorded", PANOPTIC15, image, np.array(info["cam"]["K"]), np.zeros(5), joints[..., :2], joints[..., 2] * 10,
        np.array([a["joints2d_vis"] for a in kept])[..., 0] > 0, joints[:, 2, :2], joints[:, 2, 2] * 10,
        np.ones(len(kept), bool),
    )  # fmt: skip


def recorded_coco(annotations, info):
    """COCO annotations as a sample: people without both hips labelled, and crowds, are ignored."""
    joints = np.array([a["keypoints"] for a in annotations], float).reshape(-1, 17, 3)
    hips = list(COCO17.root_indices)
    kept = (joints[:, hips, 2] > 0).all(axis=1) & [not a["iscrowd"] for a in annotations]
    joints = joints[kept]
    no_people = np.zeros(len(joints))
    return Sample(
        "recorded", COCO17, np.zeros((info["height"], info["width"], 3), np.uint8), np.eye(3), np.zeros(5),
        joints[..., :2], np.zeros(joints.shape[:2]), joints[..., 2] > 0, joints[:, hips, :2].mean(axis=1), no_people,
        no_people > 0,
    )  # fmt: skip


@pytest.fixture
def recorded(golden):
    vectors = np.load(golden / "model" / "I_data_and_eval.npz")
    return vectors, json.loads((golden / "model" / "I_annotations.json").read_text())


@pytest.fixture
def conversion_record(golden):
    return json.loads((golden / "metrics" / "dataset_conversion.json").read_text())


@pytest.mark.golden
def test_recorded_panoptic_targets(recorded):
    vectors, source = recorded
    s = recorded_panoptic(source["panoptic_annotations"], source["panoptic_image_info"])
    np.testing.assert_allclose(release_poses(s, 10), vectors["panoptic_parse/gt_poses_3d"], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(s.root_uv, vectors["panoptic_parse/centers2d"], atol=1e-3)
    np.testing.assert_allclose(s.root_depth / 10 / mean_focal(s.K), vectors["panoptic_parse/depths"], atol=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("target", [PANOPTIC15, MUCO21], ids=["panoptic", "muco"])
def test_recorded_coco_targets(recorded, target):
    vectors, source = recorded
    recipe = release_panoptic_recipe()
    s = convert_joints(recorded_coco(source["coco_annotations"], source["coco_image_info"]), target, recipe)
    expected = vectors[f"coco_{target.name.rstrip('0123456789')}_parse/gt_poses_3d"]
    np.testing.assert_allclose(release_poses(s), expected, rtol=1e-6, atol=1e-3)


@pytest.mark.golden
def test_recorded_muco_targets(recorded):
    vectors, source = recorded
    info, people = source["muco_image_info"], source["muco_annotations"]
    (fx, fy), (cx, cy) = info["f"], info["c"]
    uv = np.array([a["keypoints_img"] for a in people])
    depth = np.array([a["keypoints_cam"] for a in people])[..., 2]
    root = MUCO21.root_index
    s = Sample(
        "recorded", MUCO21, np.zeros((info["height"], info["width"], 3), np.uint8),
        np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.zeros(5), uv, depth,
        np.array([a["keypoints_vis"] for a in people]) > 0, uv[:, root], depth[:, root], np.ones(len(people), bool),
    )  # fmt: skip
    np.testing.assert_allclose(release_poses(s), vectors["muco_parse/gt_poses_3d"], rtol=1e-6, atol=1e-3)
    again = convert_joints(s, MUCO21, release_mupots_recipe())
    np.testing.assert_allclose(release_poses(again), release_poses(s))


@pytest.mark.golden
def test_recorded_resize_and_flip(recorded):
    vectors, source = recorded
    s = recorded_panoptic(source["panoptic_annotations"], source["panoptic_image_info"])
    height, width = vectors["resize/img_hw"].tolist()
    A, size = resize_matrix(*s.image.shape[:2], InputSize(max(height, width) + 1, min(height, width)))
    assert size == (height, width)
    np.testing.assert_allclose([A[0, 0], A[1, 1]] * 2, vectors["resize/scale_factor"], rtol=1e-6)
    resized = move(s, A, height, width)
    np.testing.assert_allclose(release_poses(resized, 10), vectors["resize/gt_poses_3d"], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(resized.root_depth / 10 / mean_focal(resized.K), vectors["resize/depths"], atol=1e-6)
    flipped = move(resized, flip_matrix(width), height, width, mirrored=True)
    np.testing.assert_allclose(release_poses(flipped, 10), vectors["flip/gt_poses_3d"], rtol=1e-6, atol=1e-3)


@pytest.mark.golden
def test_recorded_windows_after_resize_and_flip(recorded):
    vectors, source = recorded
    s = recorded_panoptic(source["panoptic_annotations"], source["panoptic_image_info"])
    size = tuple(vectors["resize/img_hw"].tolist())
    seen = 0
    for i in count():
        if f"affine{i}/scale" not in vectors:
            break
        drawn = Draw(
            size=size,
            flip=True,
            scale=float(vectors[f"affine{i}/scale"]),
            rotation=float(np.radians(vectors[f"affine{i}/rot_deg"])),
            shift=tuple(vectors[f"affine{i}/trans"]),
        )
        result = augment(s, drawn, release_panoptic_recipe())
        if vectors[f"affine{i}/result_is_none"]:
            assert result == DroppedSample("recorded", "too few people after augmentation")
            continue
        expected = vectors[f"affine{i}/gt_poses_3d"]
        np.testing.assert_allclose(release_poses(result, 10), expected, rtol=1e-6, atol=1e-3, err_msg=f"{i}")
        np.testing.assert_allclose(result.root_uv, vectors[f"affine{i}/centers2d"], atol=1e-3)
        np.testing.assert_allclose(expected[:, 2], vectors[f"affine{i}/depths"])
        seen += 1
    assert seen


@pytest.mark.golden
def test_recorded_windows_of_the_test_pattern(recorded):
    vectors, _ = recorded
    height, width = vectors["resize/img_hw"].tolist()
    y, x = np.mgrid[:height, :width]
    pattern = np.stack([x, y, x + y], axis=-1) % 256  # the release works on BGR
    rgb = np.ascontiguousarray(pattern[..., ::-1]).astype(np.uint8)
    for i in count():
        if f"affine{i}/scale" not in vectors:
            break
        if vectors[f"affine{i}/result_is_none"]:
            continue
        scale, angle = float(vectors[f"affine{i}/scale"]), float(np.radians(vectors[f"affine{i}/rot_deg"]))
        A = window_matrix(height, width, scale, angle, vectors[f"affine{i}/trans"])
        np.testing.assert_allclose(A, vectors[f"affine{i}/transform_mat"], atol=1e-3)
        bgr = warp(rgb, A, height, width)[::16, ::16, ::-1]
        np.testing.assert_allclose(bgr.astype(float), vectors[f"affine{i}/img_every16"], atol=1.0, err_msg=f"{i}")


@pytest.mark.golden
@pytest.mark.parametrize("target", [PANOPTIC15, MUCO21], ids=["panoptic", "muco"])
def test_recorded_coco_mapping_and_images_with_too_few_joints(conversion_record, target):
    record = conversion_record["coco_mapping"]
    recipe = release_panoptic_recipe()
    outputs = record["output"][target.name.rstrip("0123456789")]
    dropped = DroppedSample("recorded", "too few visible joints")
    for info, expected in zip(record["images"], outputs, strict=True):
        annotations = [a for a in record["annotations"] if a["image_id"] == info["id"]]
        s = convert_joints(recorded_coco(annotations, info), target, recipe)
        result = train_transform(s, recipe, np.random.default_rng(0))
        assert (result == dropped) == (expected is None)
        if expected is None:
            continue
        centers = np.column_stack([s.root_uv, s.root_depth])
        np.testing.assert_allclose(centers, expected["center_u_v_depth"], atol=1e-3)
        joints = np.concatenate([s.joints_uv, s.joints_depth[..., None]], axis=-1)
        np.testing.assert_allclose(joints, expected["joints_u_v_dz"], atol=1e-3)
        assert s.visible.tolist() == [[bool(v) for v in vis] for vis in expected["vis"]]
        assert sum(a["iscrowd"] for a in annotations) == expected["n_ignored_boxes"]


def recorded_augmentation_input(case, focal=1000.0):
    """The recorded input as a sample, with depths in units of which ``focal`` make one normalised one."""
    center, joints = (np.array(case["input"][key]) for key in ("center_u_v_depth", "joints_u_v_dz"))
    # Without abs_dz the release takes the joints' relative depths for normalised ones too.
    metric = case["params"].get("abs_dz", True)
    width, height = case["image_wh"]
    depth = center[:, 2] * focal
    return Sample(
        "recorded", PANOPTIC15, np.zeros((height, width, 3), np.uint8), np.diag([focal, focal, 1]), np.zeros(5),
        joints[..., :2], depth[:, None] + joints[..., 2] * (1 if metric else focal), np.array(case["input"]["vis"]) > 0,
        center[:, :2], depth, np.ones(len(depth), bool),
    ), metric  # fmt: skip


@pytest.mark.golden
def test_recorded_augmentations(conversion_record):
    cases = conversion_record["augmentation"]["cases"]
    assert {case["transform"] for case in cases} >= {"resize", "flip", "grst"}
    for case in cases:
        s, metric = recorded_augmentation_input(case)
        (height, width), params = s.image.shape[:2], case["params"]
        if case["transform"] == "resize":
            sx, sy = params["scale"]
            result = move(s, scale_matrix(sx, sy), round(sy * height), round(sx * width))
        elif case["transform"] == "flip":
            result = move(s, flip_matrix(width), height, width, mirrored=True)
        else:
            whose = "first_person" if metric else "everyone"
            recipe = replace(release_panoptic_recipe(), depth_scaled_for=whose)
            drawn = Draw(
                (height, width),
                scale=params["s"],
                rotation=params["rot"],
                shift=tuple(case["sampled_translation_fraction"]),
            )
            np.testing.assert_allclose(drawn.matrix(height, width), case["affine_2x3"], atol=1e-4)
            result = augment(s, drawn, recipe)
        if case["output"] is None:
            assert isinstance(result, DroppedSample)
            continue
        focal = mean_focal(result.K)
        relative = (result.joints_depth - result.root_depth[:, None]) / (1 if metric else focal)
        center = np.column_stack([result.root_uv, result.root_depth / focal])
        joints = np.concatenate([result.joints_uv, relative[..., None]], axis=-1)
        np.testing.assert_allclose(center, case["output"]["center_u_v_depth"], atol=2e-4)
        np.testing.assert_allclose(joints, case["output"]["joints_u_v_dz"], atol=2e-4)
        assert result.visible.astype(int).tolist() == case["output"]["vis"]
