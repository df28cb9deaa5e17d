"""The top view is to scale; the panel shows it beside the photo."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das.draw.people import TRUTH_GREY, person_color
from das.draw.top_view import FloorPlan, panel, top_view
from das.skeleton import PANOPTIC15
from tests.das.draw.drawings import STICK, grey_image, near_segments


def test_top_view_takes_the_colours_it_is_given():
    joints = np.array([[[0, 0, 3000], [400, 0, 3000], [-400, 0, 3000]]], float)
    out = top_view(joints, STICK, colors=[TRUTH_GREY])
    assert not (out == person_color(0)).all(-1).any() and (out == TRUTH_GREY).all(-1).any()


@settings(max_examples=40, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(-9e3, 9e3), st.floats(-2e3, 2e3), st.floats(300, 4e4)), min_size=1, max_size=6),
    down=st.tuples(st.floats(-0.5, 0.5), st.just(1.0), st.floats(-0.5, 0.5)),
)
def test_the_floor_plan_is_to_scale_and_holds_everything_in_front(points, down):
    points, down = np.array(points), np.array(down) / np.linalg.norm(down)
    plan = FloorPlan.around(points, 400, down)
    uv = plan.pixels(points)
    in_front = points @ plan.axes[1] >= 0
    assert ((uv >= 0) & (uv < 400))[in_front].all()
    # Moving along gravity changes nothing; a level move of d metres is d x scale pixels long.
    np.testing.assert_allclose(plan.pixels(points + 700 * down), uv, atol=1e-6)
    step = np.cross(down, [0.3, 0.2, 1.0])
    step *= 1500 / np.linalg.norm(step)
    moved = plan.pixels(points + step) - uv
    np.testing.assert_allclose(np.linalg.norm(moved, axis=-1), 1.5 * plan.pixels_per_metre, rtol=1e-9)


def test_top_view_puts_right_right_and_far_up():
    joints = np.array([[0, 0, 3000.0], [1000, 0, 3000.0], [0, 500, 5000.0]])
    plan = FloorPlan.around(joints, 600)
    here, right, far = plan.pixels(joints)
    assert right[0] - here[0] == pytest.approx(plan.pixels_per_metre) and right[1] == pytest.approx(here[1])
    assert here[1] - far[1] == pytest.approx(2 * plan.pixels_per_metre) and far[0] == pytest.approx(here[0])


def test_top_view_shows_each_root_in_its_colour_and_the_truth_in_grey():
    person = np.array([[0, 0, 0], [-300, -400, 0], [300, -400, 0.0]])
    joints = person + np.array([[[-800, 0, 3000]], [[900, 0, 4000.0]]])
    truth = joints + [0, 0, 600]
    plan = FloorPlan.around(np.concatenate([joints, truth]).reshape(-1, 3), 500)
    out = top_view(joints, STICK, truth_cam=truth, size=500)
    for i in range(2):
        u, v = np.round(plan.pixels(joints[i, 0])).astype(int)
        assert tuple(out[v, u]) == person_color(i)
        u, v = np.round(plan.pixels(truth[i, 0])).astype(int)
        assert np.ptp(out[v, u].astype(int)) == 0 and out[v, u, 0] < 200


def test_top_view_marks_what_the_camera_sees():
    K = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    joints = np.array([[[0, 0, 4000], [0, 0, 4000], [0, 0, 4000.0]]])
    plan = FloorPlan.around(joints[0], 500)
    blind, seeing = (top_view(joints, STICK, K=k, image_size=(480, 640), size=500) for k in (None, K))
    # At Z the middle row sees |X| < Z x 320 / 500; test a little inside and outside, off the grid lines.
    for x, seen in ((2.2, True), (2.35, False), (-2.2, True), (-2.35, False)):
        u, v = np.round(plan.pixels(np.array([x * 1000, 0, 3550]))).astype(int)
        assert (blind[v, u] != seeing[v, u]).any() == seen, x


def test_top_view_without_people_is_an_empty_grid():
    out = top_view(np.zeros((0, 15, 3)), PANOPTIC15, size=200)
    assert out.shape == (200, 200, 3) and out.dtype == np.uint8


@pytest.mark.parametrize("height", [240, 720])
def test_panel_draws_on_the_enlarged_photo_where_the_joints_are(height):
    image = grey_image(height, 2 * height)
    uv = np.array([[[height, 0.2 * height], [1.2 * height, 0.7 * height], [0.8 * height, 0.7 * height]]])
    cam = np.concatenate([uv, np.full((1, 3, 1), 3000.0)], -1)
    out = panel(image, uv, cam, STICK, truth_uv=uv, truth_cam=cam)
    scale = max(480, height) / height
    assert out.shape[0] == max(480, height)
    photo = out[:, : round(2 * height * scale)]
    bones = ((uv[0] + 0.5) * scale - 0.5)[[[0, 1], [0, 2]]]
    diff = (photo != 128).any(-1)
    assert diff[near_segments(photo.shape, bones, 1)].all()
    assert not diff[~near_segments(photo.shape, bones, 9)].any()


def test_panel_enlarges_a_photo_about_the_corner_of_its_first_pixel():
    """Pixel (0, 0) of the photo becomes 20 x 20 pixels with their middle at 9.5."""
    uv = np.array([[[20.0, 10], [14, 10], [26, 10]]])
    cam = np.concatenate([uv, np.full((1, 3, 1), 3000.0)], -1)
    photo = panel(grey_image(24, 48), uv, cam, STICK)[:, : 20 * 48]
    rows, columns = np.nonzero((photo != 128).any(-1))
    middle = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
    np.testing.assert_allclose(middle, [20 * 20 + 9.5, 20 * 10 + 9.5], atol=1)
