"""Validation: the workers' shares of the val images, and what an untrained model's scores are named."""

import dataclasses

import numpy as np
import pytest
import ray.train
import torch

from das.metrics.tables import Predictions, Truth
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
    numbers, threshold = Validator(config, job.info, job.val_keys, rank=0, world=1)(DAS(job.info.model))
    assert 0 < numbers["val/people"] <= people
    assert numbers["val/score_threshold"] == threshold and SELECT_BY in numbers
    assert all(name.startswith("val/") for name in numbers)


def test_the_threshold_keeps_92_of_100_people_where_the_best_f1_keeps_91(prepared, monkeypatch):
    """91 people have a score of 0.9; then 200 false alarms come before each of two more people, at 0.4 and at 0.2."""
    skeleton = training_job(tiny(prepared)).info.model.skeleton
    pose = np.zeros((100, len(skeleton), 3))
    pose[..., 2] = 3000.0
    box = np.tile([-50.0, -50, 50, 50], (100, 1))
    truth = Truth(np.arange(100), pose, np.ones(pose.shape[:2], bool), pose[..., :2], box)
    frame = np.concatenate([np.arange(91), np.arange(200) % 91, [91], np.arange(200) % 91, [92]])
    scores = np.repeat([0.9, 0.5, 0.4, 0.3, 0.2], [91, 200, 1, 200, 1])
    false_alarm = np.isin(scores, (0.5, 0.3))
    uv = np.where(false_alarm[:, None, None], 1e4, np.zeros((len(frame), len(skeleton), 2)))
    found = Predictions(frame, np.repeat(pose[:1], len(frame), axis=0), scores, uv)
    monkeypatch.setattr(validation, "strict_truth", lambda *_: truth)
    monkeypatch.setattr(validation, "predicted", lambda *_: found)
    monkeypatch.setattr(ray.train, "get_dataset_shard", lambda _: Shard([]))
    job = training_job(tiny(prepared))
    numbers, threshold = Validator(job.config, job.info, [], rank=0, world=1)(DAS(job.info.model))
    assert numbers["val/recall"] == pytest.approx(0.92) and 0.3 <= threshold < 0.4
