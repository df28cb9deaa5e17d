"""Validation: the workers' shares of the val images, and what an untrained model's scores are named."""

import dataclasses
from pathlib import Path

import pytest
import torch

from das.metrics.operating_points import OperatingPoint
from das.model import DAS
from pipeline.data.data_sets import DataSet
from pipeline.data.stored_rows import StoredRows, read_rows, spread
from pipeline.infra.columns import read_columns
from pipeline.training import validation
from pipeline.training.job import training_job
from pipeline.training.validation import SELECT_BY, Validator
from tests.pipeline.training.training_cases import tiny


def keys_of(rows):
    return [record.key for part in rows for record in read_rows(part.shard, part.group, part.rows)]


def test_every_val_image_is_predicted_by_exactly_one_worker(prepared):
    job = training_job(tiny(prepared))
    shares = [Validator(job.config, job.info, job.val_rows, rank, world=3).own for rank in range(3)]
    columns = read_columns(Path(prepared) / "index.parquet", ["split", "key"])
    every = {key for split, key in zip(*columns.values(), strict=True) if split == "val"}
    found = [key for share in shares for key in keys_of(share)]
    assert len(found) == len(every) and set(found) == every


def test_scored_images_are_spread_evenly_over_the_split(prepared):
    shard = DataSet(["a", "b"], [[10, 10], [5]])
    assert spread(shard, 100) == [*spread(DataSet(["a"], [[10, 10]]), 100), StoredRows("b", 0, (0, 1, 2, 3, 4))]
    assert spread(shard, 5) == [StoredRows("a", 0, (0, 5)), StoredRows("a", 1, (0, 5)), StoredRows("b", 0, (0,))]
    every = keys_of(training_job(tiny(prepared)).val_rows)
    assert keys_of(training_job(tiny(prepared, val_images=3)).val_rows) == every[:: -(-len(every) // 3)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_only_the_given_rows_are_scored_in_batches_of_any_size(prepared, batch_size):
    job = training_job(tiny(prepared, val_images=3))
    people = sum(len(record) for part in job.val_rows for record in read_rows(part.shard, part.group, part.rows))
    config = dataclasses.replace(job.config, ingest=dataclasses.replace(job.config.ingest, batch_size=batch_size))
    torch.manual_seed(0)
    numbers, info = Validator(config, job.info, job.val_rows, rank=0, world=1)(DAS(job.info.model))
    assert 0 < numbers["val/people"] <= people
    assert numbers["val/score_threshold"] == info.score_threshold and SELECT_BY in numbers
    assert all(name.startswith("val/") for name in numbers)


def test_the_decoding_with_the_best_f1_on_val_is_the_models_own(prepared, monkeypatch):
    """With more suppression fewer people are found twice; what scores best is stored, and scored."""
    job = training_job(tiny(prepared, val_images=3))
    monkeypatch.setattr(validation, "LEAST_SCORE", 0.0)
    torch.manual_seed(0)
    model = DAS(job.info.model)
    # The same pose at every feature point, so large that neighbours overlap.
    pose = torch.randn(job.info.model.n_joints, 3) * torch.tensor([1.5, 1.5, 0.1])
    model.set_priors(mean_root=torch.tensor([0.0, 0.0, 30.0]), mean_offsets=pose)

    def validated(*oks_thresholds):
        config = dataclasses.replace(job.config, oks_thresholds=oks_thresholds)
        return Validator(config, job.info, job.val_rows, rank=0, world=1)(model)

    alone = {oks: validated(oks) for oks in (0.05, 0.5, 1.0)}
    f1 = {oks: numbers["val/f1"] for oks, (numbers, _) in alone.items()}
    assert len(set(f1.values())) == 3 and max(f1.values()) > 0
    best = max(f1, key=f1.get)
    numbers, info = validated(*f1)
    assert numbers == alone[best][0] and info == alone[best][1]
    assert (info.model.oks_threshold, info.score_threshold) == (best, numbers["val/score_threshold"])
    kept, _ = validated()
    assert kept["val/oks_threshold"] == job.info.model.oks_threshold


def test_suppression_is_chosen_by_f1_and_neither_by_recall_nor_by_precision(prepared, monkeypatch):
    job = training_job(tiny(prepared, val_images=1))
    config = dataclasses.replace(job.config, oks_thresholds=(0.05, 0.5, 1.0))
    best = iter(
        [
            OperatingPoint(score=0.5, threshold=0.4, f1=0.504, recall=0.9, precision=0.35),
            OperatingPoint(score=0.4, threshold=0.3, f1=0.7, recall=0.6, precision=0.84),
            OperatingPoint(score=0.3, threshold=0.2, f1=0.611, recall=0.45, precision=0.95),
        ]
    )
    monkeypatch.setattr(validation, "best_threshold", lambda *_: next(best))
    _, info = Validator(config, job.info, job.val_rows, rank=0, world=1)(DAS(job.info.model))
    assert (info.model.oks_threshold, info.score_threshold) == (0.5, 0.3)


def test_without_people_to_choose_by_the_decoding_is_kept(prepared):
    job = training_job(tiny(prepared))
    _, info = Validator(job.config, job.info, [], rank=0, world=1)(DAS(job.info.model))
    assert info == job.info


def test_the_doubt_is_calibrated_on_the_people_who_are_found(prepared, monkeypatch):
    job = training_job(tiny(prepared))
    monkeypatch.setattr(validation, "LEAST_SCORE", 0.0)
    torch.manual_seed(0)
    model = DAS(job.info.model)
    model.set_priors(mean_root=torch.tensor([0.0, 0.0, 30.0]), mean_offsets=torch.randn(job.info.model.n_joints, 3))
    numbers, info = Validator(job.config, job.info, job.val_rows, rank=0, world=1)(model)
    assert info.calibration.uses_sigma and info.calibration.people["root"] == numbers["val/matched"] > 0
    median = info.calibration.radius("root", 0.5)
    assert 0 < median < info.calibration.radius("root", 0.6)
    assert job.info.calibration is None, "an untrained model has none"
