"""Tracks: identities through crossings and gaps, and smoothing against a dense Gaussian posterior."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das.tracks import Detections, TrackConfig, track

J = 15
CONFIG = TrackConfig()


def person(rng) -> np.ndarray:
    """A pose (J, 3) mm relative to the root, which is joint 0."""
    pose = rng.normal(0, 300, (J, 3))
    pose[0] = 0
    return pose


def video(paths, poses, rng, noise=0.0, fps=30.0, shuffle=True):
    """Frames of people at roots (T, 3) with constant poses, in random order; and who is who, a list of arrays.

    NaN in a path: nobody was predicted there. Noise is a share of the distance along the ray, and 60 mm of joints.
    """
    frames, who = [], []
    for t in range(len(paths[0])):
        here = [n for n in range(len(paths)) if np.isfinite(paths[n][t]).all()]
        order = rng.permutation(here) if shuffle else np.array(here, int)
        root = np.array([paths[n][t] for n in order]).reshape(-1, 3)
        pose = np.array([poses[n] for n in order]).reshape(-1, J, 3)
        root = root * (1 + noise * rng.normal(size=(len(order), 1)))
        pose = pose + 60 * (noise > 0) * rng.normal(size=pose.shape) * (np.arange(J) > 0)[:, None]
        frames.append(Detections.of(t / fps, root, root[:, None] + pose))
        who.append(order)
    return frames, who


def crossing(count=60):
    """Two people who walk past each other, 700 mm apart in depth: their images meet in the middle."""
    x = np.linspace(-1500, 1500, count)
    return [np.stack([x, 0 * x, 0 * x + 4000], 1), np.stack([-x, 0 * x, 0 * x + 4700], 1)]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_people_who_cross_in_the_image_keep_their_identities(seed):
    rng = np.random.default_rng(seed)
    frames, who = video(crossing(), [person(rng), person(rng)], rng, noise=0.02)
    tracks = track(frames)
    assert len(tracks) == 2
    for one in tracks:
        assert one.measured.all() and len(one.frames) == 60
        assert len({int(who[f][p]) for f, p in zip(one.frames, one.person, strict=True)}) == 1


def test_a_gap_is_bridged_and_marked_and_a_longer_one_ends_the_track():
    rng = np.random.default_rng(0)
    path = np.linspace([-1500.0, 0, 4000], [1500, 0, 4000], 90)
    for missing, count in ((20, 1), (45, 2)):
        seen = path.copy()
        seen[30 : 30 + missing] = np.nan
        frames, _ = video([seen], [person(rng)], rng)
        tracks = track(frames)
        assert len(tracks) == count
        if count == 1:
            (one,) = tracks
            assert (one.frames == np.arange(90)).all()
            assert (np.flatnonzero(~one.measured) == np.arange(30, 50)).all()
            assert np.linalg.norm(one.root_cam - path, axis=1).max() < 30
            assert (one.root_sigma[40] > one.root_sigma[10]).all(), "doubt grows where nothing was measured"


def test_a_person_seen_too_shortly_has_no_track():
    rng = np.random.default_rng(0)
    path = np.full((30, 3), np.nan)
    path[10:12] = [0, 0, 4000]
    frames, _ = video([path], [person(rng)], rng)
    assert track(frames) == []
    assert len(track(frames, replace(CONFIG, least_frames=2))) == 1


def test_smoothing_is_the_posterior_of_the_motion_model():
    """All positions and velocities of one scalar are jointly Gaussian: conditioning on the measurements is exact."""
    rng = np.random.default_rng(0)
    count, dt, axis = 12, 1 / 30, 2
    times = np.arange(count) * dt
    walk = np.stack([300 * times, 0 * times, 4000 + 500 * np.sin(2 * times)], 1) + rng.normal(0, 60, (count, 3))
    seen = [t for t in range(count) if t not in (5, 6)]
    pose = person(rng)
    frames = []
    for t in range(count):
        root = walk[[t]] if t in seen else np.zeros((0, 3))
        frames.append(Detections.of(times[t], root, root[:, None] + pose))
    (one,) = track(frames)
    sigma = [frames[t].root_sigma[0, axis] if t in seen else np.nan for t in range(count)]
    a = CONFIG.root_acceleration
    # x_0 has the first measurement's noise, every step adds its own.
    F, G = np.array([[1, dt], [0, 1]]), np.array([dt**2 / 2, dt])
    cov = np.zeros((2 * count, 2 * count))
    cov[:2, :2] = np.diag([sigma[0] ** 2, a**2])
    for t in range(1, count):
        now, past = slice(2 * t, 2 * t + 2), slice(0, 2 * t)
        cov[now, past] = F @ cov[2 * t - 2 : 2 * t, past]
        cov[past, now] = cov[now, past].T
        cov[now, now] = F @ cov[2 * t - 2 : 2 * t, 2 * t - 2 : 2 * t] @ F.T + a**2 * np.outer(G, G)
    mean = walk[0, axis] + np.zeros(2 * count)
    mean[1::2] = 0
    rest = seen[1:]
    H = np.zeros((len(rest), 2 * count))
    H[np.arange(len(rest)), [2 * t for t in rest]] = 1
    S = H @ cov @ H.T + np.diag([sigma[t] ** 2 for t in rest])
    gain = cov @ H.T @ np.linalg.inv(S)
    posterior = mean + gain @ (walk[rest, axis] - H @ mean)
    left = cov - gain @ H @ cov
    np.testing.assert_allclose(one.root_cam[:, axis], posterior[::2], rtol=1e-9)
    np.testing.assert_allclose(one.root_sigma[:, axis], np.sqrt(np.diag(left)[::2]), rtol=1e-6)


def test_smoothing_brings_positions_nearer_to_the_truth_and_calms_them():
    rng = np.random.default_rng(1)
    path = np.linspace([-1000.0, 0, 4000], [1000, 0, 4000], 90)
    frames, _ = video([path], [person(rng)], rng, noise=0.03)
    (one,) = track(frames)
    raw = np.concatenate([frame.root_cam for frame in frames])
    assert np.linalg.norm(one.root_cam - path, axis=1).mean() < 0.6 * np.linalg.norm(raw - path, axis=1).mean()
    jitter = [np.linalg.norm(np.diff(x, n=2, axis=0), axis=1).mean() for x in (raw, one.root_cam)]
    assert jitter[1] < 0.1 * jitter[0]


def test_the_order_of_people_within_frames_changes_nothing():
    rng = np.random.default_rng(2)
    poses = [person(rng), person(rng)]
    frames, _ = video(crossing(), poses, rng, noise=0.02, shuffle=False)
    turned = [
        Detections(f.time, f.root_cam[::-1], f.joints_cam[::-1], f.root_sigma[::-1], f.joint_sigma[::-1])
        for f in frames
    ]
    for one, other in zip(
        sorted(track(frames), key=lambda t: t.root_cam[0, 0]),
        sorted(track(turned), key=lambda t: t.root_cam[0, 0]),
        strict=True,
    ):
        np.testing.assert_array_equal(one.joints_cam, other.joints_cam)


def test_calibrated_doubt_is_the_noise_of_a_measurement():
    root = np.array([[0.0, 0, 4000], [3000, 0, 4000]])
    joints = root[:, None] + np.zeros((2, J, 3))
    found = Detections.of(0, root, joints, np.array([164.5, np.inf]), np.full((2, J), 250.0))
    assert found.root_sigma[0] == pytest.approx([20, 20, 100])
    assert np.linalg.norm(found.root_sigma[1]) == pytest.approx(5000 * np.hypot(0.05, 0.01 * np.sqrt(2)))
    assert found.root_sigma[1] == pytest.approx(
        [5000 * np.hypot(0.05 * 0.6, 0.01 * 0.8), 50, 5000 * np.hypot(0.05 * 0.8, 0.01 * 0.6)]
    )
    assert (found.joint_sigma == 100).all()


def test_times_that_do_not_rise_are_refused():
    frames, _ = video([np.full((4, 3), 4000.0)], [np.zeros((J, 3))], np.random.default_rng(0))
    with pytest.raises(ValueError, match="frame 2 is not later than the one before"):
        track([frames[0], frames[1], replace(frames[2], time=frames[1].time), frames[3]])


def test_a_video_without_people_has_no_tracks():
    nobody = [Detections.of(t, np.zeros((0, 3)), np.zeros((0, J, 3))) for t in range(3)]
    assert track(nobody) == track([]) == []
