"""Validation: the workers' shares of the val images, and what an untrained model's scores are named."""

import dataclasses

import pytest
import ray.train
import torch

from das.metrics.strict import OperatingPoint
from das.model import DAS
from pipeline.training import validation
from pipeline.training.job import training_job
from pipeline.training.validation import SELECT_BY, Validator
from tests.pipeline.training.ray_train_stand_in import Shard, StandIn
from tests.pipeline.training.training_cases import tiny


def test_every_val_image_is_predicted_by_exactly_one_worker(prepared):
    job = training_job(tiny(prepared))
    shares = [Validator(job.config, job.info, job.val_keys, rank, world=3).own_keys for rank in range(3)]
    assert sorted(key for share in shares for key in share) == job.val_keys
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("batch_size", [1, 4])
def test_only_the_given_keys_are_scored_in_batches_of_any_size(prepared, tmp_path, monkeypatch, batch_size):
    job = training_job(tiny(prepared, val_images=3))
    stand_in = StandIn(prepared, tmp_path)
    people = sum(len(row["person_id"]) for row in stand_in.rows["val"] if row["key"] in job.val_keys)
    config = dataclasses.replace(job.config, ingest=dataclasses.replace(job.config.ingest, batch_size=batch_size))
    monkeypatch.setattr(ray.train, "get_dataset_shard", stand_in.shard)
    torch.manual_seed(0)
    numbers, info = Validator(config, job.info, job.val_keys, rank=0, world=1)(DAS(job.info.model))
    assert 0 < numbers["val/people"] <= people
    assert numbers["val/score_threshold"] == info.score_threshold and SELECT_BY in numbers
    assert all(name.startswith("val/") for name in numbers)


def test_the_decoding_with_the_best_f1_on_val_is_the_models_own(prepared, tmp_path, monkeypatch):
    """With more suppression fewer people are found twice; what scores best is stored, and scored."""
    job = training_job(tiny(prepared, val_images=3))
    stand_in = StandIn(prepared, tmp_path)
    monkeypatch.setattr(ray.train, "get_dataset_shard", stand_in.shard)
    monkeypatch.setattr(validation, "LEAST_SCORE", 0.0)
    torch.manual_seed(0)
    model = DAS(job.info.model)
    # The same pose at every feature point, so large that neighbours overlap.
    pose = torch.randn(job.info.model.n_joints, 3) * torch.tensor([1.5, 1.5, 0.1])
    model.set_priors(mean_root=torch.tensor([0.0, 0.0, 30.0]), mean_offsets=pose)

    def validated(*oks_thresholds):
        config = dataclasses.replace(job.config, oks_thresholds=oks_thresholds)
        return Validator(config, job.info, job.val_keys, rank=0, world=1)(model)

    alone = {oks: validated(oks) for oks in (0.05, 0.5, 1.0)}
    f1 = {oks: numbers["val/f1"] for oks, (numbers, _) in alone.items()}
    assert len(set(f1.values())) == 3 and max(f1.values()) > 0
    best = max(f1, key=f1.get)
    numbers, info = validated(*f1)
    assert numbers == alone[best][0] and info == alone[best][1]
    assert (info.model.oks_threshold, info.score_threshold) == (best, numbers["val/score_threshold"])
    kept, _ = validated()
    assert kept["val/oks_threshold"] == job.info.model.oks_threshold


def test_suppression_is_chosen_by_f1_and_neither_by_recall_nor_by_precision(prepared, tmp_path, monkeypatch):
    job = training_job(tiny(prepared, val_images=1))
    config = dataclasses.replace(job.config, oks_thresholds=(0.05, 0.5, 1.0))
    monkeypatch.setattr(ray.train, "get_dataset_shard", StandIn(prepared, tmp_path).shard)
    best = iter(
        [
            OperatingPoint(score=0.5, threshold=0.4, f1=0.504, recall=0.9, precision=0.35),
            OperatingPoint(score=0.4, threshold=0.3, f1=0.7, recall=0.6, precision=0.84),
            OperatingPoint(score=0.3, threshold=0.2, f1=0.611, recall=0.45, precision=0.95),
        ]
    )
    monkeypatch.setattr(validation, "best_threshold", lambda *_: next(best))
    _, info = Validator(config, job.info, job.val_keys, rank=0, world=1)(DAS(job.info.model))
    assert (info.model.oks_threshold, info.score_threshold) == (0.5, 0.3)


def test_without_people_to_choose_by_the_decoding_is_kept(prepared, monkeypatch):
    job = training_job(tiny(prepared))
    monkeypatch.setattr(ray.train, "get_dataset_shard", lambda _: Shard([]))
    _, info = Validator(job.config, job.info, [], rank=0, world=1)(DAS(job.info.model))
    assert info == job.info
