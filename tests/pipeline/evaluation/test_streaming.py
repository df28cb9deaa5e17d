"""Scoring run by run: the numbers of all images at once, in memory that hardly grows with the images."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from das.skeleton import COCO17, MUCO21, PANOPTIC15
from das.uncertainty import ROOT, Calibration, joint_groups
from pipeline.data.record import key_of
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.comparison import compare_models
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.predictions_file import PredictionFile
from pipeline.evaluation.rescore import rescore
from pipeline.evaluation.score import score, score_2d
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    as_muco,
    joints_as,
    predictions_of,
    scene,
    write_prepared,
)
from tests.pipeline.evaluation.rescore_cases import mupots

ALL_AT_ONCE = 1 << 30


def candidates(records, skeleton, seed=0):
    """Every person twice with noise, in every fifth image nobody, and scores of which many are equal."""
    rng = np.random.default_rng(seed)
    true = as_muco(records) if skeleton is MUCO21 else joints_as(records, skeleton)
    people = [np.concatenate([p, p + [300.0, 0, 0]]) if i % 5 else p[:0] for i, p in enumerate(true)]
    people = [p + rng.normal(0, 60, p.shape) for p in people]
    scores = np.round(rng.uniform(0.02, 1, sum(map(len, people))), 1)
    if skeleton is not PANOPTIC15:
        return predictions_of(records, people, skeleton, scores)
    groups = [name for name in joint_groups(skeleton) if name]
    doubt = Calibration.fit({name: rng.uniform(0, 3, 50) for name in (*groups, ROOT)}, uses_sigma=True)
    found = predictions_of(records, people, skeleton, scores, calibration=doubt)
    return replace(found, scales=rng.uniform(20, 90, (len(scores), len(skeleton))))


def panoptic_records():
    records = scene(frames=23)
    rng = np.random.default_rng(1)
    for record in records:
        record.state[rng.uniform(size=record.state.shape) < 0.2] = 1
        record.ignore[rng.uniform(size=2) < 0.2] = True
    return [replace(r, frame=60 * i, key=key_of("panoptic", r.sequence, "0", i)) for i, r in enumerate(records)]


def coco_records():
    return [replace(r, distortion=None) for r in scene(COCO17, 23, source="coco")]


CASES = {
    "panoptic": (panoptic_records, PANOPTIC15, score),
    "mupots": (lambda: mupots(23), MUCO21, score),
    "coco": (coco_records, COCO17, score_2d),
}


@pytest.mark.parametrize("kind", CASES)
def test_runs_of_images_give_the_numbers_of_all_images_at_once(kind, monkeypatch, tmp_path):
    make, skeleton, protocols = CASES[kind]
    records, cut = make(), Annotations.runs
    annotations, predictions = annotations_of(records), candidates(records, skeleton)
    predictions.save(tmp_path / "predictions.parquet")
    predictions = PredictionFile.open(str(tmp_path / "predictions.parquet"))

    def numbers(images):
        monkeypatch.setattr(Annotations, "runs", lambda self: cut(self, images))
        found = [protocols(annotations, predictions)]
        if kind == "panoptic":
            candidates(records, skeleton, seed=1).save(tmp_path / "other.parquet")
            found.append(compare_models(annotations, predictions, PredictionFile.open(str(tmp_path / "other.parquet"))))
        return found

    def same(mine, others):
        assert [*mine] == pytest.approx([*others], rel=1e-12, abs=1e-12, nan_ok=True)

    for found, whole in zip(numbers(5), numbers(ALL_AT_ONCE), strict=True):
        assert [*found.metrics] == [*whole.metrics] and len(found.metrics) > 10
        same(found.metrics.values(), whole.metrics.values())
        for mine, other in zip(found.tables, whole.tables, strict=True):
            assert (mine.name, [*mine.rows]) == (other.name, [*other.rows])
            for row in other.rows:
                same(mine.rows[row], other.rows[row])


def peak_of_scoring(folder, images):
    """Bytes: the peak of scoring this many images that differ in their keys, with about 8 candidates each."""
    some = scene(frames=8)
    frames = [i * (6000 // images) for i in range(images)]  # the same minutes of footage
    records = [
        replace(some[i % 8], key=key_of("panoptic", "seq", "00_16", frame), sequence="seq", frame=frame)
        for i, frame in enumerate(frames)
    ]
    write_prepared(folder / "prepared", records)
    people = [np.repeat(p, 4, axis=0) for p in joints_as(some, PANOPTIC15)]
    predictions_of(records, [people[i % 8] for i in range(images)]).save(folder / "p.parquet")
    config = EvaluateConfig(data=(str(folder / "prepared"),), predictions=str(folder / "p.parquet"))
    tracemalloc.start()
    try:
        rescore(config)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_image_more_takes_less_than_2_kb_of_the_drivers_memory(tmp_path):
    few, many = (peak_of_scoring(tmp_path / str(images), images) for images in (300, 700))
    assert (many - few) / 400 < 2000
