"""Drawings change the pixels they should and no others, and the top view is to scale."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from das.assign import assign
from das.config import small
from das.draw.method import distribution_grid, draw_assignment, draw_distribution, draw_map, draw_offsets
from das.draw.people import TRUTH_GREY, draw_boxes, draw_ignored, draw_people, person_color, side_color
from das.draw.sheets import above_each_other, captioned, contact_sheet, side_by_side
from das.draw.top_view import FloorPlan, panel, top_view
from das.flow import RealNVP
from das.sample import Sample, collate
from das.skeleton import PANOPTIC15, Skeleton

STICK = Skeleton("stick", ("root", "l_hand", "r_hand"), (("root", "l_hand"), ("root", "r_hand")), ("root",))


def grey_image(height=240, width=320):
    return np.full((height, width, 3), 128, np.uint8)


def changed(before, after):
    return (before != after).any(-1)


def near_segments(shape, segments, radius):
    """(H, W) bool of the pixels within ``radius`` of any segment, by plain geometry."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    pixels = np.stack([x, y], -1).astype(float)
    near = np.zeros(shape[:2], bool)
    for a, b in np.asarray(segments, float):
        along = np.clip(((pixels - a) @ (b - a)) / max((b - a) @ (b - a), 1e-9), 0, 1)
        near |= np.linalg.norm(pixels - a - along[..., None] * (b - a), axis=-1) <= radius
    return near


def test_bones_are_drawn_where_they_are_and_nowhere_else():
    image = grey_image()
    uv = np.array([[[160, 60], [220, 180], [80.5, 150.25]]])
    out = draw_people(image, uv, STICK)
    diff = changed(image, out)
    bones = uv[0][[[0, 1], [0, 2]]]
    assert not diff[~near_segments(image.shape, bones, 6)].any()
    assert diff[near_segments(image.shape, bones, 1)].all()
    assert (image == 128).all(), "the input is not drawn on"


def test_left_is_lighter_than_right_and_hues_differ():
    image = grey_image()
    uv = np.array([[[160, 60], [220, 180], [100, 180]]], float)
    out = draw_people(image, uv, STICK).astype(int)
    left, right = out[120, 190].sum(), out[120, 130].sum()
    assert left > right + 100
    colors = np.array([person_color(i) for i in range(8)], int)
    apart = np.abs(colors[:, None] - colors[None]).sum(-1) + 1000 * np.eye(8, dtype=int)
    assert apart.min() > 40
    assert side_color("neck", (10, 20, 30)) == (10, 20, 30)


def test_joints_that_are_not_valid_or_not_finite_are_left_out():
    image = grey_image()
    uv = np.array([[[160, 60], [220, 180], [100, 180]]], float)
    only_left = draw_people(image, uv, STICK, valid=np.array([True, True, False]))
    left_bone, right_bone = (near_segments(image.shape, [uv[0][[0, k]]], 6) for k in (1, 2))
    assert not changed(image, only_left)[right_bone & ~left_bone].any()
    for absent in (np.nan, np.inf, 1e30):
        broken = uv.copy()
        broken[0, 2] = absent
        np.testing.assert_array_equal(draw_people(image, broken, STICK), only_left)


def test_nobody_leaves_the_image_as_it_is():
    image = grey_image()
    for uv, labels in ((np.zeros((0, 3, 2)), []), (np.full((1, 3, 2), np.nan), ["0.9"])):
        np.testing.assert_array_equal(draw_people(image, uv, STICK, labels=labels), image)


def test_occluded_joints_are_rings():
    image = grey_image()
    uv = np.array([[[160, 60], [220, 180], [100, 180]]], float)
    rings = draw_people(image, uv, STICK, occluded=np.array([[False, True, False]]))
    discs = draw_people(image, uv, STICK)
    assert tuple(rings[180, 220]) == (255, 255, 255) and tuple(rings[180, 100]) == tuple(discs[180, 100])
    far = np.hypot(*(np.mgrid[:240, :320] - np.array([180, 220])[:, None, None])) > 8
    assert not changed(rings, discs)[far].any()


def test_boxes_are_outlines_and_the_first_lies_on_top():
    image = grey_image()
    boxes = np.array([[40.0, 30, 200, 180], [40, 30, 120, 220]])
    out = draw_boxes(image, boxes)
    edges = [
        ((x0, y0), (x1, y1))
        for box in boxes
        for x0, y0, x1, y1 in (box[[0, 1, 2, 1]], box[[2, 1, 2, 3]], box[[0, 3, 2, 3]], box[[0, 1, 0, 3]])
    ]
    assert not changed(image, out)[~near_segments(image.shape, edges, 3)].any()
    assert changed(image, out)[near_segments(image.shape, edges, 0.4)].all()
    for at, person in (((100, 40), 0), ((220, 80), 1)):
        off = [np.abs(out[at].astype(int) - person_color(i)).sum() for i in (0, 1)]
        assert off[person] < 60 < off[1 - person]
    for nothing in (np.zeros((0, 4)), np.array([[-90.0, -80, -50, -40]])):
        np.testing.assert_array_equal(draw_boxes(image, nothing), image)
    draw_boxes(image, np.array([[-1e30, np.nan, 1e30, np.inf]]))  # absurd boxes are no error


