"""No cheating on the studio: sides look and move alike, rooms are shared, people are not, motion is natural."""

import json
from dataclasses import astuple, replace

import cv2
import numpy as np
import pytest

from das.camera import project, transform
from das.skeleton import COCO19, MUCO21
from pipeline.studio import StudioChunk, StudioConfig, render_chunk
from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.config import SPLITS
from pipeline.studio.geometry import to_world
from pipeline.studio.joints import joint_points
from pipeline.studio.layout import bodies_path
from pipeline.studio.motion import Walk, reach, walk
from pipeline.studio.panoptic_layout import sequence_room
from pipeline.studio.person import draw_person
from pipeline.studio.render import View
from pipeline.studio.shots import shots
from pipeline.studio.stage import INTERACTIONS, SEAT_WIDTH, plan_take

PARTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
RATE = 29.97
VIDEO = StudioConfig(frame_seconds=1 / RATE, take_frames=90, seed=3)


# Left and right


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
        for shot in shots(config, sequence, number, 1, take, room, views):
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


def sides_told_apart(takes: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """Share of held-out pairs whose sides a linear classifier of both patches names rightly."""
    rng = np.random.default_rng(0)
    swap = rng.random(len(takes)) < 0.5
    one, other = np.where(swap[:, None], right, left), np.where(swap[:, None], left, right)
    features = np.concatenate([one - other, one * one - other * other], 1)
    features /= features.std(0) + 1e-9
    label = np.where(swap, -1.0, 1.0)
    train = takes % 2 == 0
    weights = np.linalg.lstsq(features[train], label[train], rcond=None)[0]
    return float((np.sign(features[~train] @ weights) == label[~train]).mean())


def test_colour_and_texture_do_not_tell_left_from_right(pairs):
    takes, left, right = pairs
    assert len(takes) > 1200
    # Pairs of one person are not independent: about one in six counts.
    chance = 3 * 0.5 / np.sqrt((takes % 2 == 1).sum() / 6)
    assert abs(sides_told_apart(takes, left, right) - 0.5) < chance
    # The same classifier would find a mark of one side, were it only a tenth of the colour's spread.
    marked = left + 0.3 * left.std(0) * np.eye(left.shape[1])[0]
    assert sides_told_apart(takes, marked, right) > 0.5 + chance


def test_neither_hand_moves_in_a_way_of_its_own():
    """In the chest's axes, wrists and ankles of one side are on average the mirror image of the other side's."""
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


# Rooms and people


def test_train_and_test_share_their_rooms_but_not_their_people():
    config = StudioConfig(width=64, height=36, supersampling=1)
    rooms = {split: {sequence_room(config, s).floor.tobytes() for s in config.sequences(split)} for split in SPLITS}
    assert rooms["train"] == rooms["test"] == rooms["val"] and len(rooms["test"]) == 3

    def people(split: str) -> set:
        takes = (plan_take(config, s, n) for s in config.sequences(split)[:2] for n in range(5))
        return {astuple(actor.person) for take in takes for actor in take.actors}

    def clothes(split: str) -> set:
        takes = (plan_take(config, s, n) for s in config.sequences(split)[:2] for n in range(5))
        return {actor.outfit.top.tobytes() for take in takes for actor in take.actors}

    assert len(people("train")) > 20 and len(people("test")) > 15
    assert not people("train") & people("test") and not clothes("train") & clothes("test")


def test_every_split_is_seen_from_the_same_places():
    """The calibrations of train and test sequences scatter about the same cameras."""
    config = StudioConfig()
    centres = {split: np.array([[c.centre for c in sequence_cameras(config, s)] for s in config.sequences(split)])
               for split in SPLITS}  # fmt: skip
    for split in ("val", "test"):
        assert np.linalg.norm(centres[split].mean(0) - centres["train"].mean(0), axis=-1).max() < 20
    assert np.linalg.norm(np.ptp(centres["train"], axis=0), axis=-1).min() > 3


# Sequences are sequences


def test_a_take_at_the_cameras_rate_is_a_video(tmp_path):
    config = replace(VIDEO, width=64, height=36, supersampling=1, take_frames=12, train_frames=12, people_min=3)
    sequence = "studio_train_ultimatum1"
    render_chunk(config, StudioChunk(sequence, 0, 12), tmp_path)
    content = [json.loads(bodies_path(tmp_path, sequence, frame).read_text()) for frame in range(12)]
    np.testing.assert_allclose(np.diff([c["univTime"] for c in content]), 1000 / RATE, atol=2e-3)
    ids = [[body["id"] for body in c["bodies"]] for c in content]
    assert all(i == ids[0] for i in ids) and len(ids[0]) >= 2
    joints = np.array([[np.reshape(b["joints19"], (19, 4)) for b in c["bodies"]] for c in content])
    seen = (joints[1:, ..., 3] > 0) & (joints[:-1, ..., 3] > 0)
    step = np.linalg.norm(np.diff(joints[..., :3], axis=0), axis=-1)[seen]
    assert step.max() < 18 and np.median(step) > 0.005  # cm in a thirtieth of a second: nobody jumps or freezes
    # Motion is smooth: the second difference is far smaller than the first.
    trunk = joints[:, :, 0, :3]
    assert np.abs(np.diff(trunk, 2, axis=0)).mean() < 0.5 * np.abs(np.diff(trunk, axis=0)).mean() + 0.02


@pytest.mark.parametrize("seed", range(4))
def test_walking_has_the_speed_and_cadence_of_people(seed):
    """Comfortable indoor walking: 0.6 to 1.5 m/s, 80 to 130 steps a minute, a foot swings at 3 to 4.5 times that."""
    rng = np.random.default_rng(seed)
    person = draw_person(rng)
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


def test_hands_reach_as_fast_as_hands_do():
    """Unhurried reaching peaks at 0.5 to 2.5 m/s, in one smooth bell about 1.5 to 2 times its mean."""
    peaks = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        t = np.arange(0, 8, 1 / RATE)
        p = reach(rng, draw_person(rng), t, np.zeros(2), 0.3).points
        for side in "lr":
            peaks.append(np.linalg.norm(np.diff(p[f"{side}_wrist"], axis=0), axis=-1).max() * RATE / 100)
    assert 0.5 < np.median(peaks) < 2.5 and max(peaks) < 4.5


# Interactions and silhouettes


@pytest.fixture(scope="module")
def staged():
    config = replace(VIDEO, interactions=1.0, take_frames=60)
    takes = [plan_take(config, "studio_train_haggling1", n) for n in range(14)]
    return config, takes


def test_people_sit_round_tables_and_in_rows_and_cross(staged):
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
        assert seats.max() < 0.42  # everybody sits
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


def test_who_crosses_passes_in_front_of_others(staged):
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


def test_layers_change_silhouettes_and_keep_joints_and_places():
    plain = StudioConfig(width=320, height=180, take_frames=1, supersampling=1, people_min=4, layers=0.0)
    sequence = "studio_train_mafia1"
    room = sequence_room(plain, sequence)
    views = [View(plain, room, sequence_cameras(plain, sequence)[0], np.random.default_rng(0))]
    overlap = []
    for number in range(4):
        looks = []
        for config in (plain, replace(plain, layers=1.0)):
            (shot,) = shots(config, sequence, number, 1, plan_take(config, sequence, number), room, views)
            looks.append(shot.figures(MUCO21))
        for one, other in zip(*looks, strict=True):
            np.testing.assert_array_equal(one.uv, other.uv)
            overlap.append((one.mask & other.mask).sum() / (one.mask | other.mask).sum())
    assert np.mean(overlap) < 0.93 and min(overlap) > 0.4


def test_people_of_different_takes_have_different_numbers(tmp_path):
    config = StudioConfig(width=64, height=36, supersampling=1, take_frames=2, train_frames=6)
    render_chunk(config, StudioChunk("studio_train_mafia1", 0, 6), tmp_path)
    numbers = []
    for frame in range(6):
        content = json.loads(bodies_path(tmp_path, "studio_train_mafia1", frame).read_text())
        numbers.append({body["id"] for body in content["bodies"]})
    assert numbers[0] == numbers[1] and numbers[2] == numbers[3]
    assert not numbers[0] & numbers[2] and not numbers[2] & numbers[4]


def test_the_lens_bends_as_much_as_the_recorded_one():
    """Undistorting moves a corner of the recorded 00_16 by 159 pixels, of 00_30 by 173."""
    corners = np.array([[0, 0], [1919, 0], [0, 1079], [1919, 1079]], float)[:, None]
    moved = [
        np.linalg.norm(cv2.undistortPoints(corners, c.K, c.distortion, P=c.K) - corners, axis=-1).mean()
        for sequence in StudioConfig().train_sequences
        for c in sequence_cameras(StudioConfig(), sequence)
    ]
    assert 150 < np.median(moved) < 180 and 120 < min(moved) and max(moved) < 210
