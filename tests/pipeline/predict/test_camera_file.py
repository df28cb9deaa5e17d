"""Camera files: both forms, selection of a camera, and faults that are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.infra.images import read_photo
from pipeline.predict.camera_file import read_camera_file
from pipeline.predict.photos import predict_photo
from tests.pipeline.predict.prediction_cases import panoptic_calibration, refused, written


def test_a_camera_file_replaces_the_assumed_camera(predictor, photo, tmp_path):
    K = [[140.0, 0, 80], [0, 141, 45], [0, 0, 1]]
    file = tmp_path / "camera.json"
    file.write_text(json.dumps({"K": K, "distortion": [-0.1, 0.01, 0, 0, 0], "width": 160, "height": 90}))
    result = predict_photo(predictor, photo, tmp_path / "out", camera=read_camera_file(file, photo))
    camera = json.loads(result.files[0].read_text())["camera"]
    assert camera["K"] == K and camera["distortion"] == [-0.1, 0.01, 0, 0, 0] and not camera["assumed"]
    assert "assumed" not in result.summary()
    expected = predictor.predict(read_photo(photo), np.array(K), np.array([-0.1, 0.01, 0, 0, 0]))
    np.testing.assert_allclose(result.prediction.people.joints_cam, expected.people.joints_cam)
    file.write_text(json.dumps({"K": K}))
    assert (read_camera_file(file, photo).distortion == 0).all() and read_camera_file(file, photo).size is None


def test_the_camera_of_a_calibration_is_found_by_name(photo, tmp_path):
    path = panoptic_calibration(tmp_path)
    camera = read_camera_file(path, photo)
    assert camera.K[0, 0] == 116 and camera.size == (90, 160) and camera.distortion.tolist() == [-0.2, 0.1, 0, 0, 0]
    np.testing.assert_allclose(camera.down, [0, np.cos(np.radians(20)), -np.sin(np.radians(20))])
    assert read_camera_file(path, photo, "00_30").K[0, 0] == 130
    assert read_camera_file(path, Path("00_30/frame.jpg")).K[0, 0] == 130
    refused(lambda: read_camera_file(path, Path("holiday.jpg")), "holiday.jpg", "00_16")
    refused(lambda: read_camera_file(path, photo, "00_99"), "'00_99'", "00_16")


def test_a_bad_camera_file_is_refused_with_file_and_field(predictor, photo, tmp_path):
    path = tmp_path / "camera.json"

    def with_content(text):
        path.write_text(text)
        return lambda: read_camera_file(path, photo)

    refused(lambda: read_camera_file(tmp_path / "none.json", photo), "none.json")
    refused(with_content("{"), "camera.json", "not JSON")
    refused(with_content("[]"), "camera.json", "wanted a JSON object with K")
    refused(with_content('{"K": [1, 2]}'), "K has shape (2,)", "3 x 3")
    refused(with_content('{"K": "wide"}'), "K = 'wide'")
    refused(with_content('{"K": [[9,0,0],[0,9,0],[0,0,1]], "distortion": [1]}'), "distortion = [1.0], wanted 4, 5, 8")
    refused(with_content('{"K": [[0,0,160],[0,0,90],[0,0,1]]}'), "focal lengths 0 and 0", "above 0")
    refused(with_content('{"K": [[9,0,0],[0,9,0],[4,5,1]]}'), "last row 4 5 1", "transpose", "wanted 0 0 1")
    refused(with_content('{"K": [[9,0,0],[0,9,0],[0,0,1]], "distCoeffs": [1]}'), "unknown fields ['distCoeffs']")
    refused(with_content('{"K": [[9,0,0],[0,9,0],[0,0,1]], "width": "9px", "height": 9}'), "width = '9px'")
    refused(with_content('{"K": [[9,0,0],[0,9,0],[0,0,1]], "width": 9}'), "height = None", "width and height both")
    refused(with_content('{"cameras": [{"name": "00_16"}]}'), "resolution is missing")
    refused(with_content('{"cameras": {"00_16": {"K": 1}}}'), "cameras is an object, wanted a list")
    K = [[1400.0, 0, 960], [0, 1400, 540], [0, 0, 1]]
    camera = with_content(json.dumps({"K": K, "width": 1920, "height": 1080}))()
    refused(lambda: predict_photo(predictor, photo, tmp_path / "out", camera=camera), photo.name, "160x90", "1920x1080")
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize(
    "lens", [[[-0.3, 0.1, 0.001, 0.002, 0.05]], [-0.3, 0.1, 0.001, 0.002], [-0.3] + [0.01] * 7, [0.1] + [0] * 13]
)
def test_the_lens_is_read_as_opencv_writes_it(photo, tmp_path, lens):
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({"K": [[100, 0, 80], [0, 100, 45], [0, 0, 1]], "distortion": lens}))
    found = read_camera_file(path, photo).distortion
    given = np.ravel(lens)
    assert len(found) in (5, 12) and (np.pad(found, (0, 14 - len(found))) == np.pad(given, (0, 14 - len(given)))).all()


def test_a_camera_cut_out_of_a_calibration_keeps_its_lens_and_resolution(photo, tmp_path, capsys):
    path = tmp_path / "camera.json"
    camera = {"name": "00_16", "K": [[100, 0, 300], [0, 100, 45], [0, 0, 1]], "distCoef": [-0.3, 0.1, 0, 0, 0]}
    path.write_text(json.dumps({**camera, "resolution": [160, 90]}))
    found = read_camera_file(path, photo)
    assert found.size == (90, 160) and found.distortion[0] == -0.3 and found.down is None
    assert "principal point (300, 45) is outside the image of 160x90 pixels" in capsys.readouterr().err
