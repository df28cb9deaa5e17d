"""A local Ray for the tests that need one."""

from collections.abc import Iterator

import pytest
import ray

from pipeline.cluster import ClusterConfig, connect


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of two CPUs for the tests of one module, gone afterwards so that others can start their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        connect(ClusterConfig(address="local", num_cpus=2, object_store_mb=100))
        yield
        ray.shutdown()
