"""`das predict`: its settings, several files in one call, thresholds, cameras and unreadable photos."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tyro

from pipeline.predict.config import PredictConfig
from pipeline.predict.predict import predict, predict_photo
from tests.pipeline.predict.prediction_cases import panoptic_calibration, refused, written


@pytest.mark.parametrize("content", [b"", b"this is a text", b"\xff\xd8\xff\xe0 broken", None])
def test_a_file_that_is_no_image_is_refused_before_writing(predictor, tmp_path, content):
    path = tmp_path / "holiday.jpg"
    if content is not None:
        path.write_bytes(content)
    refused(lambda: predict_photo(predictor, path, tmp_path / "out"), "holiday.jpg", "no")
    assert written(tmp_path / "out") == []


def test_the_command_prints_the_results_of_several_files(checkpoint, photo, tmp_path, capsys):
    second = tmp_path / "second.jpg"
    cv2.imwrite(str(second), np.zeros((50, 50, 3), np.uint8))
    predict(PredictConfig((str(photo), str(second)), str(checkpoint), out=str(tmp_path / "out"), fov=70))
    assert len(written(tmp_path / "out")) == 6
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and str(photo) in lines[0] and "70 degrees" in lines[0] and str(second) in lines[1]
    assert lines[2:] == [f"terms of the model's training data: {terms}" for terms in ("research only", "free")]


def test_the_command_uses_threshold_and_camera(checkpoint, photo, tmp_path):
    config = PredictConfig((str(photo),), str(checkpoint), str(tmp_path / "out"), threshold=0.99)
    predict(replace(config, camera=str(panoptic_calibration(tmp_path))))
    value = json.loads((tmp_path / "out" / "00_16_0001.json").read_text())
    assert value["people"] == [] and value["camera"]["K"][0][0] == 116


def test_photos_are_positional_arguments(photo):
    config = tyro.cli(PredictConfig, args=[str(photo), "--model", "models:/das-demo@champion", "--fov", "70"])
    assert config == PredictConfig((str(photo),), "models:/das-demo@champion", fov=70)


def test_a_bad_setting_is_refused_with_its_name(photo, tmp_path):
    refused(lambda: PredictConfig((), "model"), "files is empty")
    refused(lambda: PredictConfig((str(photo),), "model", fov=180), "fov = 180")
    refused(lambda: PredictConfig((str(photo),), "model", threshold=1.0), "threshold = 1.0")
    refused(lambda: PredictConfig((str(tmp_path / "none.jpg"),), "model"), "none.jpg: no such file")
    twin = tmp_path / "twin" / photo.name
    twin.parent.mkdir()
    twin.write_bytes(photo.read_bytes())
    refused(lambda: PredictConfig((str(photo), str(twin)), "model"), str(twin), "files of the same name")
    config = PredictConfig((str(photo),), str(tmp_path / "nowhere"), out=str(tmp_path / "out"))
    refused(lambda: predict(config), "nowhere")
    assert written(tmp_path / "out") == []


def test_real_hd_frames_with_their_real_calibration(checkpoint, das_data, tmp_path):
    folder = das_data / "panoptic" / "haggling_views"
    photos = sorted(folder.glob("*/*.jpg"))[:2]
    config = PredictConfig(tuple(map(str, photos)), str(checkpoint), str(tmp_path / "out"))
    predict(replace(config, camera=str(folder / "camera_parameters.json")))
    calibration = {c["name"]: c for c in json.loads((folder / "camera_parameters.json").read_text())["cameras"]}
    for path in photos:
        value = json.loads((tmp_path / "out" / f"{path.stem}.json").read_text())
        camera = calibration[path.parent.name]
        assert value["camera"]["K"] == camera["K"] and not value["camera"]["assumed"]
        assert value["image"] == {"height": 1080, "width": 1920} and len(value["people"]) == 3
        # Reported positions in mm project to the reported pixels with OpenCV's distortion.
        for person in value["people"]:
            points = np.array(person["joints_cam"])
            zero = np.zeros(3)
            uv = cv2.projectPoints(points, zero, zero, np.array(camera["K"]), np.array(camera["distCoef"]))[0][:, 0]
            inside = (np.array(person["joints_uv"]) > 0).all(1) & (np.array(person["joints_uv"]) < [1920, 1080]).all(1)
            np.testing.assert_allclose(uv[inside], np.array(person["joints_uv"])[inside], atol=0.02)
