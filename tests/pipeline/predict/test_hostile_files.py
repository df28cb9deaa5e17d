"""`das predict` opens regular files of bounded size only, and says in one line what it does not open."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.predict.config import PredictConfig, Settings
from pipeline.predict.frames import predict_video
from pipeline.predict.photos import predict_photo
from pipeline.predict.videos import read_times
from tests.pipeline.infra.test_image_headers import jpeg_that_claims
from tests.pipeline.predict.prediction_cases import write_video, written

PROJECT = Path(__file__).resolve().parents[3]


def refused_at_once(capsys, *words):
    """The line that the command ends in; torch is not needed for it."""
    with pytest.raises(SystemExit) as caught:
        main(["predict", *map(str, words), "--model", "no-model"])
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and not out and err.startswith("das: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("name", ["a.jpg", "a.mp4"])
def test_pipes_devices_and_files_without_an_end_are_refused(capsys, tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    assert f"{name}: a pipe or device" in refused_at_once(capsys, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert f"{name}: a pipe or device" in refused_at_once(capsys, path)
    path.unlink()
    path.write_bytes(b"\xff\xd8")
    os.truncate(path, 1 << 40)
    assert f"{name}: 1099511627776 bytes, wanted at most" in refused_at_once(capsys, path)


def test_too_many_pixels_are_refused_by_the_setting(capsys, checkpoint, photo, tmp_path):
    (tmp_path / "large.jpg").write_bytes(jpeg_that_claims(65500, 65500))
    assert "large.jpg: 65500x65500 pixels" in refused_at_once(capsys, tmp_path / "large.jpg")
    assert "160x90 pixels, wanted at most 0 million" in refused_at_once(capsys, photo, "--max-pixels", 14399)
    assert "bytes, wanted at most 100" in refused_at_once(capsys, photo, "--max-bytes", 100)
    out = ["--model", str(checkpoint), "--out", str(tmp_path / "out")]
    main(["predict", str(photo), *out, "--max-pixels", "14400"])
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(tmp_path / "large.jpg"), str(photo), *out])
    assert caught.value.code == 1 and "large.jpg: 65500x65500 pixels" in capsys.readouterr().err
    with pytest.raises(ValueError, match="max_pixels = 0"):
        PredictConfig((str(photo),), "model", max_pixels=0)


def test_the_camera_file_is_looked_at_first(capsys, photo, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    assert "pipe.json: a pipe or device" in refused_at_once(capsys, photo, "--camera", tmp_path / "pipe.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert "deep.json: not JSON" in refused_at_once(capsys, photo, "--camera", tmp_path / "deep.json")


def test_frames_of_too_many_pixels_are_refused(predictor, tmp_path):
    video = write_video(tmp_path / "x.mp4")
    with pytest.raises(ValueError, match=r"x\.mp4: frames of 160x90 pixels"):
        read_times(video, most_pixels=160 * 90 - 1)
    with pytest.raises(ValueError, match=r"x\.mp4: frames of 160x90 pixels"):
        predict_video(predictor, video, tmp_path / "out", Settings(max_pixels=100))
    assert len(read_times(video, most_pixels=160 * 90).times) == 4
    with pytest.raises(ValueError, match="pixels"):
        predict_photo(predictor, _png(tmp_path), tmp_path / "out", Settings(max_pixels=100))


def _png(folder):
    cv2.imwrite(str(folder / "x.png"), np.zeros((20, 20, 3), np.uint8))
    return folder / "x.png"


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile other.mp4\n", "#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"]
)
def test_a_text_is_no_list_of_other_videos(tmp_path, text):
    write_video(tmp_path / "other.mp4")
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(ValueError, match=r"list\.mp4: no video that OpenCV can read .*wanted MP4"):
        read_times(tmp_path / "list.mp4")


def test_decoders_are_quiet(tmp_path):
    (tmp_path / "x.mp4").write_bytes(struct.pack(">I", 24) + b"ftypisom" + bytes(1000))
    (tmp_path / "x.tif").write_bytes(b"II*\0" + bytes(4))
    code = """
import sys
from pathlib import Path
from pipeline.infra.images import read_photo
from pipeline.predict.videos import read_times
for read, name in ((read_times, "x.mp4"), (read_photo, "x.tif")):
    try:
        read(Path(sys.argv[1]) / name)
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout.count("\n") == 2 and done.stderr == "", done


def test_a_large_file_under_a_results_name_is_not_read(predictor, photo, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{photo.stem}_overlay.jpg").write_bytes(b"\xff\xd8\xff\xe0\xff\xff")
    os.truncate(out / f"{photo.stem}_overlay.jpg", 1 << 40)
    with pytest.raises(ValueError, match="not written by das predict"):
        predict_photo(predictor, photo, out)
    assert written(out) == [f"{photo.stem}_overlay.jpg"]
