"""Meshes of dressed people: mirror symmetry, and agreement with the joints in the image."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from das.skeleton import COCO19
from pipeline.studio.body import body_mesh
from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.geometry import to_world
from pipeline.studio.motion import MotionTargets, solve
from pipeline.studio.outfit import add_layers, sample_outfit
from pipeline.studio.person import sample_person
from pipeline.studio.rasterize import Solid, paint
from tests.pipeline.studio.small_renderings import HD, cv2_pixels


@pytest.mark.parametrize("seed", range(12))
def test_a_symmetric_pose_gives_a_mirror_symmetric_mesh(seed):
    """Shape and colours are mirrored at x = 0, so colours give no cue about the side."""
    rng = np.random.default_rng(seed)
    person = sample_person(rng)
    outfit = sample_outfit(rng, person.female)
    if seed % 2:
        outfit = add_layers(rng, outfit)
    identity = np.eye(3)[None]
    hand, elbow = np.array([[0.3, -0.7, 0.3]]), np.array([[0.5, -0.3, -0.8]])
    ankles = {side: np.array([[s * 12.0, person.ankle_height, 0]]) for side, s in (("l", 1), ("r", -1))}
    pelvis = np.array([[0.0, 0.97 * person.leg + person.ankle_height, 0.0]])
    feet, wrists, elbows = (dict.fromkeys("lr", value) for value in (identity, hand, elbow))
    targets = MotionTargets(ankles, feet, pelvis, identity, identity, identity, wrists, elbows)
    mesh = body_mesh(person, outfit, 12, 1)
    vertices = mesh.pose(solve(person, targets), 0)
    middles = vertices[mesh.faces].mean(1)
    features = np.concatenate([middles, 100 * mesh.colours], -1)
    distance, _ = cKDTree(features).query(features * ([-1, 1, 1] + [1, 1, 1]))
    assert distance.max() < 0.05
    assert np.ptp(mesh.colours, axis=0).max() > 0.1


@pytest.fixture(scope="module")
def silhouettes(takes):
    """Per person and camera: mask, pixels of the 19 joints, at 640x360."""
    config = replace(HD, width=640, height=360)
    found = []
    for take in takes[::5]:
        for camera in sequence_cameras(config, "studio_test_haggling1"):
            for actor in take.actors:
                mesh = body_mesh(actor.person, actor.outfit, 12, 1)
                solid = Solid(mesh.pose(actor.pose, 2), mesh.faces, np.ones((len(mesh.faces), 3)))
                canvas = np.zeros((360, 640, 3), np.uint8)
                paint(canvas, camera, solid, solid.colours)
                world = to_world(np.stack([actor.pose.points[name][2] for name in COCO19.joints]))
                found.append((canvas[..., 0] > 0, cv2_pixels(camera, world)))
    return found


def test_joints_are_inside_the_silhouette(silhouettes):
    inside = []
    for mask, uv in silhouettes:
        places = np.round(uv).astype(int)
        shown = ((places >= 2) & (places < (638, 358))).all(-1)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
        inside += near[places[shown, 1], places[shown, 0]].tolist()
    assert len(inside) > 400 and np.mean(inside) == 1.0


def test_silhouettes_extend_slightly_beyond_the_joints(silhouettes):
    for mask, uv in silhouettes:
        rows, columns = np.nonzero(mask)
        if rows.min() > 0 and rows.max() < 359 and columns.min() > 0 and columns.max() < 639:
            low, high = uv.min(0), uv.max(0)
            size = high[1] - low[1]
            assert -0.02 * size < low[1] - rows.min() < 0.30 * size
            assert -0.02 * size < rows.max() - high[1] < 0.20 * size
