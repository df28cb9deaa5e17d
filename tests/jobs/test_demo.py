"""The demo as a whole, on a plan so small that the gate must refuse its model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytestmark = pytest.mark.slow

SMALL = """
from dataclasses import replace
from pipeline import cli, demo

def small(config):
    usual = plan(config)
    studio = replace(usual.studio, train_frames=8, val_frames=4, test_frames=4)
    return replace(usual, studio=studio, epochs=1, val_images=16)

plan, demo.plan = demo.plan, small
cli.main(["demo"])
"""


def test_a_demo_whose_model_is_refused_still_makes_report_picture_and_next_commands_and_says_why(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "DAS_STORAGE")}
    ended = subprocess.run(
        [sys.executable, "-c", SMALL], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    summary = json.loads((tmp_path / "runs/demo-data/summary.json").read_text())
    assert summary["strict"]["recall"] < 0.5 and "NaN" not in json.dumps(summary)
    assert summary["promoted"] is False and summary["model_uri"] == str(tmp_path / "runs/demo/best")
    assert cv2.imread(summary["overlay"]) is not None
    assert "Strict protocol" in Path(summary["report"]).read_text()
    assert f"predict photo.jpg --model {tmp_path}/runs/demo/best" in ended.stdout
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("not promoted: ") and "F1" in last and f"Delete {tmp_path}/runs/demo" in last
    # The model is in the default storage, so a command without --tracking-uri finds its registry.
    assert (tmp_path / "runs/mlflow.db").exists()
