"""Videos: times, cut files, overlays of any size; a file that is no video leaves no results."""

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest

from pipeline.predict.frames import predict_video
from pipeline.predict.videos import VideoFile, VideoTimes, overlay_codec, read_frames, read_times
from tests.pipeline.predict.prediction_cases import refused, write_video, written


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "walk.mp4")


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def times_of(times, rate, announced=None):
    return VideoTimes(tuple(times), announced, False, (90, 160), False, rate)


def test_a_video_gives_an_overlay_and_a_line_per_frame(predictor, video, tmp_path):
    result = predict_video(predictor, video, tmp_path / "out")
    assert result.frames == 4 and result.shortfall is None
    assert written(tmp_path / "out") == ["walk.jsonl", "walk_overlay.mp4"]
    lines = lines_of(result.files[0])
    assert [line["frame"] for line in lines] == [0, 1, 2, 3] and lines[0]["camera"]["assumed"]
    assert [line["time_ms"] for line in lines] == pytest.approx([0, 1000 / 12, 2000 / 12, 250], abs=0.01)
    capture = cv2.VideoCapture(str(result.files[1]))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12, rel=0.01)
    predict_video(predictor, video, tmp_path / "out")  # own results are replaced


def test_a_file_that_is_no_video_is_refused_without_results(predictor, tmp_path):
    path = tmp_path / "walk.mp4"
    path.write_bytes(b"no video")
    refused(lambda: predict_video(predictor, path, tmp_path / "out"), "walk.mp4", "no video")
    assert written(tmp_path / "out") == []


def test_a_cut_video_is_read_to_its_last_good_frame_and_says_so(predictor, tmp_path):
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 90))
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    for _ in range(8):
        writer.write(noise)
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = predict_video(predictor, path, tmp_path / "out")
    assert 2 <= result.frames < 8 and len(lines_of(result.files[0])) == result.frames
    assert f"{path}: {result.frames} of 8 frames could be read" in result.shortfall


def test_lines_are_there_before_the_video_ends(predictor, video, tmp_path, monkeypatch):
    seen = []
    jsonl = tmp_path / "out" / "walk.jsonl"
    monkeypatch.setattr(VideoFile, "write", lambda *_: seen.append(len(lines_of(jsonl))))
    monkeypatch.setattr(VideoFile, "finish", lambda _: False)
    result = predict_video(predictor, video, tmp_path / "out")
    assert seen == [1, 2, 3, 4]
    assert result.files == (jsonl,) and "could not write" in result.shortfall and len(lines_of(jsonl)) == 4
    assert written(tmp_path / "out") == ["walk.jsonl"]


def test_an_overlay_of_variable_rate_lasts_as_long_as_the_video():
    stamps = [0, 33, 66, 100, 600, 633, 1600, 1633]
    times = times_of(stamps, rate=30.0)
    shown = [times.repeats(i) for i in range(len(stamps))]
    assert sum(shown) == round((1633 + times.interval) * 30 / 1000)
    for i, begin in enumerate(stamps):
        assert abs(sum(shown[:i]) * 1000 / 30 - begin) <= 17
    late = times_of([500 + t for t in stamps], rate=30.0)
    assert [late.repeats(i) for i in range(len(stamps))] == shown


def test_a_rate_of_1000_in_the_header_is_not_believed(tmp_path):
    path = tmp_path / "browser.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 1000.0, (160, 90))
    for i in range(5):
        writer.write(np.full((90, 160, 3), 40 * i, np.uint8))
    writer.release()
    times = read_times(path)
    assert times.rate <= 240 and len(times.times) == 5 and all(a < b for a, b in pairwise(times.times))


@pytest.mark.parametrize("size", [(200, 9000), (9000, 200), (3, 5), (91, 161)])
def test_an_overlay_of_any_size_can_be_written(tmp_path, size):
    drawn = VideoFile(tmp_path / "overlay.mp4", 25.0)
    for i in range(2):
        drawn.write(np.full((*size, 3), 100 * i, np.uint8))
    assert drawn.finish()
    times = read_times(tmp_path / "overlay.mp4")
    assert len(times.times) == 2 and max(times.size) <= 1920 and not times.missing
    assert next(read_frames(tmp_path / "overlay.mp4", times)).shape[:2] == times.size
    drawn.discard()
    assert written(tmp_path) == ["overlay.mp4"]


def test_the_codec_is_one_that_this_wheel_writes():
    assert overlay_codec() in ("vp09", "mp4v") and overlay_codec.cache_info().currsize == 1
