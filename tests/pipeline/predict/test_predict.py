"""Photos, videos and prepared rows become people; every wrong input is named and leaves nothing behind."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import tyro

from das.camera import intrinsics_from_fov
from das.checkpoint import ModelInfo, save_model
from das.config import small
from das.model import DAS
from das.predictor import Predictor
from das.recipe import InputSize
from pipeline.data.record import Record
from pipeline.data.schema import to_table
from pipeline.evaluation.inference import BatchPredictor
from pipeline.infra.images import read_photo
from pipeline.predict.camera_file import read_camera_file
from pipeline.predict.predict import PredictConfig, predict, predict_photo, predict_video

CONFIG = replace(small(), backbone_width=8, fpn_channels=32, max_people=3)
J = CONFIG.n_joints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained model whose threshold of 0 finds somebody everywhere."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = DAS(CONFIG)
    # A person's offsets and distance, so that what is drawn is not one point.
    model.set_priors(mean_root=torch.tensor([0.0, 0.0, 30.0]), mean_offsets=torch.randn(J, 3))
    info = ModelInfo(
        model=CONFIG,
        test_size=InputSize(128, 72),
        weights="raw",
        score_threshold=0.0,
        unsupervised_joints=("head",),
        recipe={},
        data={"sources": [], "fingerprints": [], "terms": ["research only", "free", "free"], "split": "train"},
        code_version="0",
        mean_pose=((0.0, 0.0, 0.0),) * J,
    )
    save_model(folder, model, info)
    return folder


@pytest.fixture(scope="module")
def predictor(checkpoint) -> Predictor:
    return Predictor.from_folder(checkpoint)


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "00_16_0001.png"
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (90, 160, 3), np.uint8), (0, 0), 8)
    assert cv2.imwrite(str(path), image)
    return path


def written(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def test_a_photo_becomes_json_overlay_and_top_view(predictor, photo, tmp_path):
    out = tmp_path / "out"
    result = predict_photo(predictor, photo, out, fov_degrees=50)
    assert written(out) == ["00_16_0001.json", "00_16_0001_overlay.jpg", "00_16_0001_top.png"]
    image = read_photo(photo)
    expected = predictor.predict(image, fov_degrees=50)
    assert len(expected.people) > 0
    assert json.loads(result.json.read_text()) == {"photo": photo.name, **expected.to_json()}
    overlay, top = read_photo(result.overlay), read_photo(result.top)
    assert overlay.shape == image.shape and top.shape[0] == top.shape[1]
    assert "camera assumed: 50 degrees" in result.summary() and str(result.top) in result.summary()


def test_a_photo_without_people_is_a_result_too(checkpoint, photo, tmp_path):
    nobody = Predictor.from_folder(checkpoint, threshold=0.99)
    result = predict_photo(nobody, photo, tmp_path / "out")
    assert json.loads(result.json.read_text())["people"] == []
    difference = read_photo(result.overlay).astype(int) - read_photo(photo)
    assert np.abs(difference).max() < 20, "nothing but JPEG noise on the photo"
    assert result.summary().startswith("0 people")


def test_channels_are_read_and_written_in_the_right_order(checkpoint, tmp_path):
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "red.png"), red)
    assert (read_photo(tmp_path / "red.png") == [255, 0, 0]).all()
    nobody = Predictor.from_folder(checkpoint, threshold=0.99)
    overlay = read_photo(predict_photo(nobody, tmp_path / "red.png", tmp_path / "out").overlay)
    assert (np.abs(overlay.astype(int) - [255, 0, 0]) < 6).all()


@pytest.mark.parametrize("content", [b"", b"this is a text", b"\xff\xd8\xff\xe0 broken", None])
def test_a_photo_that_is_no_image_is_named_and_nothing_is_written(predictor, tmp_path, content):
    path = tmp_path / "holiday.jpg"
    if content is not None:
        path.write_bytes(content)
    refused(lambda: predict_photo(predictor, path, tmp_path / "out"), "holiday.jpg", "no")
    assert written(tmp_path / "out") == []


def test_a_plain_camera_file_is_used(predictor, photo, tmp_path):
    K = [[140.0, 0, 80], [0, 141, 45], [0, 0, 1]]
    file = tmp_path / "camera.json"
    file.write_text(json.dumps({"K": K, "distortion": [-0.1, 0.01, 0, 0, 0], "width": 160, "height": 90}))
    result = predict_photo(predictor, photo, tmp_path / "out", camera=read_camera_file(file, photo))
    camera = json.loads(result.json.read_text())["camera"]
    assert camera["K"] == K and camera["distortion"] == [-0.1, 0.01, 0, 0, 0] and not camera["assumed"]
    assert "assumed" not in result.summary()
    expected = predictor.predict(read_photo(photo), np.array(K), np.array([-0.1, 0.01, 0, 0, 0]))
    np.testing.assert_allclose(result.prediction.people.joints_cam, expected.people.joints_cam)
    file.write_text(json.dumps({"K": K}))
    assert (read_camera_file(file, photo).distortion == 0).all() and read_camera_file(file, photo).size is None


def panoptic_calibration(folder: Path) -> Path:
    tilt = np.radians(20)
    R = [[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]]
    cameras = [
        {"name": name, "K": [[f, 0, 80], [0, f, 45], [0, 0, 1]], "distCoef": [-0.2, 0.1, 0, 0, 0.0],
         "resolution": [160, 90], "R": R, "t": [[0], [0], [0]]}
        for name, f in (("00_1", 100.0), ("00_16", 116.0), ("00_30", 130.0))
    ]  # fmt: skip
    path = folder / "calibration.json"
    path.write_text(json.dumps({"calibDataSource": "x", "cameras": cameras}))
    return path


def test_the_camera_of_a_calibration_is_found_by_name(photo, tmp_path):
    path = panoptic_calibration(tmp_path)
    camera = read_camera_file(path, photo)
    assert camera.K[0, 0] == 116 and camera.size == (90, 160) and camera.distortion.tolist() == [-0.2, 0.1, 0, 0, 0]
    np.testing.assert_allclose(camera.down, [0, np.cos(np.radians(20)), -np.sin(np.radians(20))])
    assert read_camera_file(path, photo, "00_30").K[0, 0] == 130
    assert read_camera_file(path, Path("00_30/frame.jpg")).K[0, 0] == 130
    refused(lambda: read_camera_file(path, Path("holiday.jpg")), "holiday.jpg", "00_16")
    refused(lambda: read_camera_file(path, photo, "00_99"), "'00_99'", "00_16")


def test_faults_of_camera_files_are_named(predictor, photo, tmp_path):
    path = tmp_path / "camera.json"

    def with_content(text):
        path.write_text(text)
        return lambda: read_camera_file(path, photo)

    refused(lambda: read_camera_file(tmp_path / "none.json", photo), "none.json")
    refused(with_content("{"), "camera.json", "not JSON")
    refused(with_content("[]"), "camera.json", "wanted a JSON object with K")
    refused(with_content('{"K": [1, 2]}'), "K has shape (2,)", "3 x 3")
    refused(with_content('{"K": "wide"}'), "K = 'wide'")
    refused(with_content('{"K": [[1,0,0],[0,1,0],[0,0,1]], "distortion": [1]}'), "distortion has shape (1,)")
    refused(with_content('{"cameras": [{"name": "00_16"}]}'), "resolution is missing")
    K = [[1400.0, 0, 960], [0, 1400, 540], [0, 0, 1]]
    camera = with_content(json.dumps({"K": K, "width": 1920, "height": 1080}))()
    refused(lambda: predict_photo(predictor, photo, tmp_path / "out", camera=camera), photo.name, "160x90", "1920x1080")
    assert written(tmp_path / "out") == []


def test_the_command_runs_on_several_files_and_says_where_results_are(checkpoint, photo, tmp_path, capsys):
    second = tmp_path / "second.jpg"
    cv2.imwrite(str(second), np.zeros((50, 50, 3), np.uint8))
    predict(PredictConfig((str(photo), str(second)), str(checkpoint), out=str(tmp_path / "out"), fov=70))
    assert len(written(tmp_path / "out")) == 6
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and str(photo) in lines[0] and "70 degrees" in lines[0] and str(second) in lines[1]
    assert lines[2:] == [f"terms of the model's training data: {terms}" for terms in ("research only", "free")]


def test_the_command_takes_a_threshold_and_a_camera(checkpoint, photo, tmp_path):
    config = PredictConfig((str(photo),), str(checkpoint), str(tmp_path / "out"), threshold=0.99)
    predict(replace(config, camera=str(panoptic_calibration(tmp_path))))
    value = json.loads((tmp_path / "out" / "00_16_0001.json").read_text())
    assert value["people"] == [] and value["camera"]["K"][0][0] == 116


def test_the_command_line_names_photos_first(photo):
    config = tyro.cli(PredictConfig, args=[str(photo), "--model", "models:/das-demo@champion", "--fov", "70"])
    assert config == PredictConfig((str(photo),), "models:/das-demo@champion", fov=70)


def test_wrong_settings_are_named(photo, tmp_path):
    refused(lambda: PredictConfig((), "model"), "files is empty")
    refused(lambda: PredictConfig((str(photo),), "model", fov=180), "fov = 180")
    refused(lambda: PredictConfig((str(photo),), "model", threshold=1.0), "threshold = 1.0")
    refused(lambda: PredictConfig((str(tmp_path / "none.jpg"),), "model"), "none.jpg: no such file")
    twin = tmp_path / "twin" / photo.name
    twin.parent.mkdir()
    twin.write_bytes(photo.read_bytes())
    refused(lambda: PredictConfig((str(photo), str(twin)), "model"), str(twin), "same results")
    config = PredictConfig((str(photo),), str(tmp_path / "nowhere"), out=str(tmp_path / "out"))
    refused(lambda: predict(config), "nowhere")
    assert written(tmp_path / "out") == []


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "walk.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (160, 90))
    for i in range(4):
        writer.write(np.full((90, 160, 3), 40 * i, np.uint8))
    writer.release()
    return path


def test_a_video_becomes_an_overlay_and_a_line_per_frame(predictor, video, tmp_path):
    frames, overlay = predict_video(predictor, video, tmp_path / "out")
    assert frames == 4 and written(tmp_path / "out") == ["walk.jsonl", "walk_overlay.mp4"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "walk.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3] and lines[0]["camera"]["assumed"]
    capture = cv2.VideoCapture(str(overlay))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)


def test_a_video_that_is_none_leaves_nothing_behind(predictor, tmp_path):
    path = tmp_path / "walk.mp4"
    path.write_bytes(b"no video")
    refused(lambda: predict_video(predictor, path, tmp_path / "out"), "walk.mp4", "no video")
    assert written(tmp_path / "out") == []


def record(frame: int, K: np.ndarray | None) -> Record:
    """An image without people, as prepared rows hold it."""
    image = np.random.default_rng(frame).integers(0, 255, (90, 160, 3), np.uint8)
    data = cv2.imencode(".png", image)[1].tobytes()
    return Record(
        key=f"synthetic/walk/00_16/{frame:08d}",
        source="synthetic",
        sequence="walk",
        camera="00_16",
        frame=frame,
        split="test",
        activity="",
        skeleton="panoptic15",
        image=data,
        image_sha256=hashlib.sha256(data).hexdigest(),
        height=90,
        width=160,
        K=K,
        distortion=None if K is None else np.array([-0.1, 0.01, 0, 0, 0]),
        R=None,
        t_mm=None,
        person_id=np.zeros(0, np.int64),
        joints_uv=np.zeros((0, 15, 2), np.float32),
        joints_cam=None if K is None else np.zeros((0, 15, 3), np.float32),
        joints_cam_univ=None,
        confidence=None,
        state=np.zeros((0, 15), np.uint8),
        bbox=np.zeros((0, 4), np.float32),
        ignore=np.zeros(0, bool),
        valid=np.zeros(0, bool),
    )


def test_rows_become_people_with_the_key_of_their_image(checkpoint, predictor):
    K = np.array([[130.0, 0, 79.5], [0, 130, 44.5], [0, 0, 1]])
    records = [record(0, K), record(1, None), record(2, K)]
    columns = BatchPredictor(str(checkpoint))(to_table(records))
    assert len(columns["key"]) == 9 and all(len(column) == 9 for column in columns.values())
    assert columns["rank"].tolist() == [0, 1, 2] * 3
    assert columns["assumed_camera"].tolist() == [False] * 3 + [True] * 3 + [False] * 3
    for i, row in enumerate(records):
        image = cv2.imdecode(np.frombuffer(row.image, np.uint8), cv2.IMREAD_COLOR_RGB)
        camera = intrinsics_from_fov(160, 90, 60) if row.K is None else row.K
        expected = predictor.predict(image, camera, row.distortion).people
        mine = columns["key"] == row.key
        assert mine.tolist() == [k // 3 == i for k in range(9)]
        np.testing.assert_allclose(columns["joints_cam"][mine], expected.joints_cam, rtol=1e-3, atol=0.5)
        np.testing.assert_allclose(columns["score"][mine], expected.scores, rtol=1e-5)
    assert columns["joints_uv"].shape == (9, J, 2) and columns["root_cam"].shape == (9, 3)


def test_rows_without_people_keep_the_shape_of_columns(checkpoint):
    columns = BatchPredictor(str(checkpoint), threshold=0.99)(to_table([record(0, None)]))
    assert columns["joints_cam"].shape == (0, J, 3) and columns["key"].shape == (0,)
    assert columns["score"].dtype == np.float32


def test_a_row_that_cannot_be_read_names_its_key(checkpoint):
    table = to_table([record(7, None)])
    broken = replace(record(7, None), image=b"\xff\xd8 broken")
    rows = {**table.to_pylist()[0], "image": broken.image}
    refused(lambda: BatchPredictor(str(checkpoint))(FakeTable([rows])), "synthetic/walk/00_16/00000007")


class FakeTable:
    """A table that was spoiled after it had been checked."""

    def __init__(self, rows):
        self.rows = rows

    def to_pylist(self):
        return self.rows


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
        # What is reported in space projects, through OpenCV's distortion, to the pixels that are reported.
        for person in value["people"]:
            points = np.array(person["joints_cam"])
            zero = np.zeros(3)
            uv = cv2.projectPoints(points, zero, zero, np.array(camera["K"]), np.array(camera["distCoef"]))[0][:, 0]
            inside = (np.array(person["joints_uv"]) > 0).all(1) & (np.array(person["joints_uv"]) < [1920, 1080]).all(1)
            np.testing.assert_allclose(uv[inside], np.array(person["joints_uv"])[inside], atol=0.02)
