"""The files written for one photo."""

import json

import cv2
import numpy as np

from das.predictor import Predictor
from pipeline.infra.images import read_photo
from pipeline.predict.config import Settings
from pipeline.predict.photos import predict_photo
from tests.pipeline.predict.prediction_cases import written


def test_a_photo_gives_json_overlay_and_top_view(predictor, photo, tmp_path):
    out = tmp_path / "out"
    result = predict_photo(predictor, photo, out, Settings(fov=50))
    assert written(out) == ["00_16_0001.json", "00_16_0001_overlay.jpg", "00_16_0001_top.png"]
    image = read_photo(photo)
    expected = predictor.predict(image, fov_degrees=50)
    assert len(expected.people) > 0
    assert json.loads(result.files[0].read_text()) == {
        "written_by": "das predict",
        "photo": photo.name,
        "pixels": "displayed",
        **expected.to_json(),
    }
    overlay, top = map(read_photo, result.files[1:])
    assert overlay.shape == image.shape and top.shape[0] == top.shape[1]
    assert "camera assumed: 50 degrees" in result.summary() and all(
        str(path) in result.summary() for path in result.files
    )


def test_a_photo_without_people_gives_all_files(checkpoint, photo, tmp_path):
    strict = Predictor.from_folder(checkpoint, threshold=0.99)
    result = predict_photo(strict, photo, tmp_path / "out")
    assert json.loads(result.files[0].read_text())["people"] == []
    difference = read_photo(result.files[1]).astype(int) - read_photo(photo)
    assert np.abs(difference[:60]).max() < 20, "above the words on the camera it differs by JPEG noise only"
    assert np.abs(difference[-20:]).max() > 100
    assert result.summary().startswith("0 people")


def test_colour_channels_are_read_and_written_in_order(checkpoint, tmp_path):
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "red.png"), red)
    assert (read_photo(tmp_path / "red.png") == [255, 0, 0]).all()
    strict = Predictor.from_folder(checkpoint, threshold=0.99)
    overlay = read_photo(predict_photo(strict, tmp_path / "red.png", tmp_path / "out").files[1])
    assert (np.abs(overlay[:15].astype(int) - [255, 0, 0]) < 6).all()


def test_a_16_bit_file_of_12_bits_is_read_as_bright_as_it_is_and_said(predictor, photo, tmp_path):
    deep = tmp_path / "deep.png"
    assert cv2.imwrite(str(deep), np.round(cv2.imread(str(photo)) * (4095 / 255)).astype(np.uint16))
    bright = predict_photo(predictor, photo, tmp_path / "out")
    result = predict_photo(predictor, deep, tmp_path / "out")
    np.testing.assert_array_equal(result.prediction.people.joints_cam, bright.prediction.people.joints_cam)
    assert "12-bit values in a 16-bit file, scaled by 4095" in result.summary() and bright.picture.bits is None
