import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from das.camera import (
    back_project,
    distort,
    intrinsics_from_fov,
    inverse_transform,
    lens_coefficients,
    lens_radius,
    mean_focal,
    project,
    transform,
    transform_intrinsics,
    undistort,
)
from das.transforms import compose, flip_matrix, scale_matrix, window_matrix

RNG = np.random.default_rng(0)


def floats(low, high):
    return st.floats(low, high, allow_nan=False)


@st.composite
def cameras(draw):
    """Calibrated cameras with strong distortion, as HD domes have: one-to-one in all of their view."""
    focal = draw(floats(300, 2500))
    K = np.array(
        [
            [focal, draw(floats(-3, 3)), draw(floats(200, 1500))],
            [0, focal * draw(floats(0.9, 1.1)), draw(floats(200, 900))],
            [0, 0, 1],
        ]
    )
    limits = (0.3, 0.2, 2e-3, 2e-3, 0.1)
    return K, np.array([draw(floats(-limit, limit)) for limit in limits])


@st.composite
def image_transforms(draw):
    """Resize, maybe a flip, and a window: every kind of matrix that transforms.py makes."""
    steps = [scale_matrix(draw(floats(0.2, 3)), draw(floats(0.2, 3)))]
    if draw(st.booleans()):
        steps.append(flip_matrix(640))
    window = window_matrix(360, 640, draw(floats(0.5, 2)), draw(floats(-3, 3)), (draw(floats(-1, 1)), 0.2))
    return compose(*steps, window)


def points_in_view(n):
    return arrays(np.float64, (n, 2), elements=floats(-0.5, 0.5))


def points_cam(xy, depth=3000.0):
    return np.concatenate([xy * depth, np.full((*xy.shape[:-1], 1), depth)], axis=-1)


def random_rotation(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


@given(cameras(), points_in_view(5), floats(500, 8000))
def test_projects_as_opencv(camera, xy, depth):
    K, distortion = camera
    points = points_cam(xy, depth)
    upright = K * (np.arange(9).reshape(3, 3) != 1)  # OpenCV's cameras have no skew
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), upright, distortion)[0][:, 0]
    np.testing.assert_allclose(project(points, upright, distortion), expected, atol=1e-6, rtol=0)


@given(points_in_view(5), cameras())
def test_undistorts_as_opencv(xy, camera):
    distortion = camera[1]
    seen = distort(xy, distortion)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-14)
    expected = cv2.undistortPoints(seen[:, None], np.eye(3), distortion, criteria=criteria)[:, 0]
    # In pixels of a 2000 px focal length; OpenCV's fixed point iteration is the less exact one.
    np.testing.assert_allclose(undistort(seen, distortion), expected, atol=1e-6 / 2000, rtol=0)


@given(points_in_view(5), cameras())
def test_undistort_inverts_distort(xy, camera):
    np.testing.assert_allclose(undistort(distort(xy, camera[1]), camera[1]), xy, atol=1e-12, rtol=0)


def lenses(terms):
    """Lenses with so many of OpenCV's 12 coefficients, as mild as calibrated ones."""
    scale = np.array([0.3, 0.15, 2e-3, 2e-3, 0.05, 0.2, 0.1, 0.03, 5e-3, 2e-3, 5e-3, 2e-3])[:terms]
    return arrays(np.float64, (terms,), elements=floats(-1, 1)).map(lambda numbers: numbers * scale)


@given(lenses(12), points_in_view(5))
def test_rational_and_thin_prism_terms_distort_as_opencv(distortion, xy):
    expected = cv2.projectPoints(points_cam(xy), np.zeros(3), np.zeros(3), np.eye(3), distortion)[0][:, 0]
    np.testing.assert_allclose(distort(xy, distortion), expected, atol=1e-12, rtol=1e-12)


