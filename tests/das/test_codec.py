"""People to network units and back."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from das.camera import back_project, mean_focal, project, transform_intrinsics
from das.codec import PoseCodec
from das.config import DASConfig, release_mupots, release_panoptic, small

CONFIGS = [release_panoptic(), release_mupots(), small(), dataclasses.replace(DASConfig(), offset_origin="pixel")]


def random_people(config, rng, people=3):
    """Camera-space joints in mm with the root joint in its place, where any distortion below is one-to-one."""
    root = rng.uniform((-600, -400, 3000), (600, 400, 6000), (people, 3))
    joints = root[:, None] + rng.uniform(-500, 500, (people, config.n_joints, 3))
    joints[:, config.skeleton.root_index] = root
    return torch.from_numpy(joints)


def encode_and_decode(config, joints_uv, depth, focal, rng):
    r = config.skeleton.root_index
    n = len(joints_uv)
    stride = torch.from_numpy(rng.choice(config.strides, n)).double()
    points = joints_uv[:, r] + torch.from_numpy(rng.uniform(-1.5, 1.5, (n, 2))) * stride[:, None]
    codec = PoseCodec(config)
    targets = codec.encode(joints_uv, depth, joints_uv[:, r], depth[:, r], points, stride, focal.expand(n))
    return targets, codec.decode(*targets, points, stride, focal.expand(n))


@pytest.mark.parametrize("config", CONFIGS)
def test_decode_inverts_encode(config):
    rng = np.random.default_rng(0)
    cam = random_people(config, rng)
    r = config.skeleton.root_index
    K = torch.tensor([[900.0, 0, 480], [0, 950, 270], [0, 0, 1]], dtype=torch.float64)
    uv, depth = project(cam, K), cam[..., 2]
    (root, joints), (uv2, depth2, root_uv2, root_depth2) = encode_and_decode(config, uv, depth, mean_focal(K), rng)
    torch.testing.assert_close(uv2, uv)
    torch.testing.assert_close(depth2, depth)
    torch.testing.assert_close(root_uv2, uv[:, r])
    torch.testing.assert_close(root_depth2, depth[:, r])
    assert (joints[:, r, 2] == 0).all()
    torch.testing.assert_close(root[:, 2], config.root_depth_scale * depth[:, r] / mean_focal(K))


@pytest.mark.parametrize("config", CONFIGS)
@given(
    seed=st.integers(0, 2**32 - 1),
    flip=st.booleans(),
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.3, 2.0),
    shift=st.tuples(st.floats(-200, 200), st.floats(-200, 200)),
    skew=st.floats(-0.1, 0.1),
    distortion=st.tuples(*[st.floats(-0.1, 0.1)] * 2, *[st.floats(-0.005, 0.005)] * 2, st.floats(-0.01, 0.01)),
)
@settings(max_examples=25, deadline=None)
def test_camera_space_survives_image_transforms(config, seed, flip, angle, scale, shift, skew, distortion):
    """For any image transform A: encode the transformed pixels, decode, back-project with K' = A K."""
    rng = np.random.default_rng(seed)
    cam = random_people(config, rng)
    K = torch.tensor([[1400.0, 0, 960], [0, 1450, 540], [0, 0, 1]], dtype=torch.float64)
    distortion = torch.tensor(distortion, dtype=torch.float64)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    A = torch.tensor([[c, -s + skew, shift[0]], [s, c, shift[1]]], dtype=torch.float64)
    if flip:  # x -> width - 1 - x before the rest
        A = torch.stack([-A[:, 0], A[:, 1], A[:, 2] + A[:, 0] * 1919], dim=1)
    uv = project(cam, K, distortion) @ A[:, :2].T + A[:, 2]
    K_input = transform_intrinsics(A, K)
    assert (torch.linalg.det(K_input) < 0) == flip
    _, (uv2, depth2, root_uv2, root_depth2) = encode_and_decode(config, uv, cam[..., 2], mean_focal(K_input), rng)
    recovered = back_project(uv2, depth2, K_input, distortion)
    torch.testing.assert_close(recovered, cam, rtol=0, atol=1e-5)
    root = back_project(root_uv2, root_depth2, K_input, distortion)
    torch.testing.assert_close(root, cam[:, config.skeleton.root_index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_resizing_image_camera_and_grid_together_changes_the_root_depth_target_alone(factor):
    """A person in a picture of twice the size looks as if at half the depth: Z / focal says so."""
    config = release_panoptic()
    rng = np.random.default_rng(1)
    cam = random_people(config, rng)
    K = torch.tensor([[1000.0, 0, 400], [0, 1000, 300], [0, 0, 1]], dtype=torch.float64)
    r, n = config.skeleton.root_index, len(cam)
    codec, results = PoseCodec(config), []
    for f in (1.0, factor):
        A = torch.tensor([[f, 0, 0], [0, f, 0]], dtype=torch.float64)
        Kf = transform_intrinsics(A, K)
        uv = project(cam, Kf)
        stride = torch.full((n,), 8.0 * f, dtype=torch.float64)
        args = (uv, cam[..., 2], uv[:, r], cam[:, r, 2], uv[:, r] + 3 * f, stride, mean_focal(Kf).expand(n))
        results.append(codec.encode(*args))
    torch.testing.assert_close(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][0][:, :2], results[1][0][:, :2])
    torch.testing.assert_close(results[0][0][:, 2], results[1][0][:, 2] * factor)


def test_root_origin_does_not_read_the_root_joint_and_pixel_origin_does_not_read_the_root():
    rng = np.random.default_rng(2)
    points, stride, focal = torch.zeros(2, 2), torch.full((2,), 8.0), torch.full((2,), 500.0)
    for config in (small(), release_panoptic()):
        r = config.skeleton.root_index
        root, joints = torch.from_numpy(rng.normal(size=(2, 3))), torch.from_numpy(rng.normal(size=(2, 15, 3)))
        uv, _, root_uv, _ = PoseCodec(config).decode(root, joints, points, stride, focal)
        torch.testing.assert_close(uv[:, r], root_uv)
        expected = root[:, :2] if config.offset_origin == "root" else joints[:, r, :2]
        torch.testing.assert_close(root_uv, 8 * expected)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_scale_in_network_units_is_what_moving_the_offset_by_it_moves_in_space(config):
    """An offset in u moves the joint along x, one in v along y, one in depth along z (and along its ray)."""
    rng = np.random.default_rng(0)
    cam = random_people(config, rng)
    r = config.skeleton.root_index
    K = torch.tensor([[900.0, 0, 480], [0, 900.0, 270], [0, 0, 1]], dtype=torch.float64)
    uv, depth, focal = project(cam, K), cam[..., 2], mean_focal(K).expand(len(cam))
    stride = torch.tensor([8.0, 16, 32], dtype=torch.float64)
    codec = PoseCodec(config)
    root, joints = codec.encode(uv, depth, uv[:, r], depth[:, r], uv[:, r], stride, focal)
    sigma = torch.from_numpy(rng.uniform(0.01, 1, joints.shape))
    scales = codec.decode_sigma(sigma, depth, stride, focal)
    others = torch.arange(config.n_joints) != r
    for axis in range(3):
        moved = joints.clone()
        moved[..., axis] += sigma[..., axis]
        uv2, depth2, *_ = codec.decode(root, moved, uv[:, r], stride, focal)
        shift = back_project(uv2, depth2, K) - cam
        torch.testing.assert_close(shift[:, others, axis], scales[:, others, axis])
