"""Painted quads and their shading."""

import numpy as np

from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.geometry import to_world
from pipeline.studio.rasterize import Solid, paint, shade
from tests.pipeline.studio.small_renderings import HD, cv2_pixels


def test_a_straight_edge_is_painted_with_opencvs_distortion():
    camera = sequence_cameras(HD, "studio_train_mafia1")[0]
    ends = np.array([[-2.6, -1.15, 4.0], [2.6, -1.15, 4.0]]) * 100  # camera frame: near the upper edge
    line = ends[0] + np.linspace(0, 1, 400)[:, None] * (ends[1] - ends[0])
    stage = to_world((line - camera.t) @ camera.R)
    down = to_world(camera.R[1] * 4.0)  # a ribbon 4 cm high
    vertices = np.concatenate([stage, stage + down])
    i = np.arange(399)
    faces = np.stack([i, i + 1, i + 401, i + 400], -1)
    canvas = np.zeros((1080, 1920, 3), np.uint8)
    solid = Solid(vertices, faces, np.ones((399, 3)))
    paint(canvas, camera, solid, solid.colours)
    top = cv2_pixels(camera, to_world(stage))
    bottom = cv2_pixels(camera, to_world(stage + down))
    columns = np.flatnonzero(canvas[..., 0].any(0))
    assert len(columns) > 1200
    inner = columns[10:-10]
    painted = np.array([np.flatnonzero(canvas[:, c, 0])[[0, -1]].mean() for c in inner])
    wanted = 0.5 * (np.interp(inner, top[:, 0], top[:, 1]) + np.interp(inner, bottom[:, 0], bottom[:, 1]))
    assert np.abs(painted - wanted).max() < 1.2
    chord = np.interp(inner, inner[[0, -1]], painted[[0, -1]])
    assert np.abs(painted - chord).max() > 15


def test_the_lit_side_is_brighter_than_the_other():
    faces = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    square = Solid(np.array([[0.0, 50, 0], [0, 50, 10], [10, 50, 10], [10, 50, 0]]), faces, np.ones((2, 3)))
    down, up = shade(square, np.array([0.0, 1.0, 0.0]))
    assert up.min() > 1.5 * down.max()