@given(lenses(12), points_in_view(5))
def test_rational_and_thin_prism_terms_are_inverted_within_the_lens(distortion, xy):
    xy = xy * np.minimum(1, 0.9 * lens_radius(distortion) / np.maximum(np.linalg.norm(xy, axis=-1), 1e-9))[:, None]
    np.testing.assert_allclose(undistort(distort(xy, distortion), distortion), xy, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([-0.3, 0.1, 0.001, 0.002], [-0.3, 0.1, 0.001, 0.002, 0]),
        ([[-0.3, 0.1, 0.001, 0.002, 0.05]], [-0.3, 0.1, 0.001, 0.002, 0.05]),
        ([-0.3, 0.1, 0, 0, 0.05, 0.01, 0.002, 0.003], [-0.3, 0.1, 0, 0, 0.05, 0.01, 0.002, 0.003, 0, 0, 0, 0]),
        ([0.1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0.1, 0, 0, 0, 0]),
    ],
)
def test_opencvs_forms_of_a_lens_are_read(values, kept):
    np.testing.assert_array_equal(lens_coefficients(values), kept)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0.1, 0.2, 0.3], "wanted 4, 5, 8, 12 or 14 finite numbers"),
        ([0.1, 0.2, 0.3, float("nan"), 0], "wanted 4, 5, 8, 12 or 14 finite numbers"),
        ([0.0] * 12 + [0.02, 0.0], r"tau_x, tau_y = \[0.02, 0.0\], wanted 0"),
    ],
)
def test_other_forms_of_a_lens_are_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        lens_coefficients(values)


def test_the_lens_radius_is_where_the_distorted_radius_stops_growing():
    barrel = np.array([-0.3, 0.0, 0.0, 0.0, 0.0])  # r - 0.3 r^3 grows up to 1.054
    assert lens_radius(barrel) == pytest.approx(np.sqrt((1 - 0.05) / 0.9), abs=0.002)
    assert lens_radius(np.zeros(5)) == 4.0
    assert lens_radius(np.stack([barrel, np.zeros(5)])).shape == (2,)


@given(arrays(np.float64, (4, 2), elements=floats(-50, 50)), cameras())
def test_a_point_outside_the_lens_becomes_one_at_its_edge(xy, camera):
    distortion = camera[1]
    ideal = undistort(xy, distortion)
    assert np.isfinite(ideal).all()
    solved = np.abs(distort(ideal, distortion) - xy).max(axis=-1) < 1e-4
    radius = np.linalg.norm(ideal, axis=-1)
    assert (radius <= lens_radius(distortion) * (1 + 1e-12)).all()
    assert (solved | (radius > 0.99 * lens_radius(distortion))).all()


def test_undistortion_never_jumps():
    """A point that moves outwards by 0.001 (2 pixels of a 2000 px focal length) moves its ray by less than 0.05."""
    studio = np.array([-0.28272634, 0.19004083, -0.00041486, 0.00054033, -0.05172872])
    for distortion in (studio, np.array([-0.3, 0.0, 0.0, 0.0, 0.0]), np.array([-0.58, -0.38, -0.014, -0.006, 0.1])):
        for angle in np.linspace(0, 2 * np.pi, 24):
            line = np.arange(0, 3, 0.001)[:, None] * [np.cos(angle), np.sin(angle)]
            moves = np.linalg.norm(np.diff(undistort(line, distortion), axis=0), axis=-1)
            assert moves.max() < 0.05, (distortion, angle)


@settings(max_examples=50)
@given(cameras(), image_transforms(), points_in_view(4))
def test_back_projection_inverts_projection_under_every_image_transform(camera, A, xy):
    K, distortion = camera
    K = transform_intrinsics(A, K)
    points = points_cam(xy)
    uv = project(points, K, distortion)
    np.testing.assert_allclose(back_project(uv, points[..., 2], K, distortion), points, atol=1e-6, rtol=0)


@settings(max_examples=50)
@given(cameras(), image_transforms(), points_in_view(4))
def test_transformed_intrinsics_project_to_transformed_pixels(camera, A, xy):
    K, distortion = camera
    points = points_cam(xy)
    moved = project(points, K, distortion) @ A[:, :2].T + A[:, 2]
    np.testing.assert_allclose(project(points, transform_intrinsics(A, K), distortion), moved, atol=1e-6)


