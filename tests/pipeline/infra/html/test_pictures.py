"""Pictures on a page are bounded in width and bytes."""

import base64

import cv2
import numpy as np
import pytest

from pipeline.infra.html.pictures import MOST_BYTES, WIDTH, data_uri


@pytest.mark.parametrize("shape", [(480, 1300), (1080, 3008), (40, 30)])
def test_pictures_are_bounded_in_width_and_bytes(shape):
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    uri = data_uri(cv2.imencode(".jpg", noise)[1].tobytes())
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert len(data) <= MOST_BYTES and image.shape[1] <= WIDTH
    assert image.shape[1] / image.shape[0] == pytest.approx(shape[1] / shape[0], rel=0.02)
