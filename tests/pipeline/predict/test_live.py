"""Cameras and streams: opened or refused in a line; an interruption leaves complete results."""

import functools
import http.server
import json
import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest

from pipeline.predict.config import PredictConfig
from pipeline.predict.live import live_frames, opened_source, stop_at_interrupt
from pipeline.predict.predict import predict
from pipeline.predict.videos import PacedVideo, read_times
from tests.pipeline.predict.prediction_cases import refused, write_video, written


@pytest.fixture
def address(tmp_path):
    """A server of this machine that sends a video of 12 frames."""
    folder = tmp_path / "served"
    folder.mkdir()
    write_video(folder / "walk.mp4", frames=12)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_source_that_is_not_there_is_refused_in_a_line(tmp_path, address, checkpoint):
    for source in ("977", f"{address}/none.mp4", "rtsp://127.0.0.1:1/stream"):
        config = PredictConfig((), str(checkpoint), str(tmp_path / "out"), source=source)
        refused(lambda config=config: predict(config), f"source {config.source}: no ")
    refused(lambda: PredictConfig((), "model", source="front door"), "source = 'front door'", "number of a camera")
    refused(lambda: PredictConfig(("a.jpg",), "model", source="0"), "files and source are both given")
    refused(lambda: PredictConfig(("a.jpg",), "model", seconds=3.0), "seconds = 3", "--source")
    assert written(tmp_path / "out") == []


def test_a_stream_is_predicted_to_its_end_with_its_own_times(checkpoint, address, tmp_path, capsys):
    out = tmp_path / "out"
    config = PredictConfig((), str(checkpoint), str(out), source=f"{address}/walk.mp4", device="cpu")
    assert predict(config) == 0
    lines = [json.loads(line) for line in (out / "live.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(12))
    assert [line["time_ms"] for line in lines] == pytest.approx(np.arange(12) * 1000 / 12, abs=1)
    assert written(out) == ["live.jsonl", "live_overlay.mp4"]
    times = read_times(out / "live_overlay.mp4")
    assert times.times[-1] + times.interval == pytest.approx(1000, abs=60), "it lasts as long as the stream"
    assert "12 frames" in capsys.readouterr().out


class Endless:
    """A camera without time stamps, which interrupts the process at its third frame, as Ctrl-C does."""

    def __init__(self) -> None:
        self.frames = 0

    def read(self):
        self.frames += 1
        if self.frames == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return True, np.zeros((9, 16, 3), np.uint8)

    def get(self, _):
        return 0.0


def test_the_first_interruption_ends_a_source_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with stop_at_interrupt() as stopped:
        times = [time_ms for _, time_ms in live_frames(Endless(), None, stopped)]
        assert len(times) == 3 and times[0] == 0 and times == sorted(set(times))
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_source_ends_after_its_seconds(address):
    begin = time.monotonic()
    endless = Endless()
    endless.frames = 10
    assert len(list(live_frames(endless, 0.2, lambda: False))) > 2 and 0.2 <= time.monotonic() - begin < 5
    with opened_source(f"{address}/walk.mp4", 10**6) as capture:
        assert len(list(live_frames(capture, None, lambda: False))) == 12
    with pytest.raises(ValueError, match="frames of 160x90 pixels"), opened_source(f"{address}/walk.mp4", 100):
        pass


def test_a_live_overlay_shows_each_frame_until_the_next(tmp_path):
    drawn = PacedVideo(tmp_path / "live.mp4", 25.0)
    for time_ms, grey in ((0, 0), (400, 120), (1000, 240)):
        drawn.write_at(np.full((64, 64, 3), grey, np.uint8), time_ms)
    assert drawn.finish()
    capture = cv2.VideoCapture(str(tmp_path / "live.mp4"))
    greys = []
    while (found := capture.read())[0]:
        greys.append(int(found[1].mean()))
    assert len(greys) == 25 + 15  # the last one for as long as the longest
    assert np.abs(np.array(greys) - np.repeat([0, 120, 240], [10, 15, 15])).max() < 12
