"""The studio: layout, determinism, and that pictures, joints, cameras and people agree with each other."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from das.skeleton import COCO19
from pipeline.data.sources import synthetic
from pipeline.data.sources.base import DroppedFrame
from pipeline.studio import StudioChunk, StudioConfig, plan, render, render_chunk, write_calibration
from pipeline.studio.body import dress
from pipeline.studio.cameras import StudioCamera, sequence_cameras
from pipeline.studio.config import sequence_activity, sequence_names, sequence_split
from pipeline.studio.geometry import to_world
from pipeline.studio.layout import bodies_path, calibration_path, image_path
from pipeline.studio.motion import ELBOW_LIMIT, KNEE_LIMIT, Aim, Walk, reach, sit, solve, stand, walk
from pipeline.studio.outfit import add_layers, draw_outfit
from pipeline.studio.person import draw_person
from pipeline.studio.render import Solid, paint, shade
from pipeline.studio.room import floor_points, pixel_rays
from pipeline.studio.stage import plan_take

SMALL = StudioConfig(width=160, height=90, take_frames=3, shard_frames=3, train_frames=6, val_frames=3, test_frames=3,
                     train_sequences=("studio_train_mafia1",), val_sequences=("studio_val_ultimatum1",),
                     test_sequences=("studio_test_pizza1",))  # fmt: skip
HD = StudioConfig(seed=4)
BONES = [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def cv2_pixels(camera: StudioCamera, world: np.ndarray) -> np.ndarray:
    rotation = cv2.Rodrigues(camera.R)[0]
    points = np.ascontiguousarray(world.reshape(-1, 3))
    return cv2.projectPoints(points, rotation, camera.t, camera.K, camera.distortion)[0].reshape(*world.shape[:-1], 2)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("studio")
    pictures = render(SMALL, root, workers=2)
    assert pictures == 2 * (6 + 3 + 3)
    return root


@pytest.fixture(scope="module")
def takes():
    names = [f"studio_test_{activity}1" for activity in ("haggling", "mafia", "ultimatum", "pizza")]
    return [plan_take(HD, name, number) for name in names for number in range(6)]


# Files


def test_the_layout_has_one_picture_per_camera_and_frame_and_nothing_else_but_the_terms(rendered):
    wanted = {rendered / "terms.txt"}
    for sequence, frames in (("studio_train_mafia1", 6), ("studio_val_ultimatum1", 3), ("studio_test_pizza1", 3)):
        wanted.add(calibration_path(rendered, sequence))
        for frame in range(frames):
            wanted.add(bodies_path(rendered, sequence, frame))
            wanted |= {image_path(rendered, sequence, camera, frame) for camera in ("00_16", "00_30")}
    assert {path for path in rendered.rglob("*") if path.is_file()} == wanted
    for path in wanted:
        if path.suffix == ".jpg":
            assert cv2.imread(str(path)).shape == (90, 160, 3)


def test_keys_and_shapes_are_those_of_a_recorded_sequence(rendered, das_data):
    recorded = das_data / "panoptic" / "160906_band1"
    ours = rendered / "studio_train_mafia1"

    def calibration(folder: Path) -> dict:
        return json.loads((folder / f"calibration_{folder.name}.json").read_text())

    def shape(camera: dict) -> dict:
        return {key: np.shape(value) for key, value in camera.items()}

    real = {camera["name"]: camera for camera in calibration(recorded)["cameras"]}
    assert calibration(ours).keys() == calibration(recorded).keys()
    for camera in calibration(ours)["cameras"]:
        assert shape(camera) == shape(real[camera["name"]])
        for key in ("name", "type", "panel", "node"):
            assert camera[key] == real[camera["name"]][key]

    def first_bodies(folder: Path) -> dict:
        return json.loads(min((folder / "hdPose3d_stage1_coco19").iterdir()).read_text())

    a, b = first_bodies(ours), first_bodies(recorded)
    assert a.keys() == b.keys() and a["version"] == b["version"] and a["fpsType"] == b["fpsType"]
    assert a["bodies"][0].keys() == b["bodies"][0].keys()
    assert len(a["bodies"][0]["joints19"]) == len(b["bodies"][0]["joints19"])


def test_bytes_do_not_depend_on_how_the_work_is_shared(rendered, tmp_path):
    in_one = replace(SMALL, shard_frames=6)
    assert len(plan(in_one)) == 3 and len(plan(SMALL)) == 4
    assert render(in_one, tmp_path, workers=1) == 24
    assert contents(tmp_path) == contents(rendered)


def test_another_seed_changes_people_and_pictures(rendered, tmp_path):
    other = replace(SMALL, seed=1)
    render_chunk(other, StudioChunk("studio_val_ultimatum1", 0, 1), tmp_path)
    ours, theirs = contents(rendered), contents(tmp_path)
    assert len(theirs) == 4 and all(ours[name] != content for name, content in theirs.items())


def test_shards_cover_every_frame_once():
    config = StudioConfig(train_frames=103, val_frames=7, test_frames=96, take_frames=5, shard_frames=32)
    covered: dict[str, list[int]] = {}
    for shard in plan(config):
        assert shard.first % config.take_frames == 0
        covered.setdefault(shard.sequence, []).extend(range(shard.first, shard.first + shard.count))
    assert {name: len(frames) for name, frames in covered.items()} == {
        name: config.frames(name) for split in ("train", "val", "test") for name in config.sequences(split)
    }
    assert all(frames == list(range(len(frames))) for frames in covered.values())


def test_a_shard_must_start_with_a_take(tmp_path):
    with pytest.raises(ValueError, match="take_frames 3, found 1"):
        render_chunk(SMALL, StudioChunk("studio_train_mafia1", 1, 2), tmp_path)
    assert not any(tmp_path.iterdir())


# Splits


def test_splits_share_no_sequence_and_pizza_is_in_test_alone():
    names = {split: set(sequence_names(split)) for split in ("train", "val", "test")}
    assert not (names["train"] & names["val"] or names["train"] & names["test"] or names["val"] & names["test"])
    config = StudioConfig()
    for split, allowed in names.items():
        chosen = config.sequences(split)
        assert set(chosen) <= allowed
        activities = {sequence_activity(name) for name in chosen}
        assert activities == {"haggling", "mafia", "ultimatum"} | ({"pizza"} if split == "test" else set())
        assert all(sequence_split(name) == split for name in chosen)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train_sequences", ("studio_train_pizza1",)),
        ("train_sequences", ("studio_test_mafia1",)),
        ("val_sequences", ("160224_mafia2",)),
        ("height", 200),
        ("people_max", 9),
        ("frame_seconds", 0.0),
        ("take_frames", 0),
        ("jpeg_quality", 0),
        ("seed", -1),
        ("interactions", 1.1),
        ("layers", -0.1),
    ],
)
def test_the_config_refuses_nonsense_and_names_it(field, value):
    wanted = "pizza in test alone|belongs to|wanted studio_|height|people_max|frame_seconds|take_frames|jpeg|seed"
    wanted += "|interactions|layers"
    with pytest.raises(ValueError, match=wanted):
        replace(StudioConfig(), **{field: value})


def test_the_panoptic_reader_takes_the_files_as_they_are(rendered):
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        records = [r for chunk in synthetic.chunks(rendered, split) for r in synthetic.records(chunk)]
        assert len(records) == count and not any(isinstance(r, DroppedFrame) for r in records)
        assert {r.split for r in records} == {split} and {r.camera for r in records} == {"00_16", "00_30"}
    (camera,) = [c for c in sequence_cameras(SMALL, "studio_test_pizza1") if c.name == records[0].camera]
    bodies = json.loads(bodies_path(rendered, "studio_test_pizza1", records[0].frame).read_text())["bodies"]
    for i, body in enumerate(bodies):
        joints = np.array(body["joints19"]).reshape(19, 4)
        seen = records[0].state[i] > 0
        uv = cv2_pixels(camera, joints[:, :3])
        np.testing.assert_allclose(records[0].joints_uv[i][seen], uv[seen], atol=1e-3)


# Cameras


def test_calibration_scales_with_the_picture(tmp_path):
    big, small = (sequence_cameras(replace(HD, width=w, height=h), "studio_train_mafia1")[0]
                  for w, h in ((1920, 1080), (320, 180)))  # fmt: skip
    np.testing.assert_array_equal(big.distortion, small.distortion)
    # Pixel (0, 0) is the centre of the first pixel at both sizes.
    corner = np.array([[-150.0, -20.0, 60.0]])
    np.testing.assert_allclose((cv2_pixels(big, corner) + 0.5) / 6, cv2_pixels(small, corner) + 0.5, atol=1e-3)
    path = write_calibration(HD, "studio_train_mafia1", tmp_path)
    written = json.loads(path.read_text())["cameras"][0]
    np.testing.assert_array_equal(written["K"], big.K)
    np.testing.assert_array_equal(np.ravel(written["t"]), big.t)


def test_cameras_stand_like_panoptics_and_look_at_the_stage():
    for sequence in HD.train_sequences:
        for camera in sequence_cameras(HD, sequence):
            np.testing.assert_allclose(camera.R @ camera.R.T, np.eye(3), atol=1e-8)
            assert np.linalg.det(camera.R) > 0
            x, y, z = camera.centre
            assert 300 < np.hypot(x, z) < 400 and -220 < y < -100  # y points down
            uv = cv2_pixels(camera, np.array([[0.0, -90.0, 0.0]]))[0]
            assert np.linalg.norm(uv - (960, 540)) < 150
            above = cv2_pixels(camera, np.array([[0.0, -120.0, 0.0]]))[0]
            assert above[1] < uv[1]


def test_a_straight_edge_is_painted_bent_as_opencv_bends_it():
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


def test_the_floor_is_seen_where_the_calibration_puts_it():
    for camera in sequence_cameras(replace(HD, width=320, height=180), "studio_train_mafia1"):
        ground = floor_points(camera, pixel_rays(camera, 320, 180))
        v, u = np.mgrid[100:180:8, 4:320:8]
        world = to_world(np.stack([ground[v, u, 0], np.zeros(v.shape), ground[v, u, 1]], -1).astype(float))
        assert np.abs(cv2_pixels(camera, world) - np.stack([u, v], -1)).max() < 0.15


# Bodies and motion


def motions(seed: int, seconds: np.ndarray):
    rng = np.random.default_rng(seed)
    person = draw_person(rng)
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
            # A knee lies in front of the line from hip to ankle: the shank bends backwards, never forwards.
            toes = p[f"{side}_toe"] - p[f"{side}_heel"]
            middle = 0.5 * (p[f"{side}_hip"] + p[f"{side}_ankle"])
            ahead = ((p[f"{side}_knee"] - middle) * (toes / person.foot + a["pelvis_forward"])).sum(-1)
            assert ahead.min() > -1.0
            # Shoulders, hips, eyes and ears sit rigidly on their bones.
            for one, other in ((f"{side}_eye", "nose"), (f"{side}_ear", "nose"), (f"{side}_hip", "mid_hip"),
                               (f"{side}_shoulder", "neck")):  # fmt: skip
                assert np.ptp(np.linalg.norm(p[one] - p[other], axis=-1)) < 1e-6
        np.testing.assert_allclose(p["mid_hip"], 0.5 * (p["l_hip"] + p["r_hip"]), atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_feet_stand_on_the_floor_and_nothing_jumps(seed):
    seconds = np.arange(0, 6, 1 / 29.97)
    person, poses = motions(seed, seconds)
    for pose in poses:
        feet = np.stack([pose.points[f"{side}_{end}"][:, 1] for side in "lr" for end in ("heel", "toe")])
        assert feet.min() > 0.5 and feet.min(0).max() < 4.0  # cm: heel and toe are inside the shoe
        for name, track in pose.points.items():
            speed = np.linalg.norm(np.diff(track, axis=0), axis=-1).max() * 29.97
            assert speed < 700, (name, speed)  # cm/s: a fast hand
    # Whoever walks, walks: the pelvis moves, and a foot in its stance does not.
    walker = poses[-1].points
    assert np.linalg.norm(np.diff(walker["mid_hip"], axis=0), axis=-1).sum() > 350
    slowest = np.minimum(*(np.linalg.norm(np.diff(walker[f"{s}_toe"], axis=0), axis=-1) for s in "lr"))
    assert np.median(slowest) * 29.97 < 6


def test_nobody_stands_inside_anybody_else(takes):
    """Bones of two people stay further apart than limbs are thick."""
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
    assert 8.0 < closest < 40.0  # and they do come near


def test_takes_vary_in_number_and_stay_on_stage(takes):
    counts = [len(take.actors) for take in takes]
    assert min(counts) >= 1 and max(counts) >= 5 and len(set(counts)) >= 4
    for take in takes:
        for actor in take.actors:
            assert np.abs(actor.pose.points["mid_hip"][:, [0, 2]]).max() < 200
    limited = replace(HD, people_min=2, people_max=3)
    assert {len(plan_take(limited, "studio_test_mafia1", n).actors) for n in range(6)} <= {1, 2, 3}


def test_measures_are_human():
    people = [draw_person(np.random.default_rng(seed)) for seed in range(300)]
    statures = np.array([p.stature for p in people])
    assert 160 < statures.mean() < 178 and 5 < statures.std() < 14
    for p in people:
        t = np.zeros(1)
        pose = stand(np.random.default_rng(0), p, t, np.zeros(2), 0.0, ("hang",)).points
        crown = pose["head"][0, 1] + p.head
        assert 0.93 < crown / p.stature < 1.05, (crown, p.stature)
        assert 0.47 < pose["mid_hip"][0, 1] / p.stature < 0.59


# Appearance


@pytest.mark.parametrize("seed", range(12))
def test_left_and_right_look_the_same(seed):
    """Whoever stands in a symmetric pose is a mirror image of himself: colours say nothing about the side."""
    rng = np.random.default_rng(seed)
    person = draw_person(rng)
    outfit = draw_outfit(rng, person.female)
    if seed % 2:
        outfit = add_layers(rng, outfit)
    eye = np.eye(3)[None]
    hand, elbow = np.array([[0.3, -0.7, 0.3]]), np.array([[0.5, -0.3, -0.8]])
    ankles = {side: np.array([[s * 12.0, person.ankle_height, 0]]) for side, s in (("l", 1), ("r", -1))}
    pelvis = np.array([[0.0, 0.97 * person.leg + person.ankle_height, 0.0]])
    aim = Aim(ankles, {"l": eye, "r": eye}, pelvis, eye, eye, eye, {"l": hand, "r": hand}, {"l": elbow, "r": elbow})
    mesh = dress(person, outfit, 12, 1)
    vertices = mesh.pose(solve(person, aim), 0)
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
                mesh = dress(actor.person, actor.outfit, 12, 1)
                solid = Solid(mesh.pose(actor.pose, 2), mesh.faces, np.ones((len(mesh.faces), 3)))
                canvas = np.zeros((360, 640, 3), np.uint8)
                paint(canvas, camera, solid, solid.colours)
                world = to_world(np.stack([actor.pose.points[name][2] for name in COCO19.joints]))
                found.append((canvas[..., 0] > 0, cv2_pixels(camera, world)))
    return found


def test_joints_lie_on_the_people_in_the_picture(silhouettes):
    inside = []
    for mask, uv in silhouettes:
        places = np.round(uv).astype(int)
        shown = ((places >= 2) & (places < (638, 358))).all(-1)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
        inside += near[places[shown, 1], places[shown, 0]].tolist()
    assert len(inside) > 400 and np.mean(inside) == 1.0


def test_a_person_is_as_big_as_the_joints_say(silhouettes):
    for mask, uv in silhouettes:
        rows, columns = np.nonzero(mask)
        if rows.min() > 0 and rows.max() < 359 and columns.min() > 0 and columns.max() < 639:
            low, high = uv.min(0), uv.max(0)
            size = high[1] - low[1]
            assert -0.02 * size < low[1] - rows.min() < 0.30 * size
            assert -0.02 * size < rows.max() - high[1] < 0.20 * size


def test_people_are_in_the_rendered_pictures(tmp_path):
    """Where the joints are, the picture differs from one of the empty room, and shading gives it edges."""
    config = replace(SMALL, width=320, height=180)
    sequence = "studio_train_mafia1"
    render_chunk(config, StudioChunk(sequence, 0, 6), tmp_path)
    for camera in sequence_cameras(config, sequence):
        first, later = (cv2.imread(str(image_path(tmp_path, sequence, camera.name, f))).astype(float) for f in (0, 3))
        bodies = json.loads(bodies_path(tmp_path, sequence, 0).read_text())["bodies"]
        changed = np.abs(first - later).max(-1) > 30  # other people stand elsewhere three frames on
        joints = np.concatenate([np.array(b["joints19"]).reshape(19, 4)[[0, 2, 3, 9], :3] for b in bodies])
        uv = np.round(cv2_pixels(camera, joints)).astype(int)
        uv = uv[((uv >= 1) & (uv < (319, 179))).all(-1)]
        near = cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8))
        assert near[uv[:, 1], uv[:, 0]].mean() > 0.7
        assert changed.mean() < 0.6


def test_shading_tells_the_lit_side_from_the_other():
    faces = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    square = Solid(np.array([[0.0, 50, 0], [0, 50, 10], [10, 50, 10], [10, 50, 0]]), faces, np.ones((2, 3)))
    down, up = shade(square, np.array([0.0, 1.0, 0.0]))
    assert up.min() > 1.5 * down.max()


# Annotation


def test_some_joints_are_missing_and_confidences_vary_as_in_recordings(tmp_path):
    config = replace(SMALL, width=64, height=36, test_frames=60, take_frames=4, shard_frames=60, supersampling=1)
    render_chunk(config, StudioChunk("studio_test_pizza1", 0, 60), tmp_path)
    files = sorted((tmp_path / "studio_test_pizza1" / "hdPose3d_stage1_coco19").iterdir())
    bodies = [body for path in files for body in json.loads(path.read_text())["bodies"]]
    joints = np.array([body["joints19"] for body in bodies]).reshape(-1, 19, 4)
    c = joints[..., 3]
    missing = c == -1
    assert 0.001 < missing.mean() < 0.06
    assert (joints[missing][:, :3] == 0).all(-1).mean() > 0.6
    assert not missing[:, 2].any()  # the root
    assert c.max() <= 0.72 and c[~missing].min() > 0 and c[~missing].std() > 0.05
    heights = -joints[~missing][:, 1]
    assert 0 < np.quantile(heights, 0.02) < 15 and 120 < np.quantile(heights, 0.98) < 195
