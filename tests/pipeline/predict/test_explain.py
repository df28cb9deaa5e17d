"""Score maps, offsets and residual densities against decoding; wrong joints and folders are refused before writing."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from das.codec import PoseCodec
from das.decode import find_candidates
from das.predictor import Predictor
from das.recursive_update import update_dense
from pipeline.predict.config import PredictConfig
from pipeline.predict.explain import _point_to_joint, draw_levels, draw_residual_density
from pipeline.predict.predict import predict
from tests.pipeline.registry.promotion_cases import MODEL, checkpoint_of


@pytest.fixture
def photo():
    return np.random.default_rng(1).integers(0, 255, (90, 160, 3), np.uint8)


@pytest.mark.parametrize("origin", ["root", "pixel"])
def test_arrows_end_at_the_decoded_joints(tmp_path, photo, origin):
    predictor = Predictor.from_folder(checkpoint_of(tmp_path / "model", config=replace(MODEL, offset_origin=origin)))
    inputs = predictor.prepare([photo], [np.eye(3)], [np.zeros(5)])
    output = predictor.network(inputs)
    found = find_candidates(output, predictor.model.config, 0.0)
    focal = torch.ones(len(found.score), dtype=torch.float64)
    uv, *_ = PoseCodec(predictor.model.config).decode(found.root, found.joints, found.points, found.stride, focal)
    seen = 0
    for level, state, stride in zip(output.levels, output.updates, MODEL.strides, strict=True):
        arrows = _point_to_joint(predictor, level.root[0], update_dense(state)[0], stride)
        for i in (found.stride == stride).nonzero()[:, 0].tolist():
            column, row = (found.points[i] // stride).long().tolist()
            expected = (uv[i] - found.points[i]).numpy()
            np.testing.assert_allclose(arrows[:, :, row, column], expected, rtol=1e-3, atol=1e-2)
            seen += 1
    assert seen > 100


def test_every_level_has_a_row_of_three_pictures(tmp_path, photo):
    predictor = Predictor.from_folder(checkpoint_of(tmp_path / "model"))
    picture = draw_levels(predictor, photo, "l_wrist")
    assert picture.dtype == np.uint8 and picture.shape[1] == 3 * 640 + 2 * 8
    assert picture.shape[0] > len(MODEL.strides) * 360
    assert not np.array_equal(picture, draw_levels(predictor, photo, "r_ankle"))


def test_the_residual_density_of_an_untrained_flow_is_the_laplace_prior(tmp_path):
    folder = checkpoint_of(tmp_path / "model")
    picture = draw_residual_density(folder, Predictor.from_folder(folder))
    assert picture is not None and picture.shape == (480, 480, 3)
    heat = picture.sum(-1).astype(int) * (picture.min(-1) < 150)  # without the white outlines
    assert heat[40:, 40:].max() == heat[230:250, 230:250].max() > 2 * heat[120, 240]


def test_a_model_without_likelihood_has_no_residual_density(tmp_path):
    folder = checkpoint_of(tmp_path / "model", config=replace(MODEL, pose_likelihood="l1"))
    assert draw_residual_density(folder, Predictor.from_folder(folder)) is None


def test_inside_adds_two_kinds_of_pictures(tmp_path, photo, capsys):
    folder = checkpoint_of(tmp_path / "model")
    assert cv2.imwrite(str(tmp_path / "a.png"), photo)
    predict(PredictConfig((str(tmp_path / "a.png"),), str(folder), str(tmp_path / "out"), inside="head"))
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"a.json", "a_overlay.jpg", "a_top.png", "a_inside.png", "residuals.png"}
    assert "a_inside.png" in capsys.readouterr().out


def test_a_wrong_joint_folder_or_file_is_refused_before_writing(tmp_path, photo):
    folder = checkpoint_of(tmp_path / "model")
    assert cv2.imwrite(str(tmp_path / "a.png"), photo)
    config = PredictConfig((str(tmp_path / "a.png"),), str(folder), str(tmp_path / "out"), inside="wrist")
    with pytest.raises(ValueError, match="joint = 'wrist', wanted one of neck"):
        predict(config)
    (folder / "criterion.safetensors").unlink()
    with pytest.raises(ValueError, match="criterion.safetensors"):
        predict(replace(config, inside="head"))
    (tmp_path / "walk.mp4").touch()
    with pytest.raises(ValueError, match="inside draws on photos only"):
        replace(config, files=(str(tmp_path / "walk.mp4"),))
    assert not (tmp_path / "out").exists()
