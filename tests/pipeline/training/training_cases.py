"""Small trainings that the tests of this folder share, run within one process."""

import dataclasses

import pytest

from pipeline.training.config import IngestConfig, ModelChoice, TrainConfig
from pipeline.training.job import training_job
from pipeline.training.loop import train_loop
from pipeline.training.optim_config import OptimConfig

TINY = TrainConfig(
    model=ModelChoice("small", backbone_width=8),
    ingest=IngestConfig(recipe="small", width=96, height=54, batch_size=8),
    optim=OptimConfig("adamw", lr=2e-3, warmup_steps=2, schedule="cosine", epochs=3, clip_norm=10.0, ema_decay=0.9),
    seed=3,
)
# The training that the sweeps vary; it is not run here.
SWEPT = TrainConfig(
    model=ModelChoice("small", backbone_width=8),
    ingest=IngestConfig(recipe="small", width=96, height=54, batch_size=8),
    optim=OptimConfig(epochs=9),
)


def tiny(prepared, **changes) -> TrainConfig:
    """`TINY` on this prepared data, with some fields changed."""
    return dataclasses.replace(TINY, data=(str(prepared),), **changes)


def train(stand_in, config, val=True):
    """Trains within this process, without validation if ``val`` is False; returns the reports."""
    job = training_job(config)
    with pytest.MonkeyPatch.context() as patch:
        stand_in.install(patch)
        train_loop({"job": job if val else dataclasses.replace(job, val_rows=[])})
    return stand_in.reports


def tiny_optim(**changes) -> OptimConfig:
    """The optimisation of `TINY`, with some fields changed."""
    return dataclasses.replace(TINY.optim, **changes)
