"""Wrong input of every kind gives one line with the value found and the value wanted, status 2, and no file."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from das.checkpoint import save_model
from das.model import DAS
from pipeline import cli
from pipeline.training.config import IngestConfig, ModelChoice, TrainConfig
from pipeline.training.job import training_job

PROJECT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Inputs:
    """Copies of valid input, which the cases damage. ``out`` is the folder in which a job would write."""

    prepared: Path
    checkpoint: Path
    photo: Path
    out: Path

    def shard(self) -> Path:
        return sorted((self.prepared / "train").glob("*.parquet"))[0]

    def train(self, *more):
        return ["train-panoptic", "small", "--data", str(self.prepared), *more]

    def evaluate(self):
        return ["evaluate", "--model", str(self.checkpoint), "--data", str(self.prepared)]

    def predict(self):
        return ["predict", str(self.photo), "--model", str(self.checkpoint), "--out", str(self.out / "predictions")]


def save_checkpoint(prepared: Path, folder: Path, width: int = 8) -> Path:
    """An untrained model's checkpoint folder."""
    model = ModelChoice("small", backbone_width=width)
    config = TrainConfig(data=(str(prepared),), model=model, ingest=IngestConfig(recipe="small", batch_size=4))
    torch.manual_seed(0)
    save_model(folder, DAS(model.build()), training_job(config).info)
    return folder


@pytest.fixture(scope="module")
def good(prepared, tmp_path_factory) -> Path:
    """A folder with a valid checkpoint and a photo."""
    folder = tmp_path_factory.mktemp("good")
    save_checkpoint(prepared, folder / "checkpoint")
    cv2.imwrite(str(folder / "photo.jpg"), np.full((72, 128, 3), 90, np.uint8))
    return folder


@pytest.fixture
def inputs(prepared, good, tmp_path, monkeypatch) -> Inputs:
    shutil.copytree(prepared, tmp_path / "prepared")
    shutil.copytree(good / "checkpoint", tmp_path / "checkpoint")
    shutil.copy(good / "photo.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAS_STORAGE", str(tmp_path / "runs"))
    return Inputs(tmp_path / "prepared", tmp_path / "checkpoint", tmp_path / "photo.jpg", tmp_path)


