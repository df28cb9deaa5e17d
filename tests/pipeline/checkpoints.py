"""Small complete checkpoints and finished training runs, for tests of models and of the registry."""

from dataclasses import replace

from das.checkpoint import save_model, save_training_state
from das.config import small
from das.model import DAS
from das.model_info import ModelInfo
from das.recipe import InputSize
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.registry.registered_model import CHAMPION, RegisteredModel
from pipeline.tracking.tracker import Tracker

CONFIG = replace(small(), backbone_width=8, fpn_channels=32, update="none", update_layers=0)


def write_checkpoint(folder, seed):
    """A checkpoint folder with a training state; the code version depends on the seed."""
    info = ModelInfo(
        model=CONFIG,
        test_size=InputSize(256, 144),
        weights="raw",
        score_threshold=0.3,
        unsupervised_joints=(),
        recipe={},
        data={"sources": ["synthetic"], "fingerprints": ["abc"], "terms": ["none"], "split": "train"},
        code_version=f"1.{seed}",
        mean_pose=tuple((0.0, 0.0, 0.0) for _ in range(CONFIG.n_joints)),
    )
    save_model(folder, DAS(CONFIG), info)
    save_training_state(folder, {"epoch": seed})
    return folder


def finished_run(uri, name, folder):
    """Tracker of a finished training run."""
    with Tracker.open(uri, "tests", name, folder) as tracker:
        pass
    return tracker


def model_named(uri, name):
    """The registered model of a name in the store at an address."""
    return RegisteredModel(MlflowStore(uri), name)


def point_champion_at(uri, name, version):
    """Sets the alias directly in MLflow, without a gate."""
    MlflowStore(uri).client().set_registered_model_alias(name, CHAMPION, str(version))
