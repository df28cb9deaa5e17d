"""What the words of a command line stand for; two files of one name are refused before anything is computed."""

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.predict.config import PredictConfig
from pipeline.predict.inputs import find_files
from pipeline.predict.own_files import sign_picture
from tests.pipeline.predict.prediction_cases import refused, written

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path):
    """b.jpg, a.png, walk.mp4, notes.txt, .hidden.jpg, a sub-folder, and a result of das predict."""
    folder = tmp_path / "holiday"
    (folder / "more").mkdir(parents=True)
    for name in ("b.jpg", "a.png", "walk.mp4", "notes.txt", ".hidden.jpg", "more/c.jpg"):
        (folder / name).touch()
    picture = cv2.imencode(".jpg", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    (folder / "b_overlay.jpg").write_bytes(sign_picture(picture))
    (folder / "c_overlay.jpg").write_bytes(picture)  # of another program
    return folder


def names(found):
    return [Path(file).name for file in found.files]


def test_a_folder_is_its_photos_and_videos_sorted_and_what_is_left_out_is_said(folder):
    found = find_files([str(folder)])
    assert names(found) == ["a.png", "b.jpg", "c_overlay.jpg", "walk.mp4"]
    (line,) = found.left_out
    assert line == f"{folder}: 4 files taken; left out: .hidden.jpg, more/, notes.txt; 1 results of das predict"
    refused(lambda: find_files([str(folder / "empty")]), "empty: no such file")
    (folder / "empty").mkdir()
    refused(lambda: find_files([str(folder / "empty")]), "empty: no photo or video there")


def test_a_pattern_in_quotes_is_expanded_and_a_file_of_that_name_comes_first(folder):
    assert names(find_files([f"{folder}/*.jpg"])) == ["b.jpg", "c_overlay.jpg"]
    assert names(find_files([f"{folder}/**/[bc].jpg"])) == ["b.jpg", "c.jpg"]
    (folder / "[bc].jpg").touch()
    assert names(find_files([f"{folder}/[bc].jpg"])) == ["[bc].jpg"]
    refused(lambda: find_files([f"{folder}/*.webp"]), "*.webp: no file fits this pattern")
    refused(lambda: find_files(["rtsp://host/stream"]), "wanted --source rtsp://host/stream")


def test_a_dash_reads_names_from_standard_input_and_each_file_is_taken_once(folder, monkeypatch, capsys):
    lines = [f"{folder}/b.jpg\n", "\n", f"{folder}/a.png\r\n", f"{folder}/b.jpg\n"]
    assert names(find_files(["-", f"{folder}/a.png"], lines)) == ["b.jpg", "a.png"]
    refused(lambda: find_files(["-"], ["*.jpg\n"]), "*.jpg: no such file")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{folder}\n"))
    assert names(PredictConfig(("-",), "model").expanded()) == ["a.png", "b.jpg", "c_overlay.jpg", "walk.mp4"]
    assert "left out" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    refused(lambda: PredictConfig(("-",), "model").expanded(), "standard input names no file")


def test_two_files_of_one_name_are_refused_before_anything_is_computed(folder, monkeypatch, capsys):
    (folder / "a.jpg").touch()
    refused(lambda: PredictConfig((str(folder),), "model"), "a.jpg", "a.png", "files of the same name")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{folder}/more\n{folder / 'more'}/../a.png\n{folder}/a.jpg\n"))
    with pytest.raises(SystemExit) as ended:
        main(["predict", "-", "--model", "no-model"])
    assert ended.value.code == 2 and "a.png and " in capsys.readouterr().err


def test_a_folder_is_predicted_as_a_whole(checkpoint, photo, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("b.png", "a.png"):
        (folder / name).write_bytes(photo.read_bytes())
    (folder / "notes.txt").touch()
    done = subprocess.run(
        [sys.executable, str(PROJECT / "jobs/predict.py"), "-", "--model", str(checkpoint), "--out", str(out)],
        input=f"{folder}\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:2]] == [f"{folder}/a.png", f"{folder}/b.png"]
    assert "left out: notes.txt" in done.stderr and " images/s" in done.stderr
    assert written(out) == [f"{n}{end}" for n in "ab" for end in (".json", "_overlay.jpg", "_top.png")]
