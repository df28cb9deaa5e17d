"""Small annotated images and predictions for them, made in memory, for tests of evaluation and promotion."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from das.camera import project
from das.checkpoint import save_model
from das.config import small
from das.model import DAS
from das.model_info import ModelInfo
from das.recipe import InputSize
from das.skeleton import COCO19, MUPOTS17, PANOPTIC15, conversion, skeleton_named
from pipeline.data.manifest import Manifest, SplitInfo
from pipeline.data.prepare.shard_task import CONVERTER_VERSION
from pipeline.data.record import Record, key_of
from pipeline.data.schema import VERSION
from pipeline.data.shards import write_records
from pipeline.evaluation.annotations import Annotations, ImageIndex
from pipeline.evaluation.benchmark.runtime import Runtime
from pipeline.evaluation.predictions_file import PredictionSet, Provenance
from pipeline.evaluation.score import score
from pipeline.evaluation.scores import Scores
from pipeline.infra.columns import write_columns
from pipeline.infra.files import write_json
from tests.pipeline.data.original_layouts import STANDING, jpeg

HEIGHT, WIDTH = 180, 320
K = np.array([[240.0, 0, 160], [0, 240, 90], [0, 0, 1]])
# Rotation world to camera: a camera turned 37 degrees about the vertical axis.
R = np.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]])
LENS = np.array([-0.28, 0.19, -0.0004, 0.0005, -0.05])
SCORES = Scores(
    protocol="strict",
    split="panoptic/test",
    skeleton="panoptic15",
    data_fingerprint="d1",
    model_fingerprint="m1",
    train_fit=False,
    mpjpe_mm=90.0,
    recall=0.95,
    precision=0.9,
    baseline_mpjpe_mm=150.0,
    mpjpe_with_misses_mm=93.0,
    baseline_mpjpe_with_misses_mm=150.0,
)


def upright_person(skeleton, x_mm=0.0, z_mm=4000.0, seed=0):
    """(J, 3) mm, camera frame: an upright person of natural size, with noise of 60 mm by seed."""
    joints = np.array([STANDING.get(j, STANDING["mid_hip"]) for j in skeleton.joints], float) * 10
    rng = np.random.default_rng(seed)
    return joints + rng.normal(0, 60, joints.shape) + (x_mm, 900, z_mm)


def record(people, skeleton=COCO19, frame=0, sequence="seq1", activity="", source="panoptic", distortion=None):
    """An image of these people (N, J, 3) mm; all joints are labelled, with confidence 0.6 in Panoptic's layout."""
    people = np.asarray(people, float).reshape(-1, len(skeleton), 3)
    n = len(people)
    uv = project(people, K, distortion)
    low, high = uv.min(axis=1), uv.max(axis=1)
    panoptic = source in ("panoptic", "synthetic")
    image = jpeg(HEIGHT, WIDTH, seed=hash_number(f"{sequence}{frame}"))
    return Record(
        key=key_of(source, sequence, "00_16", frame),
        source=source,
        sequence=sequence,
        camera="00_16",
        frame=frame,
        split="test",
        activity=activity,
        skeleton=skeleton.name,
        image=image,
        image_sha256=hashlib.sha256(image).hexdigest(),
        height=HEIGHT,
        width=WIDTH,
        K=K,
        distortion=distortion,
        R=R if panoptic else None,
        t_mm=np.zeros(3) if panoptic else None,
        person_id=np.arange(n),
        joints_uv=uv.astype(np.float32),
        joints_cam=people.astype(np.float32),
        joints_cam_univ=None,
        confidence=np.full((n, len(skeleton)), 0.6, np.float32) if panoptic else None,
        state=np.full((n, len(skeleton)), 2, np.uint8),
        bbox=np.concatenate([low, high], axis=1).astype(np.float32).reshape(n, 4),
        ignore=np.zeros(n, bool),
        valid=np.ones(n, bool),
    )


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def metrics(records, predictions, threshold=None):
    return score(annotations_of(records), predictions, threshold).metrics


def moved(records, offset, skeleton=PANOPTIC15):
    return [people + offset for people in joints_as(records, skeleton)]


def mupots_scene(frames=4):
    return scene(MUPOTS17, frames, source="mupots", activity="")


def as_muco(records):
    """True people in 21 joints; the four that MuPoTS lacks have arbitrary positions."""
    return [np.concatenate([r.joints_cam.astype(float), r.joints_cam[:, :4] + 99.0], axis=1) for r in records]


def hash_number(text):
    return int(hashlib.sha256(text.encode()).hexdigest()[:6], 16)


