"""Motions: bone lengths, joint limits, feet on the floor, and speeds measured on people."""

import numpy as np
import pytest

from pipeline.studio.motion import ELBOW_LIMIT, KNEE_LIMIT, Walk, reach, sit, stand, walk
from pipeline.studio.person import sample_person
from tests.pipeline.studio.small_renderings import RATE

BONES = [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]


def motions(seed: int, seconds: np.ndarray):
    rng = np.random.default_rng(seed)
    person = sample_person(rng)
    spot = np.array([20.0, -30.0])
    path = Walk(spot, (110.0, 70.0), 0.4, rng.choice([-1.0, 1.0]), 0.3)
    poses = [
        stand(rng, person, seconds, spot, 0.7),
        reach(rng, person, seconds, spot, -2.0),
        sit(rng, person, seconds, spot, 2.0, 0.25 * person.stature, table=False),
        walk(rng, person, seconds, path),
    ]
    return person, poses


@pytest.mark.parametrize("seed", range(8))
def test_bones_keep_their_length_and_joints_their_limits(seed):
    person, poses = motions(seed, np.linspace(0, 12, 97))
    lengths = {"elbow": person.upper_arm, "wrist": person.forearm, "knee": person.thigh, "ankle": person.shank}
    for pose in poses:
        p, a = pose.points, pose.axes
        for side in "lr":
            for upper, lower in BONES:
                bone = np.linalg.norm(p[f"{side}_{lower}"] - p[f"{side}_{upper}"], axis=-1)
                np.testing.assert_allclose(bone, lengths[lower], atol=1e-6)
            thigh, shank = p[f"{side}_knee"] - p[f"{side}_hip"], p[f"{side}_ankle"] - p[f"{side}_knee"]
            upper, fore = p[f"{side}_elbow"] - p[f"{side}_shoulder"], p[f"{side}_wrist"] - p[f"{side}_elbow"]
            for first, second, limit in ((thigh, shank, KNEE_LIMIT), (upper, fore, ELBOW_LIMIT)):
                cosine = (first * second).sum(-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
                assert np.arccos(cosine.clip(-1, 1)).max() <= limit + 1e-6
            # The knee is in front of the line from hip to ankle: it bends in the anatomical direction only.
            toes = p[f"{side}_toe"] - p[f"{side}_heel"]
            middle = 0.5 * (p[f"{side}_hip"] + p[f"{side}_ankle"])
            ahead = ((p[f"{side}_knee"] - middle) * (toes / person.foot + a["pelvis_forward"])).sum(-1)
            assert ahead.min() > -1.0
            # Shoulders, hips, eyes and ears have constant distances within their bone.
            for one, other in ((f"{side}_eye", "nose"), (f"{side}_ear", "nose"), (f"{side}_hip", "mid_hip"),
                               (f"{side}_shoulder", "neck")):  # fmt: skip
                assert np.ptp(np.linalg.norm(p[one] - p[other], axis=-1)) < 1e-6
        np.testing.assert_allclose(p["mid_hip"], 0.5 * (p["l_hip"] + p["r_hip"]), atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_feet_are_on_the_floor_and_no_joint_jumps(seed):
    seconds = np.arange(0, 6, 1 / 29.97)
    person, poses = motions(seed, seconds)
    for pose in poses:
        feet = np.stack([pose.points[f"{side}_{end}"][:, 1] for side in "lr" for end in ("heel", "toe")])
        assert feet.min() > 0.5 and feet.min(0).max() < 4.0  # cm: heel and toe are inside the shoe
        for name, track in pose.points.items():
            speed = np.linalg.norm(np.diff(track, axis=0), axis=-1).max() * 29.97
            assert speed < 700, (name, speed)  # cm/s, a fast hand
    # Of a walker, the pelvis moves and the foot on the floor does not.
    walker = poses[-1].points
    assert np.linalg.norm(np.diff(walker["mid_hip"], axis=0), axis=-1).sum() > 350
    slowest = np.minimum(*(np.linalg.norm(np.diff(walker[f"{s}_toe"], axis=0), axis=-1) for s in "lr"))
    assert np.median(slowest) * 29.97 < 6


@pytest.mark.parametrize("seed", range(4))
def test_walking_has_a_human_speed_and_cadence(seed):
    """Comfortable indoor walking: 0.6 to 1.5 m/s, 80 to 130 steps a minute, a foot swings at 3 to 4.5 times that."""
    rng = np.random.default_rng(seed)
    person = sample_person(rng)
    t = np.arange(0, 12, 1 / RATE)
    p = walk(rng, person, t, Walk(np.zeros(2), (400.0, 380.0), 0.4, 1.0, 0.1)).points

    def speed(name: str) -> np.ndarray:
        return np.linalg.norm(np.diff(p[name], axis=0), axis=-1) * RATE / 100

    pace = float(np.median(speed("mid_hip")))
    assert 0.6 < pace < 1.5
    lifted = (p["l_ankle"][:, 1] > p["l_ankle"][:, 1].min() + 4).astype(int)
    steps = 2 * (np.diff(lifted) == 1).sum() / t[-1] * 60
    assert 75 < steps < 135
    assert 2.4 * pace < np.quantile(speed("l_ankle"), 0.99) < 4.5 * pace
    # A natural gait: step length 0.35 to 0.5 of the stature at such speeds.
    assert 0.28 < pace * 60 / steps / (person.stature / 100) < 0.55


def test_reaching_hands_have_human_speeds():
    """Reaching without haste peaks at 0.5 to 2.5 m/s, in one smooth bell about 1.5 to 2 times its mean."""
    peaks = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        t = np.arange(0, 8, 1 / RATE)
        p = reach(rng, sample_person(rng), t, np.zeros(2), 0.3).points
        for side in "lr":
            peaks.append(np.linalg.norm(np.diff(p[f"{side}_wrist"], axis=0), axis=-1).max() * RATE / 100)
    assert 0.5 < np.median(peaks) < 2.5 and max(peaks) < 4.5
