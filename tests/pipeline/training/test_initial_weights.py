"""Initial weights are checked before a training starts."""

from pathlib import Path

import pytest

from das.checkpoint import save_model
from das.model import DAS
from pipeline.training.config import ModelChoice
from pipeline.training.job import training_job
from tests.pipeline.training.training_cases import tiny


def other_model(prepared, folder) -> Path:
    """A checkpoint folder of a wider model."""
    wide = tiny(prepared, model=ModelChoice("small", backbone_width=16))
    save_model(folder, DAS(wide.model.build()), training_job(wide).info)
    return folder


def test_initial_weights_of_another_architecture_are_refused(prepared, tmp_path):
    wide = other_model(prepared, tmp_path / "wide")
    with pytest.raises(ValueError, match=r"wide/model.safetensors is of another architecture, \d+ tensors differ"):
        training_job(tiny(prepared, pretrained=str(wide)))