def test_ignored_areas_are_hatched_and_nothing_else():
    image = grey_image()
    out = draw_ignored(image, np.array([[100.0, 60, 220, 160]]))
    diff = changed(image, out)
    assert 0.1 < diff[63:158, 103:218].mean() < 0.5, "stripes, through which the image is seen"
    diff[57:164, 97:224] = False
    assert not diff.any()
    np.testing.assert_array_equal(draw_ignored(image, np.zeros((0, 4))), image)


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_a_contact_sheet_holds_every_picture_in_order(count):
    images = [np.full((60 + 10 * i, 90, 3), 10 * i + 5, np.uint8) for i in range(count)]
    sheet = contact_sheet(images, columns=3, width=45, gap=4)
    columns = min(3, count)
    assert sheet.shape[1] == columns * 49 - 4
    heights = [round(image.shape[0] / 2) for image in images]
    top = 0
    for row in range(0, count, 3):
        for i in range(row, min(row + 3, count)):
            u = (i - row) * 49
            assert (sheet[top : top + heights[i], u : u + 45] == 10 * i + 5).all()
            assert (sheet[top : top + heights[i], u + 45 : u + 49] == 255).all()
        top += max(heights[row : row + 3]) + 4
    assert sheet.shape[0] == top - 4


def test_a_caption_stands_above_and_pictures_in_a_column_have_one_width():
    image = grey_image(50, 70)
    out = captioned(image, "a caption that is far too long for such a narrow picture")
    np.testing.assert_array_equal(out[-50:], image)
    assert out.shape[1] == 70 and out[:-50].min() < 120 and len(out) < 80
    column = above_each_other(image, np.zeros((20, 35, 3), np.uint8), gap=2)
    assert column.shape == (50 + 2 + 40, 70, 3) and not column[52:].any() and (column[50:52] == 255).all()


def test_top_view_takes_the_colours_it_is_given():
    joints = np.array([[[0, 0, 3000], [400, 0, 3000], [-400, 0, 3000]]], float)
    out = top_view(joints, STICK, colors=[TRUTH_GREY])
    assert not (out == person_color(0)).all(-1).any() and (out == TRUTH_GREY).all(-1).any()


def test_the_first_person_lies_on_top():
    image = grey_image()
    across = [[60, 120], [260, 120], [60, 120]]
    down = [[160, 20], [160, 220], [160, 20]]
    out = draw_people(image, np.array([across, down], float), STICK)
    assert tuple(out[120, 160]) == side_color("l_hand", person_color(0))
    assert tuple(out[60, 160]) == side_color("l_hand", person_color(1))


def test_labels_stay_inside_the_image():
    image = grey_image()
    for corner in ((2, 2), (317, 2), (2, 237), (317, 237)):
        uv = np.array([[corner, corner, corner]], float)
        plain, labelled = (draw_people(image, uv, STICK, labels=text) for text in (None, ["0.93"]))
        flag = (labelled == person_color(0)).all(-1) & changed(plain, labelled)
        assert flag.sum() > 100, corner


