"""Fixtures that several modules of this folder share."""

import pytest

from tests.pipeline.evaluation.evaluation_cases import (
    predictions_of,
    scene,
    write_prepared,
)
from tests.pipeline.evaluation.report.page_cases import Case
from tests.pipeline.evaluation.report.page_cases import noisy as near
from tests.pipeline.evaluation.rescore_cases import FRAMES, noisy


@pytest.fixture
def no_cluster(monkeypatch):
    """Fails a test that starts or joins Ray."""
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started, but a file needs no cluster"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Prepared images, predictions of a good and of a bad model for them."""
    folder = tmp_path_factory.mktemp("rescore")
    records = scene(frames=FRAMES)
    write_prepared(folder / "prepared", records)
    predictions_of(records, noisy(records)).save(folder / "good.parquet")
    predictions_of(records, noisy(records, mm=90, seed=1), model_fingerprint="n" * 64).save(folder / "bad.parquet")
    return folder


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    """The evaluation of a model on four images in Panoptic's layout, with its page."""
    records = scene(frames=4)
    return Case(tmp_path_factory.mktemp("report"), records, near(records))
