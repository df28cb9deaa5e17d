"""Renderings that several tests read."""

from pathlib import Path

import pytest

from pipeline.studio.layouts import render_layout
from pipeline.studio.stage import plan_take
from tests.pipeline.studio.small_renderings import HD, SMALL, TINY


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("studio")
    pictures = render_layout(SMALL, root, workers=2)
    assert pictures == 2 * (6 + 3 + 3)
    return root


@pytest.fixture(scope="session")
def takes():
    names = [f"studio_test_{activity}1" for activity in ("haggling", "mafia", "ultimatum", "pizza")]
    return [plan_take(HD, name, number) for name in names for number in range(6)]


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    assert render_layout(TINY, root / "muco", workers=1, layout="muco") == 2 * 2 * 4
    assert render_layout(TINY, root / "coco", workers=1, layout="coco") == 2 * 4 + 2
    assert render_layout(TINY, root / "mupots", workers=1, layout="mupots") == 2 * 4
    return root
