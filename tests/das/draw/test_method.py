"""Pictures of the assignment, of maps, of offsets and of a flow's density."""

import cv2
import numpy as np
import torch

from das.assign import assign
from das.config import small
from das.draw.method import distribution_grid, draw_assignment, draw_distribution, draw_map, draw_offsets
from das.draw.people import person_color
from das.flow import RealNVP
from das.sample import Sample, collate
from tests.das.draw.drawings import changed, grey_image, near_segments


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
    """The positives of das.assign, picked for one image, are around that person's root."""
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


def test_an_arrow_starts_at_its_feature_point_and_is_as_long_as_its_offset():
    image = grey_image(64, 64)
    offsets = np.zeros((2, 4, 4))
    offsets[0] = 20
    arrows = changed(draw_offsets(image, offsets, stride=16, step=100), draw_offsets(image, offsets, stride=16, step=2))
    # Cells 1 and 3 of both axes, whose middles are at 16 x 1 + 8 and 16 x 3 + 8.
    lines = [[(u, v), (u + 20, v)] for u in (24, 56) for v in (24, 56)]
    assert arrows[near_segments((64, 64), lines, 0.1)].all()
    assert not arrows[~near_segments((64, 64), lines, 6)].any()


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
