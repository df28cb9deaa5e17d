"""The studio's cameras against OpenCV's projection and against the recorded cameras."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.studio.cameras import photo_camera, sequence_cameras
from pipeline.studio.config import SPLITS, StudioConfig, sequence_activity
from pipeline.studio.panoptic_layout import write_calibration
from tests.pipeline.studio.small_renderings import HD, TINY, cv2_pixels


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


def test_cameras_have_panoptics_places_and_look_at_the_stage():
    for sequence in HD.train_sequences:
        if sequence_activity(sequence) == "ultimatum":
            continue  # nearer, and aimed past the middle: test_cut_people.py
        for camera in sequence_cameras(HD, sequence):
            np.testing.assert_allclose(camera.R @ camera.R.T, np.eye(3), atol=1e-8)
            assert np.linalg.det(camera.R) > 0
            x, y, z = camera.centre
            assert 300 < np.hypot(x, z) < 400 and -220 < y < -100  # y points down
            uv = cv2_pixels(camera, np.array([[0.0, -90.0, 0.0]]))[0]
            assert np.linalg.norm(uv - (960, 540)) < 150
            above = cv2_pixels(camera, np.array([[0.0, -120.0, 0.0]]))[0]
            assert above[1] < uv[1]


def test_all_splits_have_the_same_camera_places():
    """Camera positions of train, val and test sequences scatter about the same means."""
    config = StudioConfig()
    centres = {split: np.array([[c.centre for c in sequence_cameras(config, s)] for s in config.sequences(split)])
               for split in SPLITS}  # fmt: skip
    for split in ("val", "test"):
        assert np.linalg.norm(centres[split].mean(0) - centres["train"].mean(0), axis=-1).max() < 20
    assert np.linalg.norm(np.ptp(centres["train"], axis=0), axis=-1).min() > 3


def test_distortion_is_as_strong_as_in_the_recorded_cameras():
    """Undistortion moves a corner of the recorded 00_16 by 159 pixels, of 00_30 by 173."""
    corners = np.array([[0, 0], [1919, 0], [0, 1079], [1919, 1079]], float)[:, None]
    moved = [
        np.linalg.norm(cv2.undistortPoints(corners, c.K, c.distortion, P=c.K) - corners, axis=-1).mean()
        for sequence in StudioConfig().train_sequences
        for c in sequence_cameras(StudioConfig(), sequence)
    ]
    assert 150 < np.median(moved) < 180 and 120 < min(moved) and max(moved) < 210


def test_photo_cameras_vary_in_format_and_cover_all_sides():
    cameras = [photo_camera(TINY, "studio_train_mafia1", take) for take in range(40)]
    assert {(c.width, c.height) for c in cameras} == {(192, 108), (144, 108), (81, 108)}
    azimuths = [np.arctan2(c.centre[0], c.centre[2]) for c in cameras]
    assert np.histogram(azimuths, 4, (-np.pi, np.pi))[0].min() > 3
    assert all(not c.distortion.any() and np.linalg.det(c.R) == pytest.approx(1) for c in cameras)
