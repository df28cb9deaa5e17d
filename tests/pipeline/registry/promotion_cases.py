"""Models of chosen quality with real evaluations, in seconds and without training.

All models are one untrained network that differs in the pose it predicts everywhere. The detections of the network with
the right pose are the ground truth of the images; the error of the other networks grows with ``off``, by which their
pose is moved. Images, checkpoints, predictions by the Predictor and scores by the strict protocol are real.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from das.checkpoint import save_criterion, save_model, save_training_state
from das.criterion import Criterion
from das.model import DAS
from das.model_info import ModelInfo
from das.predictor import Predictor
from das.recipe import InputSize
from pipeline.data.record import Record, decode_image, key_of
from pipeline.data.shards import find_records
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.predictions_file import Provenance, collect
from pipeline.evaluation.score import score
from pipeline.evaluation.scores import gate_scores
from pipeline.infra.cluster import ClusterConfig
from pipeline.infra.columns import write_columns
from pipeline.infra.files import write_json
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.models import fingerprint
from pipeline.registry.config import PromoteConfig
from pipeline.registry.registered_model import RegisteredModel
from pipeline.tracking.tracker import Tracker
from tests.pipeline.data.original_layouts import jpeg
from tests.pipeline.evaluation.evaluation_cases import HEIGHT, WIDTH, K, R, hash_number, write_prepared
from tests.pipeline.evaluation.evaluation_cases import MODEL as BASE

NAME = "das-demo"
# Non-maximum suppression compares poses; without it all models detect the same people.
MODEL = replace(BASE, oks_threshold=1.0)


def checkpoint_of(
    folder: Path, off: float = 0.0, code: str = "0", config=MODEL, seen=(), trained: bool = True, **about
) -> Path:
    """A checkpoint whose poses are wrong by ``off`` times a fixed pattern; ``code`` makes equal ones differ.

    ``about`` are fields of its description.
    """
    torch.manual_seed(0)
    model = DAS(config)
    pose = torch.randn(config.n_joints, 3) * torch.tensor([1.5, 1.5, 0.3])
    wrong = torch.randn(config.n_joints, 3) * torch.tensor([0.2, 0.2, 0.1])
    wrong[list(config.skeleton.root_indices)] = 0  # the roots stay where they are
    model.set_priors(mean_root=torch.tensor([0.0, 0.0, 60.0]), mean_offsets=pose + off * wrong)
    info = ModelInfo(
        model=config,
        test_size=InputSize(128, 72),
        weights="raw",
        score_threshold=0.0,
        unsupervised_joints=(),
        recipe={},
        data={"sources": ["panoptic"], "fingerprints": ["f"], "terms": ["research only"], "split": "train"},
        code_version=code,
        mean_pose=tuple((0.0, 0.0, 0.0) for _ in range(config.n_joints)),
    )
    info = replace(info, **about)
    save_model(folder, model, info)
    if trained:
        save_training_state(folder, {"epoch": 3})
        save_criterion(folder, Criterion(config))
    index = {"key": ["another", *(r.key for r in seen)], "image_sha256": ["another", *(r.image_sha256 for r in seen)]}
    write_columns(folder / "training_index.parquet", index)
    return folder


def truth_of(checkpoint: Path, sequences: int = 4, moments: int = 3) -> list[Record]:
    """Images of random blobs, ten seconds apart, with the people that this checkpoint detects as ground truth."""
    predictor = Predictor.from_folder(checkpoint)
    records = []
    for i in range(sequences * moments):
        sequence, frame = f"seq{i % sequences}", 300 * (i // sequences)
        image = jpeg(HEIGHT, WIDTH, seed=hash_number(f"{sequence}{frame}"))
        empty = Record(
            key=key_of("panoptic", sequence, "00_16", frame),
            source="panoptic",
            sequence=sequence,
            camera="00_16",
            frame=frame,
            split="test",
            activity=("haggling", "mafia")[i % 2],
            skeleton=predictor.skeleton.text,
            image=image,
            image_sha256=hashlib.sha256(image).hexdigest(),
            height=HEIGHT,
            width=WIDTH,
            K=K,
            distortion=np.zeros(5),
            R=R,
            t_mm=np.zeros(3),
            person_id=np.zeros(0, int),
            joints_uv=np.zeros((0, 15, 2), np.float32),
            joints_cam=np.zeros((0, 15, 3), np.float32),
            joints_cam_univ=None,
            confidence=None,
            state=np.zeros((0, 15), np.uint8),
            bbox=np.zeros((0, 4), np.float32),
            ignore=np.zeros(0, bool),
            valid=np.zeros(0, bool),
        )
        people = predictor.predict(decode_image(empty), K, np.zeros(5)).people
        n, uv = len(people.scores), people.joints_uv.astype(np.float32)
        records.append(
            replace(
                empty,
                person_id=np.arange(n),
                joints_uv=uv,
                joints_cam=people.joints_cam.astype(np.float32),
                state=np.full(uv.shape[:2], 2, np.uint8),
                bbox=np.concatenate([uv.min(axis=1), uv.max(axis=1)], axis=1),
                ignore=np.zeros(n, bool),
                valid=np.ones(n, bool),
            )
        )
    return records


def write_evaluation(checkpoint: Path, prepared: Path, out: Path, train_fit: bool = False) -> Path:
    """The files of an evaluation that promotion reads, as `das evaluate` writes them; the folder."""
    predictor = Predictor.from_folder(checkpoint)
    annotations = read_annotations([str(prepared)], "test")
    threshold = predictor.info.score_threshold
    mark = fingerprint(checkpoint)
    origin = Provenance.of(predictor.info, mark, annotations.fingerprint, train_fit, threshold, "0")
    rows = []
    for record in read_images(annotations):
        people = predictor.predict(decode_image(record), record.K, record.distortion).people
        n = len(people.scores)
        rows.append(
            {
                "key": np.full(n, record.key),
                "rank": np.arange(n),
                "score": people.scores,
                "joints_uv": people.joints_uv,
                "joints_cam": people.joints_cam,
            }
        )
    predictions = collect(origin, annotations.keys, rows)
    predictions.save(out / "predictions.parquet")
    sheet = score(annotations, predictions)
    write_json(out / "scores.json", gate_scores(annotations.name, origin, sheet.strict.numbers()).to_json())
    write_json(out / "report.json", {"data": {"folders": [str(prepared)]}})
    return out


def read_images(annotations):
    found = find_records(annotations.shards, annotations.keys)
    return [found[key] for key in annotations.keys]


class Place:
    """A storage folder with data, trainings and evaluations, and an MLflow store with one registered model."""

    def __init__(self, folder: Path, prepared: Path, tracking_uri: str | None = None) -> None:
        self.folder, self.prepared = folder, prepared
        self.uri = tracking_uri or f"sqlite:///{folder}/mlflow.db"
        self.store = MlflowStore(self.uri)
        self.model = RegisteredModel(self.store, NAME)

    def trained(self, name: str, off: float = 0.0, **more) -> Path:
        """The folder of a finished training's best checkpoint."""
        best = checkpoint_of(self.folder / name / "best", off, **more)
        with Tracker.open(self.uri, "das", name, self.folder / name) as tracker:
            tracker.log_metrics({"loss": 1.0}, step=0)
        write_json(self.folder / name / "finished.json", {"run_id": tracker.handle.run_id, "metrics": {}})
        return best

    def evaluated(self, checkpoint: Path, name: str | None = None, **more) -> Path:
        """The folder of its evaluation."""
        out = self.folder / "evaluations" / (name or checkpoint.parent.name)
        return write_evaluation(checkpoint, self.prepared, out, **more)

    def candidate(self, name: str, off: float, **more) -> PromoteConfig:
        """A trained and evaluated model as a candidate."""
        best = self.trained(name, off, **more)
        return self.config(best, self.evaluated(best))

    def config(self, checkpoint: Path | str, scores: Path | str, **changes) -> PromoteConfig:
        cluster = ClusterConfig(storage=str(self.folder), tracking_uri=self.uri)
        return replace(PromoteConfig(str(checkpoint), str(scores), NAME, cluster=cluster), **changes)


def prepare(folder: Path) -> Path:
    """Prepared data on which the model with ``off`` = 0 has no error."""
    right = checkpoint_of(folder / "right", trained=False)
    return write_prepared(folder / "prepared", truth_of(right))


def aliases(place: Place) -> dict[str, int]:
    """Alias -> version of the registered model, as MLflow has them."""
    found = place.store.client().get_registered_model(NAME).aliases
    return {alias: int(version) for alias, version in found.items()}
