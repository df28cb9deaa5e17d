"""People, boxes and ignored areas change the pixels they should and no others."""

import numpy as np

from das.draw.people import draw_boxes, draw_ignored, draw_people, person_color, side_color
from tests.das.draw.drawings import STICK, changed, grey_image, near_segments


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


def test_without_people_the_image_is_unchanged():
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


def test_boxes_are_outlines_and_the_first_is_drawn_on_top():
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


def test_the_first_person_is_drawn_on_top():
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