def edit_json(path: Path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ---- cases: each damages its input and returns the arguments of the command that reads it ----


def missing_folder(inputs):
    return ["train-panoptic", "small", "--data", "nowhere"]


def unfinished_conversion(inputs):
    (inputs.prepared / "manifest.json").unlink()
    return inputs.train()


def manifest_of_another_version(inputs):
    edit_json(inputs.prepared / "manifest.json", schema_version=9)
    return inputs.train()


def parquet_of_another_version(inputs):
    table = pq.read_table(inputs.shard())
    metadata = {key: b"9" if b"version" in key else value for key, value in table.schema.metadata.items()}
    assert metadata != table.schema.metadata
    pq.write_table(table.replace_schema_metadata(metadata), inputs.shard())
    return inputs.train()


def parquet_without_bytes(inputs):
    inputs.shard().write_bytes(b"")
    return inputs.train()


def parquet_without_rows(inputs):
    pq.write_table(pq.read_table(inputs.shard()).slice(0, 0), inputs.shard())
    return inputs.train()


def parquet_without_a_column(inputs):
    pq.write_table(pq.read_table(inputs.shard()).drop_columns("joints_uv"), inputs.shard())
    return inputs.train()


def rows_of_an_unknown_joint_set(inputs):
    table = pq.read_table(inputs.shard())
    at = table.schema.get_field_index("skeleton")
    pq.write_table(table.set_column(at, table.schema.field(at), [["coco99"] * len(table)]), inputs.shard())
    return inputs.train()


def model_of_an_unknown_joint_set(inputs):
    return inputs.train("--model.joints", "coco99")


def misspelt_flag(inputs):
    return inputs.train("--optim.learning-rate", "1")


def initial_weights_of_another_architecture(inputs):
    return inputs.train("--pretrained", str(inputs.checkpoint))  # small is 4 times as wide


def initial_weights_that_are_missing(inputs):
    return inputs.train("--pretrained", "weights.pth")


def too_little_data_for_a_step(inputs):
    return inputs.train("--ingest.batch-size", "100")


def sweep_over_a_missing_folder(inputs):
    return ["sweep", "small", "--train.data", "nowhere"]


def weights_of_another_architecture(inputs):
    save_checkpoint(inputs.prepared, inputs.out / "wide", width=16)
    shutil.copy(inputs.out / "wide" / "model.safetensors", inputs.checkpoint)
    return [*inputs.evaluate(), "--allow-overlap"]


def checkpoint_of_another_format(inputs):
    edit_json(inputs.checkpoint / "config.json", format=99)
    return inputs.predict()


def checkpoint_that_is_incomplete(inputs):
    (inputs.checkpoint / "config.json").unlink()
    return inputs.predict()


def champion_of_an_empty_registry(inputs):
    return ["predict", str(inputs.photo), "--model", "models:/das-demo@champion"]


def photo_that_is_no_image(inputs):
    inputs.photo.write_bytes(b"GIF89a\x40\x00\x30\x00, but no more of it")
    return inputs.predict()


def photo_that_is_missing(inputs):
    inputs.photo.unlink()
    return inputs.predict()


def evaluation_of_a_missing_folder(inputs):
    shutil.rmtree(inputs.prepared)
    return inputs.evaluate()


def scores_that_are_missing(inputs):
    return ["promote", "--model", str(inputs.checkpoint), "--scores", "scores.json", "--name", "das-demo"]


def originals_that_are_missing(inputs):
    return ["prepare", "--source", "panoptic", "--root", "nowhere", "--out", "out"]


def originals_without_a_known_sequence(inputs):
    (inputs.out / "raw" / "holiday").mkdir(parents=True)
    return ["prepare", "--source", "panoptic", "--root", "raw", "--out", "out"]


CASES = {
    missing_folder: ["nowhere does not exist", "wanted a folder made by `das prepare`"],
    unfinished_conversion: ["prepared holds no manifest", "wanted a folder made by `das prepare`"],
    manifest_of_another_version: ["manifest.json: schema version 9, wanted 1 or 2"],
    parquet_of_another_version: [".parquet", "version 9", "wanted 1 or 2"],
    parquet_without_bytes: [".parquet: not a Parquet file"],
    parquet_without_rows: [".parquet: holds 0 rows, wanted", "as the manifest of its folder says"],
    parquet_without_a_column: [".parquet: column joints_uv is missing, wanted"],
    rows_of_an_unknown_joint_set: [".parquet", "synthetic/", "coco99", "panoptic15"],
    model_of_an_unknown_joint_set: ["unknown joint set 'coco99'", "panoptic15"],
    misspelt_flag: ["das: unknown option --optim.learning-rate"],
    initial_weights_of_another_architecture: ["model.safetensors is of another architecture", "found", "wanted"],
    initial_weights_that_are_missing: ["weights.pth' does not exist, wanted a checkpoint folder, a file or a URL"],
    too_little_data_for_a_step: ["data has 32 training images, wanted at least one step of 100"],
    sweep_over_a_missing_folder: ["nowhere does not exist", "wanted a folder made by `das prepare`"],
    weights_of_another_architecture: ["model.safetensors is of another architecture", "found", "wanted"],
    checkpoint_of_another_format: ["config.json: checkpoint format 99 found, 1 wanted"],
    checkpoint_that_is_incomplete: ["checkpoint is no complete checkpoint: config.json is missing"],
    champion_of_an_empty_registry: ["tracking_uri", "there is no database", "mlflow.db"],
    photo_that_is_no_image: ["photo.jpg: no image that OpenCV can read"],
    photo_that_is_missing: ["photo.jpg: no such file"],
    evaluation_of_a_missing_folder: ["prepared does not exist", "wanted a folder made by `das prepare`"],
    scores_that_are_missing: ["scores = 'scores.json', wanted scores.json, its folder, or the id"],
    originals_that_are_missing: ["panoptic: no folder", "nowhere"],
    originals_without_a_known_sequence: ["raw holds no frames of train, val, test, wanted any of"],
}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_wrong_input_gives_one_line_and_status_2_and_writes_nothing(inputs, capsys, case):
    command = case(inputs)
    before = files(inputs.out)
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert ended.value.code == 2 and line.startswith("das: ") and not printed.out
    assert all(part in line for part in CASES[case]), line
    assert files(inputs.out) == before


def test_a_job_script_called_directly_ends_with_status_2(tmp_path):
    script = [sys.executable, str(PROJECT / "jobs" / "train_panoptic.py"), "small", "--data", "nowhere"]
    failed = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    (line,) = failed.stderr.splitlines()
    assert failed.returncode == 2 and line.startswith("das: ") and "nowhere does not exist" in line
    assert not list(tmp_path.iterdir())
