"""The door for Python: a model's URI, files and arrays, cameras in every form; typed, and cheap to import."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import das
import pipeline
from pipeline.infra.images import read_photo
from pipeline.predict import PhotoPredictor, load_predictor
from pipeline.predict.camera_file import read_camera_file
from tests.pipeline.infra.test_exif import FILM_PHONE, with_exif
from tests.pipeline.predict.prediction_cases import refused

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def loaded(checkpoint) -> PhotoPredictor:
    return load_predictor(checkpoint, device="cpu")


def test_a_file_gives_what_its_pixels_give(loaded, photo):
    image = read_photo(photo)
    by_name, by_path, by_pixels = loaded(str(photo)), loaded.predict(photo), loaded(image)
    expected = loaded.predictor.predict(image)
    for prediction in (by_name, by_path, by_pixels):
        np.testing.assert_array_equal(prediction.people.joints_cam, expected.people.joints_cam)
        assert prediction.source.kind == "assumed" and len(prediction.people) == 3


def test_a_camera_is_given_as_file_object_or_intrinsics(loaded, photo, tmp_path):
    K = np.array([[140.0, 0, 80], [0, 141, 45], [0, 0, 1]])
    file = tmp_path / "camera.json"
    file.write_text(json.dumps({"K": K.tolist(), "width": 160, "height": 90}))
    camera = read_camera_file(file, photo)
    found = loaded.predict_batch([photo, read_photo(photo), photo, photo], [str(file), camera, K, None])
    assert [prediction.source.kind for prediction in found] == ["given"] * 3 + ["assumed"]
    for prediction in found[1:3]:
        np.testing.assert_array_equal(prediction.K, K)
        np.testing.assert_allclose(prediction.people.joints_cam, found[0].people.joints_cam, atol=0.01)
    small = np.zeros((9, 16, 3), np.uint8)
    refused(lambda: loaded(small, file), "image has 16x9 pixels, but its camera is calibrated for 160x90")
    refused(lambda: loaded(np.zeros((9, 9), np.uint8)), "image is uint8 (9, 9), wanted uint8 (H, W, 3)")


def test_a_phones_photo_has_its_exif_focal_length_unless_it_is_not_wanted(checkpoint, loaded, tmp_path):
    (tmp_path / "phone.jpg").write_bytes(with_exif(FILM_PHONE, (120, 160)))
    assert loaded(tmp_path / "phone.jpg").source.kind == "exif"
    without = load_predictor(checkpoint, device="cpu", exif=False, fov_degrees=70)
    assert without(tmp_path / "phone.jpg").source.numbers == {"fov_degrees": 70}


def test_an_unknown_model_is_refused_in_a_line(tmp_path):
    refused(lambda: load_predictor(tmp_path / "nowhere"), "nowhere")
    refused(lambda: load_predictor("models:/das"), "models:/das", "wanted models:/NAME@ALIAS")


def test_importing_das_or_the_door_imports_no_torch():
    code = "import sys, das, pipeline.predict; print(das.__version__, {'torch', 'cv2', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{importlib.metadata.version('das-pose')} set()\n"


def test_both_packages_say_that_they_are_typed():
    for package in (das, pipeline):
        assert (Path(package.__file__).parent / "py.typed").is_file()
    assert '"py.typed"' in (PROJECT / "pyproject.toml").read_text()
