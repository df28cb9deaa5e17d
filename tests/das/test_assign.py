"""Which feature points are positives for which person."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from das.assign import (
    assign,
    centerness_target,
    farthest_joint,
    feature_points,
    level_shape,
    person_centers,
)
from das.codec import PoseCodec
from das.config import DASConfig, release_panoptic
from tests.das.release_vectors import batch_of, numbered

HEIGHT, WIDTH = 256, 320
OURS = DASConfig()
RELEASE = release_panoptic()


def people(roots, reach=40.0):
    """One image; joint 0 of each person is ``reach`` to the right of the root, all others on it."""
    poses = np.zeros((len(roots), 63), np.float32)
    for pose, (u, v) in zip(poses, roots, strict=True):
        pose[:2] = u, v
        pose[3:48].reshape(15, 3)[:, :2] = u, v
        pose[3] += reach
        pose[48:] = 1
    return batch_of([poses], HEIGHT, WIDTH)


def flat(batch, positives, stride):
    rows, columns = level_shape(*batch.images.shape[-2:], stride)
    image, y, x = positives.cells
    return (image * rows + y) * columns + x


@pytest.mark.golden
def test_assignment_equals_the_release(golden):
    with np.load(golden / "model" / "C_targets.npz") as vectors:
        gt = numbered(vectors, "gt")
        width, height = (vectors["points0"].max(0) + 4).astype(int)  # the last point is 4 px from the border
        batch = batch_of(gt, height, width)
        for i, r_max in enumerate(numbered(vectors, "rmax")):
            ours = farthest_joint(batch.joints_uv, batch.visible, batch.root_uv)[i, : len(r_max)]
            torch.testing.assert_close(ours, torch.from_numpy(r_max), rtol=1e-5, atol=1e-5)
        levels = assign(batch, RELEASE)
        assert len(levels) == len(numbered(vectors, "pos"))
        codec = PoseCodec(RELEASE)
        for level, (positives, stride) in enumerate(zip(levels, RELEASE.strides, strict=True)):
            points = feature_points(*level_shape(height, width, stride), stride)
            np.testing.assert_array_equal(points, vectors[f"points{level}"])
            index = flat(batch, positives, stride)
            np.testing.assert_array_equal(index, vectors[f"pos{level}"])
            labels = np.ones(len(gt) * len(points), np.int32)  # the release numbers background 1 and person 0
            labels[index] = 0
            np.testing.assert_array_equal(labels.reshape(len(gt), -1), vectors[f"labels{level}"])
            np.testing.assert_allclose(positives.centerness, vectors[f"centerness_pos{level}"], rtol=1e-5, atol=1e-5)

            # The release's vector: (point - root) / stride, depth, joint - root in px and cm, visibility.
            theirs = torch.from_numpy(vectors[f"pose_targets_pos{level}"])
            uvd = theirs[:, 3:48].unflatten(1, (15, 3))
            at = (positives.cells.image, positives.person)
            strides = torch.full((len(index),), float(stride))
            root, joints = codec.encode(
                batch.joints_uv[at],
                batch.joints_depth[at],
                batch.root_uv[at],
                batch.root_depth[at],
                positives.points,
                strides,
                torch.ones(len(index)),
            )
            torch.testing.assert_close(root[:, :2], -theirs[:, :2], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(root[:, 2], 20 * theirs[:, 2], rtol=1e-5, atol=1e-5)
            from_point = uvd[..., :2] / stride - theirs[:, None, :2]
            torch.testing.assert_close(joints[..., :2], from_point, rtol=1e-5, atol=1e-4)
            has_depth = batch.has_depth[at]
            torch.testing.assert_close(joints[has_depth][..., 2], uvd[has_depth][..., 2] / 50, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(batch.visible[at], theirs[:, 48:] > 0)


def test_grid_points_lie_in_the_middle_of_their_cells():
    points = feature_points(2, 3, 16)
    assert points.tolist() == [[8, 8], [24, 8], [40, 8], [8, 24], [24, 24], [40, 24]]


@pytest.mark.parametrize("size", [(64, 96), (96, 352), (128, 160)])
def test_level_shapes_follow_convolutions_of_stride_2(size):
    x = torch.zeros(1, 1, *size)
    for stride in (2, 4, 8, 16, 32, 64):
        x = torch.nn.functional.conv2d(x, torch.zeros(1, 1, 3, 3), stride=2, padding=1)
        assert level_shape(*size, stride) == tuple(x.shape[-2:])


def test_an_exact_range_end_belongs_to_both_levels():
    levels = assign(people([(100.0, 100.0)], reach=80.0), RELEASE)
    assert [len(p.person) for p in levels] == [9, 9, 0, 0]


def test_a_person_without_visible_joints_goes_to_the_finest_level():
    batch = people([(100.0, 100.0)], reach=200.0)
    batch.visible[:] = False
    assert [len(p.person) > 0 for p in assign(batch, OURS)] == [True, False, False, False]


def test_a_hidden_joint_does_not_reach_even_if_its_place_is_nonsense():
    batch = people([(100.0, 100.0)], reach=torch.inf)
    batch.visible[0, 0, 0] = False
    assert [len(p.person) > 0 for p in assign(batch, OURS)] == [True, False, False, False]


@pytest.mark.parametrize("config", [OURS, RELEASE])
def test_no_people_means_no_positives(config):
    for batch in (people([]), batch_of([np.zeros((0, 63), np.float32)] * 2, 64, 64)):
        assert all(len(p.person) == 0 for p in assign(batch, config))


@pytest.mark.parametrize("config", [OURS, RELEASE])
@pytest.mark.parametrize("root", [(-3.0, 100.0), (100.0, -3.0), (WIDTH + 3.0, 100.0), (100.0, HEIGHT + 3.0)])
def test_a_root_outside_the_image_is_left_to_the_background(config, root):
    positives = assign(people([root, (50.0, 50.0)]), config)[0]
    assert set(positives.person.tolist()) == {1}


@pytest.mark.parametrize("config", [OURS, RELEASE])
def test_the_image_ends_half_a_pixel_beyond_its_outermost_centres(config):
    inside = [(-0.4, 60.0), (60.0, -0.4), (WIDTH - 0.6, 160.0), (160.0, HEIGHT - 0.6)]
    outside = [(-0.6, 60.0), (60.0, -0.6), (WIDTH - 0.4, 160.0), (160.0, HEIGHT - 0.4)]
    assert set(assign(people(inside), config)[0].person.tolist()) == {0, 1, 2, 3}
    assert len(assign(people(outside), config)[0].person) == 0


def test_a_root_in_the_padding_is_left_to_the_background():
    batch = people([(300.0, 100.0), (50.0, 50.0)])
    batch.sizes[0] = torch.tensor([HEIGHT, 290])
    assert set(assign(batch, OURS)[0].person.tolist()) == {1}


def test_nearest_points_at_a_border_are_still_nine():
    positives = assign(people([(1.0, 1.0)]), OURS)[0]
    assert sorted(zip(positives.cells.y.tolist(), positives.cells.x.tolist(), strict=True)) == [
        (y, x) for y in range(3) for x in range(3)
    ]


@given(
    roots=st.lists(
        st.tuples(st.floats(0, WIDTH - 1, width=32), st.floats(0, HEIGHT - 1, width=32)), min_size=1, max_size=4
    ),
    n=st.integers(1, 12),
    reach=st.floats(0, 400),
)
@settings(max_examples=40, deadline=None)
def test_positives_are_the_nearest_points_won_by_the_nearest_person(roots, n, reach):
    config = dataclasses.replace(OURS, n_positive=n)
    batch = people(roots, reach)
    for positives, stride, (low, high) in zip(assign(batch, config), config.strides, config.level_ranges, strict=True):
        points = feature_points(*level_shape(HEIGHT, WIDTH, stride), stride).numpy()
        # The same float32 distances, so that ties are ties in both.
        distance = (torch.from_numpy(points) - batch.root_uv[0][:, None]).norm(dim=-1).numpy()  # (N, M)
        r_max = float(batch.joints_uv[0, 0, 0, 0] - batch.root_uv[0, 0, 0])
        taken = {}
        if low <= r_max <= high:
            for person in range(len(roots)):
                for index in np.argsort(distance[person], kind="stable")[:n]:
                    if index not in taken or distance[person, index] < distance[taken[index], index]:
                        taken[int(index)] = person
        ours = flat(batch, positives, stride)
        assert dict(zip(ours.tolist(), positives.person.tolist(), strict=True)) == taken


@given(u=st.floats(40, 280, width=32), v=st.floats(40, 200, width=32))
@settings(max_examples=40, deadline=None)
def test_square_positives_lie_strictly_within_the_radius_on_both_axes(u, v):
    positives = assign(people([(u, v)]), RELEASE)[0]
    points = feature_points(*level_shape(HEIGHT, WIDTH, 8), 8).numpy()
    inside = (np.abs(points - np.float32([u, v])) < 12).all(-1)
    np.testing.assert_array_equal(flat(people([]), positives, 8), inside.nonzero()[0])
    assert len(positives.person) in (4, 6, 9)
    assert (positives.points.numpy() == points[inside]).all()


def test_centerness_is_1_at_the_center_and_falls():
    value = centerness_target(torch.tensor([0.0, 12.0, 16.968]), 8, 1.5)
    assert value[0] == 1 and value[1] > value[2]
    assert value[2] == pytest.approx(np.exp(-2.5), rel=1e-4)


def test_box_center_moves_positives_and_r_max_but_not_the_root():
    batch = people([(100.0, 100.0)], reach=120.0)  # the visible box reaches from 100 to 220
    center = person_centers(batch, "box")
    assert center[0, 0].tolist() == [160.0, 100.0]
    assert farthest_joint(batch.joints_uv, batch.visible, center)[0, 0] == 60
    root_levels, box_levels = (assign(batch, dataclasses.replace(OURS, center=c)) for c in ("root", "box"))
    assert [len(p.person) for p in root_levels] == [0, 9, 0, 0]
    assert [len(p.person) for p in box_levels] == [9, 0, 0, 0]
    assert (box_levels[0].points - torch.tensor([160.0, 100.0])).abs().max() <= 12
    batch.visible[:] = False
    assert person_centers(batch, "box")[0, 0].tolist() == [100.0, 100.0]
