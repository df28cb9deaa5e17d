"""The camera of a photo: given, from its EXIF data, or assumed; every output says which."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.infra.columns import read_columns
from pipeline.predict.config import PredictConfig, Settings
from pipeline.predict.photos import predict_photo
from pipeline.predict.pictures import read_picture
from pipeline.predict.predict import predict
from tests.pipeline.infra.test_exif import FILM_PHONE, PLANE_PHONE, with_exif
from tests.pipeline.predict.prediction_cases import panoptic_calibration


@pytest.fixture
def phone(tmp_path):
    """A photo of 160 x 120 pixels, made smaller from 4032 x 3024: 26 / 43.2666 x 200 = 120.2 pixels."""
    path = tmp_path / "00_16_phone.jpg"
    path.write_bytes(with_exif(FILM_PHONE, (120, 160)))
    return path


def test_exif_comes_after_a_calibration_and_before_an_assumed_field_of_view(predictor, phone, checkpoint, tmp_path):
    out = tmp_path / "out"
    config = PredictConfig((str(phone),), str(checkpoint), str(out), formats=("json", "parquet"))

    def camera(**changes):
        assert predict(replace(config, **changes)) == 0
        found = json.loads((out / f"{phone.stem}.json").read_text())["camera"]
        assert set(read_columns(out / "people.parquet")["camera_source"]) == {found["source"]}
        return found

    exif = camera()
    assert exif["source"] == "exif" and exif["numbers"] == {"focal_length_35mm": 26} and not exif["assumed"]
    assert exif["focal_px"] == pytest.approx(120.2, abs=0.1)
    np.testing.assert_allclose(exif["K"], [[exif["focal_px"], 0, 79.5], [0, exif["focal_px"], 59.5], [0, 0, 1]])
    assumed = camera(exif=False, fov=70)
    assert assumed["source"] == "assumed" and assumed["numbers"] == {"fov_degrees": 70}
    calibration = panoptic_calibration(tmp_path)
    value = json.loads(calibration.read_text())
    for entry in value["cameras"]:
        entry["resolution"] = [160, 120]
    calibration.write_text(json.dumps(value))
    assert camera(camera=str(calibration))["source"] == "given"


def test_depths_are_proportional_to_the_focal_length_that_is_used(predictor, phone, tmp_path):
    settings = (Settings(exif=exif) for exif in (True, False))
    exif, assumed = (predict_photo(predictor, phone, tmp_path / "out", each).prediction for each in settings)
    ratio = exif.K[0, 0] / assumed.K[0, 0]
    np.testing.assert_allclose(exif.people.root_cam[:, 2], ratio * assumed.people.root_cam[:, 2])


def test_terminal_and_picture_say_which_camera_it_was(predictor, phone, tmp_path):
    result = predict_photo(predictor, phone, tmp_path / "out")
    assert "camera from EXIF: 26 mm in 35 mm film, focal length 120 px" in result.summary()
    phone.write_bytes(with_exif(PLANE_PHONE, (120, 160)))
    # 3481.6 pixels of 4000, on 160.
    assert (
        "4.25 mm, 32.8 pixels per mm, focal length 139 px"
        in predict_photo(predictor, phone, tmp_path / "out").summary()
    )


def test_a_crop_is_assumed_and_says_why(predictor, phone, tmp_path):
    phone.write_bytes(with_exif(FILM_PHONE, (120, 120)))
    result = predict_photo(predictor, phone, tmp_path / "out")
    assert "camera assumed: 60 degrees" in result.summary() and "a crop" in result.summary()
    camera = json.loads(result.files[0].read_text())["camera"]
    assert camera["source"] == "assumed" and "4032x3024" in camera["remark"]


def test_a_focal_length_that_no_camera_has_is_not_believed(phone):
    phone.write_bytes(with_exif({0xA405: 60000}, (120, 160)))
    camera = read_picture(phone, Settings(), None).camera
    assert camera.source.kind == "assumed" and "EXIF not used: focal lengths" in camera.source.remark


def test_a_turned_photo_has_the_focal_length_of_the_photo_as_stored(phone):
    flat = read_picture(phone, Settings(), None)
    phone.write_bytes(with_exif(FILM_PHONE, (120, 160), orientation=6))
    turned = read_picture(phone, Settings(), None)
    assert turned.image.shape == (160, 120, 3) and turned.camera.source.kind == "exif"
    assert turned.camera.K[0, 0] == pytest.approx(flat.camera.K[0, 0])
    assert turned.camera.K[:2, 2].tolist() == [59.5, 79.5]