def scene(skeleton=COCO19, frames=4, **more):
    """Records of two people a frame in two sequences of two activities."""
    return [
        record(
            [upright_person(skeleton, -500, 4000, seed=2 * i), upright_person(skeleton, 600, 5000, seed=2 * i + 1)],
            skeleton,
            frame=i,
            **{"sequence": f"seq{i % 2}", "activity": ("haggling", "mafia")[i % 2], **more},
        )
        for i in range(frames)
    ]


def manifest_of(records, split="test", shards=()):
    info = SplitInfo(len(records), sum(map(len, records)), 0, 0, 0, {}, {}, tuple(shards))
    content = "".join(r.content_hash() for r in records)
    return Manifest(
        schema_version=VERSION,
        converter_version=CONVERTER_VERSION,
        code_version="0",
        source=records[0].source if records else "panoptic",
        terms="for tests",
        skeletons=tuple(sorted({r.skeleton for r in records})),
        split_manifest="tests@0",
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        inputs="0",
        splits={split: info},
    )


def annotations_of(records):
    return Annotations(("prepared",), (manifest_of(records),), "test", (), records, ImageIndex.of(records))


def write_prepared(folder: Path, records, split="test"):
    """A prepared folder as `das prepare` leaves it."""
    records = [replace(r, split=split) for r in records]
    shard = f"{split}/shard-00000.parquet"
    write_records(folder / shard, records)
    index = {"split": [split] * len(records), "key": [r.key for r in records]}
    write_columns(folder / "index.parquet", {**index, "image_sha256": [r.image_sha256 for r in records]})
    write_json(folder / "manifest.json", asdict(manifest_of(records, split, [shard])))
    return folder


def joints_as(records, skeleton):
    """True joints (N, J, 3) mm of every record's people in another joint set."""
    return [r.joints_cam[:, conversion(skeleton_named(r.skeleton), skeleton).index].astype(float) for r in records]


def provenance_of(records, skeleton=PANOPTIC15, **changes):
    provenance = Provenance(
        model_fingerprint="m" * 64,
        data_fingerprint=annotations_of(records).fingerprint,
        train_fit=False,
        skeleton=skeleton,
        unsupervised_joints=(),
        mean_pose=tuple((float(i), 0.0, 0.0) for i in range(len(skeleton))),
        score_threshold=0.3,
        release_threshold=0.05,
        least_score=0.01,
        code_version="0",
    )
    return replace(provenance, **changes)


def predictions_of(records, people=None, skeleton=PANOPTIC15, scores=0.9, **changes):
    """Predictions at the given joints (perfect ones by default): one (n, J, 3) array and its scores per record."""
    people = joints_as(records, skeleton) if people is None else people
    counts = np.array([len(p) for p in people])
    cam = np.concatenate([np.zeros((0, len(skeleton), 3)), *people])
    lenses = [np.zeros(5) if r.distortion is None else r.distortion for r in records]
    uv = [project(np.asarray(p), r.K, lens) for p, r, lens in zip(people, records, lenses, strict=True)]
    return PredictionSet(
        provenance=provenance_of(records, skeleton, **changes),
        keys=tuple(r.key for r in records),
        counts=counts,
        scores=np.broadcast_to(np.asarray(scores, float), (counts.sum(),)).copy(),
        joints_uv=np.concatenate([np.zeros((0, len(skeleton), 2)), *uv]),
        joints_cam=cam,
    )


RUNTIME = Runtime("cpu", 1, False, (180, 320), (96, 128), 4, 2.5, 21.4, 25.1, {"decode": 2.0, "network": 9.0}, 8, 55.0,
                  612.0, None)  # fmt: skip
MODEL = replace(small(), backbone_width=8, fpn_channels=32, max_people=3)


SIZE = InputSize(128, 72)


def write_checkpoint(folder: Path, config=MODEL, trained_on=(), index=True, seed=0, threshold=0.0, test_size=SIZE):
    """An untrained model that predicts people on every image, and the index of what it was trained on."""
    torch.manual_seed(seed)
    model = DAS(config)
    # Offsets and depth of a person, so that a prediction is more than a single point.
    model.set_priors(mean_root=torch.tensor([0.0, 0.0, 30.0]), mean_offsets=torch.randn(config.n_joints, 3))
    info = ModelInfo(
        model=config,
        test_size=test_size,
        weights="raw",
        score_threshold=threshold,
        unsupervised_joints=(),
        recipe={},
        data={"sources": ["panoptic"], "fingerprints": ["f"], "terms": ["research only"], "split": "train"},
        code_version="0",
        mean_pose=tuple((float(i), 0.0, 0.0) for i in range(config.n_joints)),
    )
    save_model(folder, model, info)
    if index:
        keys, images = [r.key for r in trained_on], [r.image_sha256 for r in trained_on]
        columns = {"key": ["another", *keys], "image_sha256": ["another", *images]}
        write_columns(folder / "training_index.parquet", columns)
    return folder


def read(path: Path):
    return json.loads(Path(path).read_text())
