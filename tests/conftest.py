"""Fixtures shared by all tests: where recorded vectors and optional data live."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

# Ray reads these once, when it first starts in a process: set for all tests alike, and for what they start.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def _absent(what: str, reason: str) -> None:
    """Skips with a one-line reason, or fails where the environment says that this must be present."""
    if what in os.environ.get("DAS_REQUIRE", "").split(","):
        pytest.fail(f"DAS_REQUIRE lists {what!r}, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the recorded vectors, with model/ and metrics/ below."""
    folder = Path(os.environ.get("DAS_GOLDEN", PROJECT / "tests" / "golden"))
    assert folder.is_dir(), f"DAS_GOLDEN = {folder} is no folder"
    return folder


@pytest.fixture(scope="session")
def das_data() -> Path:
    """Folder of small real data ($DAS_DATA); its tests are skipped without it."""
    value = os.environ.get("DAS_DATA")
    if not value:
        _absent("data", "DAS_DATA is not set: no real data to test on")
    folder = Path(value).resolve()
    if not folder.is_dir():
        _absent("data", f"DAS_DATA = {folder} is no folder")
    return folder
