"""Takes: number of people, distances, mirror symmetry of motions, and interactions."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from das.skeleton import COCO19
from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.config import StudioConfig
from pipeline.studio.stage import INTERACTIONS, SEAT_WIDTH, plan_take
from tests.pipeline.studio.small_renderings import HD, VIDEO


def test_people_do_not_intersect(takes):
    """The distance of two people's bones is always larger than a limb's thickness."""
    pairs = [(b, c) for b, c in COCO19.bones if "eye" not in c and "ear" not in c]
    u = np.linspace(0, 1, 9)[:, None]
    closest = np.inf
    for take in takes:
        bodies = []
        for actor in take.actors:
            p = actor.pose.points
            bodies.append(np.concatenate([p[a][:, None] * (1 - u) + p[b][:, None] * u for a, b in pairs], 1))
        for i, one in enumerate(bodies):
            for other in bodies[i + 1 :]:
                for a, b in zip(one, other):
                    closest = min(closest, cKDTree(a).query(b)[0].min())
    assert 8.0 < closest < 40.0  # and takes are dense enough to come near it


def test_takes_vary_in_the_number_of_people_who_stay_on_stage(takes):
    counts = [len(take.actors) for take in takes]
    assert min(counts) >= 1 and max(counts) >= 5 and len(set(counts)) >= 4
    for take in takes:
        for actor in take.actors:
            assert np.abs(actor.pose.points["mid_hip"][:, [0, 2]]).max() < 200
    limited = replace(HD, people_min=2, people_max=3)
    assert {len(plan_take(limited, "studio_test_mafia1", n).actors) for n in range(6)} <= {1, 2, 3}


def test_motions_of_left_and_right_limbs_have_the_same_distribution():
    """In chest axes, the mean positions of left wrists and ankles mirror those of right ones."""
    config = replace(StudioConfig(), take_frames=4)
    asymmetry: dict[str, list[np.ndarray]] = {"wrist": [], "ankle": []}
    for sequence in ("studio_train_haggling1", "studio_train_ultimatum1", "studio_test_pizza1"):
        for number in range(20):
            for actor in plan_take(config, sequence, number).actors:
                p, a = actor.pose.points, actor.pose.axes
                axes = np.stack([a["chest_left"], a["chest_up"], a["chest_forward"]], 1)
                for part, found in asymmetry.items():
                    own = [np.einsum("tij,tj->ti", axes, p[f"{side}_{part}"] - p["neck"]) for side in "lr"]
                    found.append((own[0] - own[1] * (-1, 1, 1)).mean(0))
    for found in asymmetry.values():
        values = np.array(found)
        assert len(values) > 140 and values.std(0).min() > 1  # people are not symmetric
        assert np.abs(values.mean(0) / (values.std(0) / np.sqrt(len(values)))).max() < 3.5


@pytest.fixture(scope="module")
def staged():
    config = replace(VIDEO, interactions=1.0, take_frames=60)
    takes = [plan_take(config, "studio_train_haggling1", n) for n in range(14)]
    return config, takes


def test_interactions_are_tables_benches_and_crossing_paths(staged):
    config, takes = staged
    found = dict.fromkeys(INTERACTIONS, 0)
    for take in takes:
        hips = np.array([actor.pose.points["mid_hip"] for actor in take.actors])  # (N, T, 3)
        if len(hips) < 2:
            continue
        walked = np.linalg.norm(np.diff(hips, axis=1), axis=-1).sum(1)
        if walked.min() > 100:
            found["crossing"] += 1
            continue
        seats = hips[:, 0, 1] / np.array([actor.person.stature for actor in take.actors])
        assert seats.max() < 0.42  # all people sit
        spots = hips[:, 0, ::2]
        if len(take.boxes) == 1:  # one bench under all of them
            found["bench"] += 1
            ahead = np.array([np.sin(take.boxes[0].yaw), np.cos(take.boxes[0].yaw)])
            off = (spots - spots.mean(0)) @ ahead
            gaps = np.diff(np.sort(spots @ (ahead[1], -ahead[0])))
            assert np.abs(off).max() < 6 and gaps.min() > 0.75 * SEAT_WIDTH
        else:  # a table's top and leg, and a stool each
            found["table"] += 1
            assert len(take.boxes) == 2 + len(hips)
            towards = take.boxes[0].centre[::2] - spots
            facing = np.array([actor.pose.axes["pelvis_forward"][0, ::2] for actor in take.actors])
            assert (np.einsum("ni,ni->n", towards, facing) > 0).mean() > 0.8
    assert min(found.values()) >= 2


def test_crossing_people_change_their_order_in_the_picture(staged):
    """In a camera's picture, the order of walkers from left to right changes within two seconds."""
    config, takes = staged
    camera = sequence_cameras(config, "studio_train_haggling1")[0]
    swaps = 0
    for take in takes:
        hips = np.array([actor.pose.points["mid_hip"] for actor in take.actors])
        if len(hips) > 1 and np.linalg.norm(np.diff(hips, axis=1), axis=-1).sum(1).min() > 100:
            world = np.ascontiguousarray((hips * (1, -1, -1)).reshape(-1, 3))
            rotation = cv2.Rodrigues(camera.R)[0]
            uv = cv2.projectPoints(world, rotation, camera.t, camera.K, camera.distortion)[0]
            order = np.argsort(uv.reshape(*hips.shape[:2], 2)[..., 0], axis=0)
            swaps += int((order != order[:, :1]).any())
    assert swaps >= 2
