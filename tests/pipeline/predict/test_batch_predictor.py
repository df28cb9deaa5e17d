"""Prediction of prepared rows (pipeline/evaluation/inference.py): keys, shapes, and rows that cannot be read."""

import hashlib
from dataclasses import replace

import cv2
import numpy as np

from das.camera import intrinsics_from_fov
from pipeline.data.record import Record
from pipeline.data.schema import to_table
from pipeline.evaluation.inference import BatchPredictor
from tests.pipeline.predict.prediction_cases import CONFIG, refused

J = CONFIG.n_joints


def record(frame: int, K: np.ndarray | None) -> Record:
    """A prepared row of an image without people."""
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


def test_predicted_people_have_the_key_of_their_image(checkpoint, predictor):
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
    """A table whose rows were damaged after the check of ``to_table``."""

    def __init__(self, rows):
        self.rows = rows

    def to_pylist(self):
        return self.rows
