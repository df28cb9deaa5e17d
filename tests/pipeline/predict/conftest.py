"""An untrained checkpoint, its predictor, and a photo."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from das.checkpoint import save_model
from das.model import DAS
from das.model_info import ModelInfo
from das.predictor import Predictor
from das.recipe import InputSize
from tests.pipeline.predict.prediction_cases import CONFIG

J = CONFIG.n_joints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained model whose score threshold of 0 keeps every candidate."""
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
