"""Prepared data and an MLflow store for the tests of this folder."""

import shutil

import pytest

from pipeline.infra.mlflow_client import MlflowStore
from tests.pipeline.registry.promotion_cases import Place, prepare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """An sqlite store with its tables, which cost seconds to make."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowStore(f"sqlite:///{file}").client().search_experiments()
    return file


@pytest.fixture
def place(tmp_path, prepared, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Place(tmp_path, prepared)
