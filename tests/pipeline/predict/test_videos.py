"""Videos: one overlay and one line per frame; a file that is no video leaves no results."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.predict.predict import predict_video
from tests.pipeline.predict.prediction_cases import refused, written


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "walk.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (160, 90))
    for i in range(4):
        writer.write(np.full((90, 160, 3), 40 * i, np.uint8))
    writer.release()
    return path


def test_a_video_gives_an_overlay_and_a_line_per_frame(predictor, video, tmp_path):
    frames, overlay = predict_video(predictor, video, tmp_path / "out")
    assert frames == 4 and written(tmp_path / "out") == ["walk.jsonl", "walk_overlay.mp4"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "walk.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3] and lines[0]["camera"]["assumed"]
    capture = cv2.VideoCapture(str(overlay))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)


def test_a_file_that_is_no_video_is_refused_without_results(predictor, tmp_path):
    path = tmp_path / "walk.mp4"
    path.write_bytes(b"no video")
    refused(lambda: predict_video(predictor, path, tmp_path / "out"), "walk.mp4", "no video")
    assert written(tmp_path / "out") == []
