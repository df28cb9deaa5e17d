"""An MLflow store for the tests of this folder."""

import pytest


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Tracking URI of one sqlite store; making its tables takes seconds, so the tests share it."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
