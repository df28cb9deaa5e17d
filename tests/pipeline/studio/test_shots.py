"""Shots: visible and hidden joints, masks, and no image cue that separates left from right."""

from dataclasses import replace

import numpy as np
import pytest

from das.camera import project, transform
from das.skeleton import COCO19, MUCO21
from pipeline.studio.annotate import _hidden
from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.config import StudioConfig
from pipeline.studio.geometry import to_world
from pipeline.studio.joints import joint_points
from pipeline.studio.rasterize import View
from pipeline.studio.room import sequence_room
from pipeline.studio.shots import HIDDEN, OUTSIDE, shots_of_take
from pipeline.studio.stage import plan_take
from tests.pipeline.studio.small_renderings import TINY

PARTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


def patch_statistics(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Colour and texture round a pixel: mean and spread of every channel, edge strength, light above and below."""
    x, y = np.round(uv).astype(int)
    patch = picture[y - 4 : y + 5, x - 4 : x + 5].astype(float)
    grey = patch.mean(-1)
    gradients = np.abs(np.diff(grey, axis=0)).mean(), np.abs(np.diff(grey, axis=1)).mean()
    return np.array([*patch.mean((0, 1)), *patch.std((0, 1)), *gradients, grey[:4].mean() - grey[5:].mean()])


@pytest.fixture(scope="module")
def pairs():
    """Statistics at the left and at the right joint of pairs: takes (N,), left (N, F), right (N, F)."""
    config = StudioConfig(width=320, height=180, take_frames=1, supersampling=1, people_min=4)
    sequence = "studio_train_ultimatum1"
    room = sequence_room(config, sequence)
    views = [View(config, room, camera, np.random.default_rng(i))
             for i, camera in enumerate(sequence_cameras(config, sequence))]  # fmt: skip
    takes, left, right = [], [], []
    for number in range(45):
        take = plan_take(config, sequence, number)
        for shot in shots_of_take(config, sequence, number, 1, take, room, views):
            for actor in take.actors:
                joints = to_world(joint_points(actor.person, actor.pose, COCO19)[0])
                pixels = project(transform(joints, shot.camera.R, shot.camera.t), shot.camera.K, shot.camera.distortion)
                for part in PARTS:
                    uv = [pixels[COCO19.index(f"{side}_{part}")] for side in "lr"]
                    if all(((4 <= p) & (p < (315, 175))).all() for p in uv):
                        takes.append(number)
                        left.append(patch_statistics(shot.picture, uv[0]))
                        right.append(patch_statistics(shot.picture, uv[1]))
    return np.array(takes), np.array(left), np.array(right)


def classification_accuracy(takes: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """Share of held-out pairs whose sides a linear classifier of both patches classifies correctly."""
    rng = np.random.default_rng(0)
    swap = rng.random(len(takes)) < 0.5
    one, other = np.where(swap[:, None], right, left), np.where(swap[:, None], left, right)
    features = np.concatenate([one - other, one * one - other * other], 1)
    features /= features.std(0) + 1e-9
    label = np.where(swap, -1.0, 1.0)
    train = takes % 2 == 0
    weights = np.linalg.lstsq(features[train], label[train], rcond=None)[0]
    return float((np.sign(features[~train] @ weights) == label[~train]).mean())


def test_a_linear_classifier_cannot_separate_left_from_right_joints(pairs):
    takes, left, right = pairs
    assert len(takes) > 1200
    # Pairs of one person are not independent: about one in six counts.
    chance = 3 * 0.5 / np.sqrt((takes % 2 == 1).sum() / 6)
    assert abs(classification_accuracy(takes, left, right) - 0.5) < chance
    # The same classifier finds a difference of 0.3 standard deviations in one colour channel.
    marked = left + 0.3 * left.std(0) * np.eye(left.shape[1])[0]
    assert classification_accuracy(takes, marked, right) > 0.5 + chance


def test_layers_change_silhouettes_but_not_joints():
    plain = StudioConfig(width=320, height=180, take_frames=1, supersampling=1, people_min=4, layers=0.0)
    sequence = "studio_train_mafia1"
    room = sequence_room(plain, sequence)
    views = [View(plain, room, sequence_cameras(plain, sequence)[0], np.random.default_rng(0))]
    overlap = []
    for number in range(4):
        looks = []
        for config in (plain, replace(plain, layers=1.0)):
            (shot,) = shots_of_take(config, sequence, number, 1, plan_take(config, sequence, number), room, views)
            looks.append(shot.figures(MUCO21))
        for one, other in zip(*looks, strict=True):
            np.testing.assert_array_equal(one.uv, other.uv)
            overlap.append((one.mask & other.mask).sum() / (one.mask | other.mask).sum())
    assert np.mean(overlap) < 0.93 and min(overlap) > 0.4


def test_hidden_joints_agree_with_rays_through_spheres():
    """Visibility from painted faces agrees with rays that intersect other bodies' spheres."""
    config = replace(TINY, width=192, height=108, take_frames=1, people_min=6)
    sequence = "studio_train_mafia1"
    room = sequence_room(config, sequence)
    (camera, _) = sequence_cameras(config, sequence)
    views = [View(config, room, camera, np.random.default_rng(0))]
    position = to_world(camera.centre)
    painted, hit = [], []
    for number in range(10):
        take = replace(plan_take(config, sequence, number), boxes=[])
        (shot,) = shots_of_take(config, sequence, number, 1, take, room, views)
        for figure, actor in zip(shot.figures(MUCO21), take.actors):
            others = [other for other in take.actors if other is not actor]
            points = joint_points(actor.person, actor.pose, MUCO21)
            behind = _hidden(points, position, others)[0]
            inside = figure.state != OUTSIDE
            painted += (figure.state[inside] == HIDDEN).tolist()
            hit += behind[inside].tolist()
    painted, hit = np.array(painted), np.array(hit)
    assert hit.sum() > 100 and painted[hit].mean() > 0.85  # joints behind other people are hidden
    assert painted[~hit].mean() < 0.35  # other joints are hidden by their own body only
