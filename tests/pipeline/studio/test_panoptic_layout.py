"""The Panoptic layout: names and keys of files, the reader, ids of people, and the same bytes for any chunks."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.data.sources import synthetic
from pipeline.data.sources.base import DroppedFrame
from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.config import StudioChunk, StudioConfig, plan_chunks
from pipeline.studio.layouts import render_layout
from pipeline.studio.panoptic_layout import bodies_path, calibration_path, image_path, render_panoptic_chunk
from tests.pipeline.studio.small_renderings import RATE, SMALL, VIDEO, contents, cv2_pixels


def test_a_folder_has_one_picture_per_camera_and_frame_calibration_bodies_and_terms(rendered):
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


def test_bytes_do_not_depend_on_chunks_and_workers(rendered, tmp_path):
    in_one = replace(SMALL, chunk_frames=6)
    assert len(plan_chunks(in_one)) == 3 and len(plan_chunks(SMALL)) == 4
    assert render_layout(in_one, tmp_path, workers=1) == 24
    assert contents(tmp_path) == contents(rendered)


def test_another_seed_changes_people_and_pictures(rendered, tmp_path):
    other = replace(SMALL, seed=1)
    render_panoptic_chunk(other, StudioChunk("studio_val_ultimatum1", 0, 1), tmp_path)
    ours, theirs = contents(rendered), contents(tmp_path)
    assert len(theirs) == 4 and all(ours[name] != content for name, content in theirs.items())


def test_a_chunk_must_start_with_a_take(tmp_path):
    with pytest.raises(ValueError, match="take_frames 3, found 1"):
        render_panoptic_chunk(SMALL, StudioChunk("studio_train_mafia1", 1, 2), tmp_path)
    assert not any(tmp_path.iterdir())


def test_the_panoptic_reader_reads_all_frames(rendered):
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


def test_pictures_differ_from_the_empty_room_at_the_joints(tmp_path):
    """Pictures of two takes differ at the joints of the first, and not everywhere."""
    config = replace(SMALL, width=320, height=180)
    sequence = "studio_train_mafia1"
    render_panoptic_chunk(config, StudioChunk(sequence, 0, 6), tmp_path)
    for camera in sequence_cameras(config, sequence):
        first, later = (cv2.imread(str(image_path(tmp_path, sequence, camera.name, f))).astype(float) for f in (0, 3))
        bodies = json.loads(bodies_path(tmp_path, sequence, 0).read_text())["bodies"]
        changed = np.abs(first - later).max(-1) > 30  # frame 3 is another take: other people in other places
        joints = np.concatenate([np.array(b["joints19"]).reshape(19, 4)[[0, 2, 3, 9], :3] for b in bodies])
        uv = np.round(cv2_pixels(camera, joints)).astype(int)
        uv = uv[((uv >= 1) & (uv < (319, 179))).all(-1)]
        near = cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8))
        assert near[uv[:, 1], uv[:, 0]].mean() > 0.7
        assert changed.mean() < 0.6


def test_people_of_different_takes_have_different_ids(tmp_path):
    config = StudioConfig(width=64, height=36, supersampling=1, take_frames=2, train_frames=6)
    render_panoptic_chunk(config, StudioChunk("studio_train_mafia1", 0, 6), tmp_path)
    numbers = []
    for frame in range(6):
        content = json.loads(bodies_path(tmp_path, "studio_train_mafia1", frame).read_text())
        numbers.append({body["id"] for body in content["bodies"]})
    assert numbers[0] == numbers[1] and numbers[2] == numbers[3]
    assert not numbers[0] & numbers[2] and not numbers[2] & numbers[4]


def test_a_take_at_29_97_frames_per_second_has_smooth_motion(tmp_path):
    config = replace(VIDEO, width=64, height=36, supersampling=1, take_frames=12, train_frames=12, people_min=3)
    sequence = "studio_train_ultimatum1"
    render_panoptic_chunk(config, StudioChunk(sequence, 0, 12), tmp_path)
    content = [json.loads(bodies_path(tmp_path, sequence, frame).read_text()) for frame in range(12)]
    np.testing.assert_allclose(np.diff([c["univTime"] for c in content]), 1000 / RATE, atol=2e-3)
    ids = [[body["id"] for body in c["bodies"]] for c in content]
    assert all(i == ids[0] for i in ids) and len(ids[0]) >= 2
    joints = np.array([[np.reshape(b["joints19"], (19, 4)) for b in c["bodies"]] for c in content])
    seen = (joints[1:, ..., 3] > 0) & (joints[:-1, ..., 3] > 0)
    step = np.linalg.norm(np.diff(joints[..., :3], axis=0), axis=-1)[seen]
    assert step.max() < 18 and np.median(step) > 0.005  # cm in 1/29.97 s: no joint jumps or freezes
    # Motion is smooth: the second difference is far smaller than the first.
    trunk = joints[:, :, 0, :3]
    assert np.abs(np.diff(trunk, 2, axis=0)).mean() < 0.5 * np.abs(np.diff(trunk, axis=0)).mean() + 0.02
