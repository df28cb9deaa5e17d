"""`das predict`: its settings, several files in one call, thresholds, cameras and unreadable photos."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tyro

from pipeline.cli import main
from pipeline.infra.images import read_photo
from pipeline.predict import predict as module
from pipeline.predict.camera_file import read_camera_file
from pipeline.predict.cameras import find_camera
from pipeline.predict.config import PredictConfig
from pipeline.predict.frames import predict_video
from pipeline.predict.photos import predict_photo
from pipeline.predict.pictures import Picture, predicted
from pipeline.predict.predict import predict
from tests.pipeline.predict.prediction_cases import (
    jpeg_with_orientation,
    panoptic_calibration,
    refused,
    turned_video,
    write_video,
    written,
)


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


def test_one_bad_file_does_not_stop_the_others(checkpoint, photo, tmp_path, capsys):
    page, video, second = tmp_path / "page.jpg", tmp_path / "walk.mp4", tmp_path / "second.png"
    page.write_bytes(b"<!doctype html><html></html>")
    video.write_bytes(b"no video")
    second.write_bytes(photo.read_bytes())
    arguments = ["predict", *map(str, (photo, page, video, second)), "--model", str(checkpoint)]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path / "out")])
    assert ended.value.code == 1 and len(written(tmp_path / "out")) == 6
    said = capsys.readouterr()
    assert str(second) in said.out and "page.jpg" not in said.out
    faults = [line for line in said.err.splitlines() if line.startswith("das: ")]
    assert len(faults) == 2 and f"{page}: no image" in faults[0] and "HTML" in faults[0] and f"{video}: no" in faults[1]


def test_a_bad_model_or_camera_file_is_status_2_before_any_result(checkpoint, photo, tmp_path, capsys):
    (tmp_path / "K.json").write_text("{")
    for options in (["--model", "nowhere"], ["--model", str(checkpoint), "--camera", str(tmp_path / "K.json")]):
        with pytest.raises(SystemExit) as ended:
            main(["predict", str(photo), "--out", str(tmp_path / "out"), *options])
        assert ended.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_never_replaced_and_own_results_are(checkpoint, photo, tmp_path, monkeypatch):
    out = tmp_path / "out"
    config = PredictConfig((str(photo),), str(checkpoint), str(out))
    assert predict(config) == 0 and predict(config) == 0
    for name in written(out):
        (out / name).rename(out / "kept")
        cv2.imwrite(str(out / "other.png"), np.zeros((9, 9, 3), np.uint8))
        (out / "other.png").rename(out / name)
        before = (out / name).read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(module, "model_folder", lambda *_: pytest.fail("computed before the refusal"))
            refused(lambda: predict(config), str(out / name), "not written by das predict")
        assert (out / name).read_bytes() == before
        (out / "kept").rename(out / name)
    assert predict(config) == 0


def test_an_output_that_cannot_be_written_is_one_line(checkpoint, photo, tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    refused(lambda: predict(PredictConfig((str(photo),), str(checkpoint), str(taken))), "taken", "cannot be written")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.predict.results.write_bytes", full)
    config = PredictConfig((str(photo),), str(checkpoint), str(tmp_path / "out"))
    refused(lambda: predict(config), "00_16_0001_overlay.jpg", "No space left on device")


def camera_file(folder, width, height):
    path = folder / f"K_{width}.json"
    K = [[130.0, 0, width / 2], [0, 130, height / 2], [0, 0, 1]]
    path.write_text(json.dumps({"K": K, "width": width, "height": height}))
    return str(path)


def test_photo_and_video_of_one_phone_are_read_the_same_way_round(checkpoint, tmp_path, capsys):
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (90, 160, 3), np.uint8), (0, 0), 8)
    photo, video, out = tmp_path / "photo.jpg", turned_video(tmp_path / "video.mp4"), tmp_path / "out"
    photo.write_bytes(jpeg_with_orientation(image, 6))
    config = PredictConfig((str(photo), str(video)), str(checkpoint), str(out))

    def sizes():
        lines = [json.loads((out / "photo.json").read_text()), json.loads((out / "video.jsonl").open().readline())]
        return [(line["pixels"], line["image"]["width"], line["image"]["height"]) for line in lines]

    assert predict(config) == 0 and sizes() == [("displayed", 90, 160)] * 2
    assert predict(replace(config, camera=camera_file(tmp_path, 90, 160))) == 0
    assert sizes() == [("displayed", 90, 160)] * 2 and "as stored" not in capsys.readouterr().out
    assert predict(replace(config, camera=camera_file(tmp_path, 160, 90))) == 0
    assert sizes() == [("stored", 160, 90)] * 2 and capsys.readouterr().out.count("pixels as stored") == 2
    with pytest.raises(ValueError, match="calibrated for 320x180") as caught:
        predict(replace(config, camera=camera_file(tmp_path, 320, 180)))
    assert str(caught.value).count("90x160 (stored 160x90) pixels") == 2


def test_an_unturned_video_of_another_shape_is_refused(predictor, tmp_path):
    video = write_video(tmp_path / "walk.mp4")
    camera = read_camera_file(camera_file(tmp_path, 90, 160), video)
    refused(lambda: predict_video(predictor, video, tmp_path / "out", camera=camera), "walk.mp4 has 160x90", "90x160")
    assert written(tmp_path / "out") == []


def test_a_batch_gives_what_each_photo_gives_alone_within_a_hundredth_of_a_millimetre(predictor, photo):
    """Not to the bit: torch sums in another order. The same batch again gives the same bits."""
    image = read_photo(photo)
    sizes = {"a": (160, 90), "b": (160, 90), "c": (90, 160), "d": (320, 180), "e": (160, 90)}
    pictures = []
    for name, size in sizes.items():
        moved = np.roll(cv2.resize(image, size), 7 * ord(name), axis=1)
        pictures.append(Picture(Path(name), moved, find_camera(moved.shape[:2], 60.0)))

    def run(batch_size):
        return [(p.path.name, found.people.joints_cam) for p, found in predicted(predictor, pictures, batch_size)]

    alone, together, again = run(1), run(3), run(3)
    assert [name for name, _ in together] == [*sizes]
    for (_, one), (_, other), (_, same) in zip(alone, together, again, strict=True):
        assert len(one) == 3
        np.testing.assert_allclose(other, one, atol=0.01)
        np.testing.assert_array_equal(same, other)
