"""A small model and prepared images to measure it on."""

import pytest

from das.predictor import Predictor
from tests.pipeline.evaluation.evaluation_cases import scene, write_checkpoint, write_prepared


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """Folder with `prepared` data and a `model`, whose threshold is low enough for it to find people."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_prepared(folder / "prepared", scene(frames=4))
    write_checkpoint(folder / "model", threshold=0.001)
    return folder


@pytest.fixture
def predictor(place):
    """The model; a new one for each test."""
    return Predictor.from_folder(place / "model")