def test_lines_grow_with_the_image_but_not_on_small_people():
    def area(height, uv):
        image = grey_image(height, 4 * height // 3)
        return changed(image, draw_people(image, np.array([uv]), STICK)).sum()

    uv = np.array([[160, 60], [220, 180], [100, 180]], float)
    # Twice as long lines cover twice the pixels at equal width and four times at double width.
    assert area(960, 4 * uv) / area(240, uv) > 6
    assert area(960, uv) < 1.5 * area(240, uv)


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


def test_top_view_of_nobody_is_an_empty_room():
    out = top_view(np.zeros((0, 15, 3)), PANOPTIC15, size=200)
    assert out.shape == (200, 200, 3) and out.dtype == np.uint8


def test_side_by_side_keeps_the_first_picture_and_its_height():
    a, b = grey_image(100, 150), grey_image(300, 600)
    out = side_by_side(a, b, gap=10)
    assert out.shape == (100, 150 + 10 + 200, 3)
    np.testing.assert_array_equal(out[:, :150], a)
    assert (out[:, 150:160] == 255).all()


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


def test_assignment_colours_every_positive_on_the_tile_of_its_level():
    image = grey_image(64, 96)
    points = [np.array([[20.0, 36.0], [28, 36]]), np.array([[40.0, 40.0]])]
    person = [np.array([0, 0]), np.array([1])]
    out = draw_assignment(image, (8, 16), points, person)
    assert out.shape == (64, 96 * 2 + 8, 3)
    for level, left in ((0, 0), (1, 96 + 8)):
        tile = out[:, left : left + 96]
        for uv, i in zip(points[level].astype(int), person[level]):
            assert tuple(tile[uv[1], uv[0]]) == person_color(i)
        assert not (tile == person_color(1 - level)).all(-1).any()


def test_assignment_fills_discs_by_centerness():
    image = grey_image(64, 64)
    args = (image, (32,), [np.array([[48.0, 48.0]])], [np.array([0])])
    full, quarter = (draw_assignment(*args, centerness=[np.array([c])]) for c in (1, 0.25))
    # A quarter of the area is half the radius of 0.42 strides: 9 pixels from the middle is beyond it.
    assert tuple(full[48, 48 + 9]) == person_color(0) and tuple(full[48, 48]) == person_color(0)
    assert tuple(quarter[48, 48 + 9]) != person_color(0) and tuple(quarter[48, 48]) == person_color(0)


def test_assignment_of_a_batch_can_be_drawn_as_it_comes():
    """The positives of das.assign, picked for one image, lie around that person's root."""
    config = small()
    rng = np.random.default_rng(0)
    uv = rng.uniform(-20, 20, (1, config.n_joints, 2)) + [60, 40]
    sample = Sample(
        key="a",
        skeleton=config.skeleton,
        image=grey_image(96, 128),
        K=np.eye(3),
        distortion=np.zeros(5),
        joints_uv=uv,
        joints_depth=np.full((1, config.n_joints), 3000.0),
        visible=np.ones((1, config.n_joints), bool),
        root_uv=np.array([[60.0, 40.0]]),
        root_depth=np.array([3000.0]),
        has_depth=np.array([True]),
    )
    levels = assign(collate([sample]), config)
    mine = [level.cells.image == 0 for level in levels]
    out = draw_assignment(
        sample.image,
        config.strides,
        [level.points[m].numpy() for level, m in zip(levels, mine)],
        [level.person[m].numpy() for level, m in zip(levels, mine)],
        [level.centerness[m].numpy() for level, m in zip(levels, mine)],
    )
    rows, columns = np.nonzero((out == person_color(0)).all(-1))
    assert len(rows) and abs(rows.mean() - 40) < 4 and abs(columns.mean() - 60) < 4, "all on the first tile"


def test_a_map_is_bright_where_it_is_high_and_dims_the_photo_elsewhere():
    image = np.full((40, 60, 3), 100, np.uint8)
    values = np.zeros((5, 8))  # as a network of padded input gives it: wider than the photo
    values[1, 2] = 1.0
    out = draw_map(image, values, 8)
    assert out.shape == image.shape and (image == 100).all()
    assert out[8:16, 16:24].min(-1).min() > 100
    out[8:16, 16:24] = 40
    assert (out == 40).all()


def test_equal_offsets_have_equal_colour_and_opposite_ones_do_not():
    image = grey_image(64, 64)
    offsets = np.zeros((2, 4, 4))
    offsets[0, :, :2], offsets[0, :, 2:] = 30, -30
    out = draw_offsets(image, offsets, stride=16, step=100)
    for half in (out[:, :32], out[:, 32:]):
        assert (half == half[0, 0]).all()
    assert np.abs(out[0, 0].astype(int) - out[0, 63]).sum() > 100
    with_arrows = draw_offsets(image, offsets, stride=16, step=2)
    assert changed(out, with_arrows).any()


def test_a_flow_is_a_log_density_that_can_be_drawn():
    torch.manual_seed(0)
    grid = distribution_grid(3.0, 51)
    with torch.no_grad():
        log_density = RealNVP(2).log_prob(torch.from_numpy(grid).float().reshape(-1, 2)).reshape(51, 51).numpy()
    out = draw_distribution(log_density, 3.0, 200, title="updated")
    peak = np.array(np.unravel_index(log_density.argmax(), (51, 51))) * 199 // 50
    v, u = np.clip(peak, 2, 197)
    # Viridis ends in yellow: bright red and green channels where the density peaks.
    assert out[v - 2 : v + 3, u - 2 : u + 3].reshape(-1, 3)[:, :2].max() > 200


def test_distribution_outlines_hold_the_stated_mass():
    """A round normal density holds 50 % within sqrt(2 ln 2) and 90 % within sqrt(2 ln 10) sigma."""
    extent, size = 5.0, 501
    grid = distribution_grid(extent)
    out = draw_distribution(-0.5 * (grid**2).sum(-1), extent, size)
    ray = out[size // 2 + 20, size // 2 :].min(-1) > 150  # whitish, beside the ticks of the axes
    unit = (size - 1) / 2 / extent
    found = np.hypot(np.flatnonzero(ray), 20) / unit
    for share in (0.5, 0.9):
        assert np.abs(found - np.sqrt(-2 * np.log(1 - share))).min() < 0.05
    hot = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)
    assert hot[size // 2 + 20, size // 2 + 20] > hot[20, 60]
