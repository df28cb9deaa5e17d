"""Rescaled results are those of a prediction with the other focal length, to the last digit that is stored."""

import json
from dataclasses import replace

import numpy as np
import pytest

from das.camera import CameraSource, intrinsics_from_fov, mean_focal
from pipeline.infra.images import read_photo
from pipeline.predict.config import PredictConfig
from pipeline.predict.own_files import signed
from pipeline.predict.predict import predict
from pipeline.predict.rescale import RescaleConfig, rescale, rescaled
from tests.pipeline.predict.prediction_cases import refused, write_video, written

LENS = np.array([-0.21, 0.09, 1e-3, -2e-3, 0.01])


def points(value):
    """All stored mm of all people."""
    return np.array([[p["root_cam"], *p["joints_cam"]] for p in value["people"]])


def as_stored(prediction):
    return json.loads(json.dumps(signed(prediction.to_json())))


@pytest.mark.parametrize("lens", [np.zeros(5), LENS])
@pytest.mark.parametrize("focal", [71.3, 300.0, 1234.5])
def test_a_rescaled_result_is_the_prediction_with_the_other_focal_length(predictor, photo, lens, focal):
    """The photo is 160 x 90 pixels, the network's input 128 x 72: the resizing is a part of it."""
    image = read_photo(photo)
    old = np.array([[150.0, 0, 81], [0, 156, 43], [0, 0, 1]])
    new = old.copy()
    new[:2, :2] *= focal / mean_focal(old)
    expected = as_stored(predictor.predict(image, new, lens))
    found = rescaled(as_stored(predictor.predict(image, old, lens)), new, lens, CameraSource("given"))
    assert len(found["people"]) == 3 and found["camera"] == expected["camera"]
    difference = np.abs(points(found) - points(expected))
    assert difference.max() <= 0.001001, "one in the last digit"
    assert (difference < 1e-9).mean() > 0.98, "and that where rounding is a tie"


def test_another_lens_and_principal_point_are_exact_too(predictor, photo):
    image = read_photo(photo)
    stored = as_stored(predictor.predict(image, fov_degrees=60))
    new = np.array([[210.0, 0, 70], [0, 190, 50], [0, 0, 1]])
    expected = as_stored(predictor.predict(image, new, LENS))
    difference = np.abs(points(rescaled(stored, new, LENS, CameraSource("given"))) - points(expected))
    assert difference.max() <= 0.001001 and (difference < 1e-9).mean() > 0.98


def test_the_command_gives_what_predict_gives_with_the_other_field_of_view(checkpoint, photo, tmp_path, capsys):
    video = write_video(tmp_path / "walk.mp4")
    files = (str(photo), str(video))
    config = PredictConfig(files, str(checkpoint), str(tmp_path / "old"), formats=("json",), device="cpu")
    predict(config)
    predict(replace(config, fov=35, out=str(tmp_path / "expected")))
    capsys.readouterr()
    rescale(RescaleConfig((str(tmp_path / "old"),), str(tmp_path / "new"), fov=35))
    focal = intrinsics_from_fov(160, 90, 35)[0, 0]
    assert f"walk.jsonl: 4 images, 12 people, focal length {focal:.0f} px" in capsys.readouterr().out
    assert written(tmp_path / "new") == written(tmp_path / "expected") == ["00_16_0001.json", "walk.jsonl"]
    for name in written(tmp_path / "new"):
        found, expected = ((tmp_path / folder / name).read_text() for folder in ("new", "expected"))
        found, expected = (text.splitlines() if "jsonl" in name else [text] for text in (found, expected))
        for one, other in zip(map(json.loads, found), map(json.loads, expected), strict=True):
            assert np.abs(points(one) - points(other)).max() <= 0.001001
            np.testing.assert_allclose(one.pop("camera").pop("K"), other.pop("camera").pop("K"))
            assert one.keys() == other.keys() and one["joint_names"] == other["joint_names"]
    # And back: nothing is lost on the way.
    rescale(RescaleConfig((str(tmp_path / "new"),), str(tmp_path / "back"), fov=60))
    back, old = (json.loads((tmp_path / folder / "00_16_0001.json").read_text()) for folder in ("back", "old"))
    assert np.abs(points(back) - points(old)).max() <= 0.001001


def test_an_interval_of_focal_lengths_is_an_interval_of_depths_for_each_person(checkpoint, photo, tmp_path):
    predict(PredictConfig((str(photo),), str(checkpoint), str(tmp_path / "old"), formats=("json",)))
    file = str(tmp_path / "old" / "00_16_0001.json")
    low, middle, high = (
        json.loads((tmp_path / name / "00_16_0001.json").read_text())
        for name, focal in (("low", (90.0,)), ("middle", (90.0, 110.0)), ("high", (110.0,)))
        if rescale(RescaleConfig((file,), str(tmp_path / name), focal=focal)) is None
    )
    assert middle["camera"]["focal_px"] == pytest.approx(100) and middle["camera"]["focal_interval_px"] == [90, 110]
    for a, b, c in zip(*(value["people"] for value in (low, middle, high)), strict=True):
        assert b["root_depth_interval"] == pytest.approx([a["root_cam"][2], c["root_cam"][2]], abs=0.001)
        assert a["root_cam"][2] < b["root_cam"][2] < c["root_cam"][2]


def test_what_cannot_be_rescaled_is_refused_in_a_line(checkpoint, photo, tmp_path):
    out = tmp_path / "old"
    predict(PredictConfig((str(photo),), str(checkpoint), str(out), formats=("json", "csv", "parquet")))
    file = out / "00_16_0001.json"

    def refuse(names, *parts, **changes):
        options = {"out": str(tmp_path / "new"), "focal": (900.0,), **changes}
        refused(lambda: rescale(RescaleConfig(tuple(map(str, names)), **options)), *parts)
        assert written(tmp_path / "new") == []

    for name in ("people.csv", "people.parquet"):
        refuse([out / name], name, "rescaled are the .json and .jsonl")
    refuse([tmp_path / "none.json"], "none.json: no such file")
    refuse([file], "would replace itself", out=str(out))
    refuse([file, file], "another file of this name")
    refuse([file], "focal lengths 900000", focal=(900000.0,))
    camera = tmp_path / "K.json"
    camera.write_text('{"K": [[900, 0, 100], [0, 900, 50], [0, 0, 1]], "width": 1600, "height": 900}')
    refuse([file], "160x90 pixels, but the camera is calibrated for 1600x900", focal=(), camera=str(camera))
    value = json.loads(file.read_text())
    for person in value["people"]:
        del person["root_depth_over_focal"]
    (out / "older.json").write_text(json.dumps(value))
    refuse([file, out / "older.json"], "older.json: no 'root_depth_over_focal' in it; predict again")
    (out / "mine.json").write_text("{}")
    refuse([out / "mine.json"], "mine.json: not written by `das predict`")
    refused(lambda: RescaleConfig((str(file),), focal=(1.0, 2.0, 3.0)), "focal = (1.0, 2.0, 3.0)")
    refused(lambda: RescaleConfig((str(file),), focal=(1.0,), fov=60), "2 of focal, fov and camera")
