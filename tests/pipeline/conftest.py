"""Fixtures: a local Ray, and a running MLflow server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pipeline.infra.cluster import ClusterConfig, connect
from tests.servers import MlflowServer


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A local Ray with two CPUs for the tests of one module; it is stopped afterwards, so that others can start one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        connect(ClusterConfig(address="local", num_cpus=2, object_store_mb=100))
        yield
        ray.shutdown()


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A running server for one test."""
    server = MlflowServer(tmp_path)
    server.start()
    yield server
    server.stop()