def test_intrinsics_take_square_matrices_too():
    A, K = window_matrix(100, 200, 0.7, 0.3, (0.1, 0)), RNG.normal(size=(4, 3, 3))
    square = np.vstack([A, [0, 0, 1]])
    np.testing.assert_allclose(transform_intrinsics(square, K), transform_intrinsics(A, K))
    K[:, 2] = [0, 0, 1]
    np.testing.assert_allclose(transform_intrinsics(square, K), square @ K)


@given(floats(100, 3000), floats(0.9, 1.1), floats(-np.pi, np.pi), floats(0.2, 5))
def test_mean_focal_of_rotated_flipped_and_zoomed_cameras(focal, aspect, angle, zoom):
    K = np.diag([focal, focal * aspect, 1.0])
    expected = focal * np.sqrt(aspect)
    assert mean_focal(K) == pytest.approx(expected)
    window = window_matrix(100, 100, 1 / zoom, angle, (0.3, -0.2))
    turned = transform_intrinsics(compose(flip_matrix(100), window), K)
    assert np.linalg.det(turned[:2, :2]) < 0
    assert mean_focal(turned) == pytest.approx(zoom * expected)


def test_reading_fx_and_fy_of_a_rotated_camera_would_be_percents_too_small():
    K = transform_intrinsics(window_matrix(100, 100, 1, 0.15, (0, 0)), np.diag([1000.0, 1000.0, 1.0]))
    assert mean_focal(K) == pytest.approx(1000)
    assert np.sqrt(K[0, 0] * K[1, 1]) < 990


def test_a_flip_back_projects_to_the_unmirrored_scene():
    K = np.array([[500.0, 0, 320], [0, 500, 180], [0, 0, 1]])
    points = points_cam(RNG.uniform(-0.3, 0.3, (6, 2)))
    A = flip_matrix(640)
    uv = project(points, K) @ A[:, :2].T + A[:, 2]
    np.testing.assert_allclose(uv[:, 0], 639 - project(points, K)[:, 0])
    np.testing.assert_allclose(back_project(uv, points[:, 2], transform_intrinsics(A, K)), points)


def test_numpy_and_torch_agree_and_broadcast_over_images():
    rng = np.random.default_rng(3)
    points = points_cam(rng.uniform(-0.5, 0.5, (2, 3, 7, 2)))  # images, people, joints
    K = np.array([[[900.0, 2, 500], [1, 950, 300], [0, 0, 1]], [[-700.0, 80, 400], [90, 720, 200], [0, 0, 1]]])
    distortion = rng.uniform(-0.1, 0.1, (2, 5)) * [1, 1, 0.01, 0.01, 1]
    K, distortion = K[:, None], distortion[:, None]
    R = np.stack([random_rotation(rng), random_rotation(rng)])[:, None]
    t = rng.normal(size=(2, 1, 3))
    calls = (
        (transform, (points, R, t)),
        (inverse_transform, (points, R, t)),
        (mean_focal, (K,)),
        (transform_intrinsics, (window_matrix(9, 9, 1.2, 0.3, (0, 0)), K)),
        (distort, (points[..., :2] / 3000, distortion)),
        (undistort, (points[..., :2] / 3000, distortion)),
        (project, (points, K, distortion)),
        (project, (points, K)),
        (back_project, (points[..., :2], points[..., 2], K, distortion)),
        (back_project, (points[..., :2], points[..., 2], K)),
    )
    for function, arguments in calls:
        result = function(*arguments)
        tensor = function(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arguments))
        assert isinstance(result, np.ndarray) and isinstance(tensor, torch.Tensor), function.__name__
        np.testing.assert_allclose(tensor.numpy(), result, rtol=1e-12, atol=1e-12, err_msg=function.__name__)
    one = project(points[1, 2], K[1, 0], distortion[1, 0])
    np.testing.assert_allclose(project(points, K, distortion)[1, 2], one)


