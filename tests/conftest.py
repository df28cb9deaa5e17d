"""Fixtures shared by all tests: where recorded vectors and optional data live."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from pipeline.studio.config import StudioConfig
from pipeline.studio.layouts import render_layout

PROJECT = Path(__file__).resolve().parent.parent

# Ray reads these once, when it first starts in a process: set for all tests alike, and for what they start.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


class ByFile(LoadScopeScheduling):
    """With several processes a file's tests stay in one of them, and so does all that starts Ray clusters for long.

    A file's tests share fixtures; two clusters that start at the same time on two cores are too slow for Ray's limits.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "jobs" if file.startswith("tests/jobs/") or file == "tests/test_documented_commands.py" else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Replaces the ways of --dist: marks of groups are not seen by pytest-xdist 3.8 under pytest 9.2."""
    return ByFile(config, log)


def absent(what: str, reason: str) -> None:
    """Skips with a one-line reason, or fails where the environment says that this must be present.

    Only what cannot be made here may be absent: data under their owners' licences, a browser, a GPU, the right to
    mount. A machine that has it lists it in DAS_REQUIRE, as continuous integration does, and there a skip would hide a
    gap.
    """
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
        absent("data", "DAS_DATA is not set: no real data to test on")
    folder = Path(value).resolve()
    if not folder.is_dir():
        absent("data", f"DAS_DATA = {folder} is no folder")
    return folder


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """A GPU that torch can compute on; its tests are skipped where there is none."""
    if not torch.cuda.is_available():
        absent("gpu", "torch sees no GPU here")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """The system's Chromium without a window, driven by its own chromedriver; skipped where they are not installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        absent("browser", "no chromium and chromedriver here: pages are not looked at")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # Containers have neither the rights for Chromium's sandbox nor much shared memory; the pages are our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both paths are given, so Selenium looks for nothing on the network.
    started = webdriver.Chrome(options, Service(driver))
    yield started
    started.quit()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A tiny prepared data set of rendered people, 128 x 72 pixels: 32 images of train, 6 of val, 4 of test."""
    folder = tmp_path_factory.mktemp("studio")
    studio = StudioConfig(
        width=128,
        height=72,
        train_frames=8,
        val_frames=3,
        test_frames=2,
        train_sequences=("studio_train_haggling1", "studio_train_mafia1"),
        val_sequences=("studio_val_mafia1",),
        test_sequences=("studio_test_pizza1",),
        take_frames=4,
        people_min=2,
        people_max=3,
    )
    render_layout(studio, folder / "raw", workers=1)
    # In a process of its own: this one's Ray, if there is any, belongs to other tests.
    command = [sys.executable, str(PROJECT / "jobs" / "prepare.py"), "--source", "synthetic", "--shard-mb", "0.05"]
    command += ["--root", str(folder / "raw"), "--out", str(folder / "prepared"), "--cluster.address", "local"]
    done = subprocess.run(
        [*command, "--cluster.object-store-mb", "100"],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "DAS_STORAGE": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "prepared"
