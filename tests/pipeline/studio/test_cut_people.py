"""People cut by the border of the picture: how many there are in each split, their labels, and their pixels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from das.skeleton import COCO19
from das.transforms import inside
from pipeline.data.record import UNLABELLED
from pipeline.data.sources import synthetic
from pipeline.data.sources.panoptic import people_in
from pipeline.data.sources.panoptic_files import PanopticCamera
from pipeline.studio.annotate import annotate
from pipeline.studio.cameras import StudioCamera, sequence_cameras
from pipeline.studio.config import SPLITS, StudioConfig
from pipeline.studio.layouts import render_layout
from pipeline.studio.panoptic_layout import bodies_path
from pipeline.studio.rasterize import View
from pipeline.studio.room import sequence_room
from pipeline.studio.shots import OUTSIDE, shots_of_take
from pipeline.studio.stage import plan_take
from tests.pipeline.studio.small_renderings import SMALL, cv2_pixels, read_all

FEW_TAKES = StudioConfig(width=320, height=180, take_frames=2)
ROOT = COCO19.index("mid_hip")


def as_panoptic(camera: StudioCamera) -> PanopticCamera:
    return PanopticCamera(camera.K, camera.distortion, camera.R, 10 * camera.t, (camera.height, camera.width))


def people_by_camera(config: StudioConfig, sequence: str, takes: int) -> dict[str, list]:
    """All annotated people of the first takes as each camera sees them: camera -> people."""
    bodies = []
    for number in range(takes):
        t = np.arange(config.take_frames) * config.frame_seconds
        for person in annotate(plan_take(config, sequence, number).actors, t, config.rng(sequence, number, 1)):
            bodies += [(0, 10 * joints[:, :3], joints[:, 3]) for joints in person]  # cm to mm
    return {c.name: people_in(as_panoptic(c), bodies) for c in sequence_cameras(config, sequence)}


def outside(person, config: StudioConfig) -> np.ndarray:
    """(J,) bool: labelled joints outside the picture."""
    return (person.state > UNLABELLED) & ~inside(person.joints_uv, config.height, config.width)


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_has_people_cut_by_the_border_and_roots_outside(split):
    valid = [
        person
        for sequence in FEW_TAKES.sequences(split)
        for people in people_by_camera(FEW_TAKES, sequence, 12).values()
        for person in people
        if person.valid
    ]
    out = np.array([outside(person, FEW_TAKES) for person in valid])
    labelled = np.array([person.state > UNLABELLED for person in valid])
    uv = np.array([person.joints_uv for person in valid])
    cut = out.sum(1) >= 0.2 * labelled.sum(1)
    below = cut & (out & (uv[..., 1] > FEW_TAKES.height - 0.5)).any(1)
    beside = cut & (out & ((uv[..., 0] < -0.5) | (uv[..., 0] > FEW_TAKES.width - 0.5))).any(1)
    assert len(valid) > 400
    assert 0.05 < cut.mean() < 0.15
    assert 0.02 < out[:, ROOT].mean() < 0.08
    assert below.mean() > 0.02 and beside.mean() > 0.02


def test_cameras_of_other_activities_cut_feet_at_most():
    """In sequences of other activities than ultimatum all people are seen down to the knees: most people are whole."""
    trunk = [COCO19.index(name) for name in ("neck", "mid_hip", "l_shoulder", "r_shoulder", "l_knee", "r_knee")]
    for sequence in ("studio_train_haggling1", "studio_val_mafia1", "studio_test_pizza1"):
        for people in people_by_camera(FEW_TAKES, sequence, 6).values():
            assert np.mean([outside(person, FEW_TAKES)[trunk].any() for person in people]) < 0.02


@pytest.fixture(scope="module")
def ultimatum(tmp_path_factory) -> tuple[StudioConfig, Path]:
    """A rendered test sequence of ultimatum, in which both cameras cut people."""
    config = replace(SMALL, train_sequences=(), val_sequences=(), test_sequences=("studio_test_ultimatum1",),
                     take_frames=1, test_frames=12, chunk_frames=12, supersampling=1)  # fmt: skip
    root = tmp_path_factory.mktemp("ultimatum")
    assert render_layout(config, root, workers=1) == 24
    return config, root


def test_labels_of_cut_people_are_projections_also_outside_the_picture(ultimatum):
    config, root = ultimatum
    cameras = {camera.name: camera for camera in sequence_cameras(config, "studio_test_ultimatum1")}
    records = read_all(synthetic, root, "test")
    roots = dict.fromkeys(cameras, 0)
    for record in records:
        bodies = json.loads(bodies_path(root, record.sequence, record.frame).read_text())["bodies"]
        world = np.array([body["joints19"] for body in bodies]).reshape(-1, 19, 4)[..., :3]
        labelled = record.state > UNLABELLED
        uv = cv2_pixels(cameras[record.camera], world)
        np.testing.assert_allclose(record.joints_uv[labelled], uv[labelled], atol=1e-3)
        out = labelled & ~inside(record.joints_uv, config.height, config.width)
        cut = record.valid & out[:, ROOT]
        roots[record.camera] += int(cut.sum())
        # The box is that of the labelled joints, cut by the picture: the root is not in it.
        assert (record.bbox[cut] >= 0).all() and (record.bbox[cut] <= (config.width - 1, config.height - 1) * 2).all()
        u, v = record.joints_uv[cut, ROOT].T
        x0, y0, x1, y1 = record.bbox[cut].T
        assert not ((u >= x0) & (u <= x1) & (v >= y0) & (v <= y1)).any()
    assert min(roots.values()) >= 2, "both cameras have people whose root is outside the picture"


def test_pictures_show_the_part_of_a_cut_person_that_is_inside(ultimatum):
    config, _ = ultimatum
    sequence = "studio_test_ultimatum1"
    room = sequence_room(config, sequence)
    views = [View(config, room, camera, np.random.default_rng(i))
             for i, camera in enumerate(sequence_cameras(config, sequence))]  # fmt: skip
    seen = {"below": 0, "beside": 0}
    for number in range(12):
        take = plan_take(config, sequence, number)
        for shot in shots_of_take(config, sequence, number, 1, take, room, views):
            for figure in shot.figures(COCO19):
                state, (u, v) = figure.state, figure.uv[ROOT]
                if state[ROOT] != OUTSIDE or figure.mask.sum() < 40:
                    continue
                edge = "below" if v > config.height - 0.5 else "beside"
                # What is painted reaches the border that the person is cut by.
                borders = {"below": figure.mask[-1], "beside": figure.mask[:, 0 if u < 0 else -1]}
                seen[edge] += bool(borders[edge].any())
    assert min(seen.values()) >= 3