def test_world_and_camera_are_inverse_to_each_other():
    rng = np.random.default_rng(1)
    R, t, points = random_rotation(rng), rng.normal(size=3), rng.normal(size=(5, 3))
    np.testing.assert_allclose(transform(points, R, t)[2], R @ points[2] + t)
    np.testing.assert_allclose(inverse_transform(transform(points, R, t), R, t), points, atol=1e-12)


def test_intrinsics_from_a_field_of_view_reach_the_borders():
    K = intrinsics_from_fov(641, 361, 90.0)
    assert K[0, 0] == K[1, 1] == pytest.approx(320.5)
    np.testing.assert_allclose(project(np.array([[0.0, 0, 1]]), K), [[320, 180]])
    edge = project(np.array([[-1.0, 0, 1]]), K)  # 45 degrees to the left
    np.testing.assert_allclose(edge, [[-0.5, 180]])


@pytest.mark.parametrize("angle", [0, 180, -20, float("nan")])
def test_impossible_fields_of_view_are_refused(angle):
    with pytest.raises(ValueError, match="fov_degrees"):
        intrinsics_from_fov(640, 480, angle)


def test_real_panoptic_calibration_and_poses_project_as_opencv(das_data):
    folder = das_data / "panoptic" / "160906_band1"
    all_cameras = json.loads((folder / "calibration_160906_band1.json").read_text())["cameras"]
    poses = sorted(folder.rglob("body3DScene_*.json"))
    bodies = [np.array(b["joints19"]).reshape(19, 4) for p in poses for b in json.loads(p.read_text())["bodies"]]
    world = np.concatenate([b[b[:, 3] > 0.1, :3] for b in bodies]) * 10  # cm to mm
    assert len(all_cameras) > 100 and len(world) > 300
    compared = 0
    for camera in all_cameras:
        K, R, distortion = (np.array(camera[name]) for name in ("K", "R", "distCoef"))
        t = np.array(camera["t"]).reshape(3) * 10
        points = transform(world, R, t)
        # Behind the camera, and far outside its view where the distortion folds over, nothing is defined.
        points = points[(points[:, 2] > 100) & (np.abs(points[:, :2]) < points[:, 2:]).all(axis=1)]
        if not len(points):
            continue
        rvec = cv2.Rodrigues(R)[0]
        in_world = np.ascontiguousarray(inverse_transform(points, R, t))
        expected = cv2.projectPoints(in_world, rvec, t, K, distortion)[0][:, 0]
        uv = project(points, K, distortion)
        np.testing.assert_allclose(uv, expected, atol=1e-6, rtol=0, err_msg=camera["name"])
        width, height = camera["resolution"]
        seen = ((uv >= 0) & (uv < [width, height])).all(axis=1)
        back = back_project(uv[seen], points[seen, 2], K, distortion)
        np.testing.assert_allclose(back, points[seen], atol=1e-5, rtol=0, err_msg=camera["name"])
        compared += seen.sum()
    assert compared > 10_000


def test_real_panoptic_cameras_undistort_their_whole_image(das_data):
    path = das_data / "panoptic" / "160906_band1" / "calibration_160906_band1.json"
    for camera in json.loads(path.read_text())["cameras"]:
        width, height = camera["resolution"]
        u, v = np.meshgrid(np.linspace(0, width - 1, 9), np.linspace(0, height - 1, 7))
        uv = np.stack([u.ravel(), v.ravel()], axis=-1)
        K, distortion = np.array(camera["K"]), np.array(camera["distCoef"])
        again = project(back_project(uv, np.full(len(uv), 1000.0), K, distortion), K, distortion)
        np.testing.assert_allclose(again, uv, atol=1e-6, rtol=0, err_msg=camera["name"])


def test_an_upright_photo_of_the_same_camera_has_the_same_focal_length():
    flat, upright = intrinsics_from_fov(4000, 3000, 67.0), intrinsics_from_fov(3000, 4000, 67.0)
    assert flat[0, 0] == flat[1, 1] == upright[0, 0] == upright[1, 1] == pytest.approx(2000 / np.tan(np.radians(33.5)))
    np.testing.assert_array_equal(upright[:2, 2], [1499.5, 1999.5])
