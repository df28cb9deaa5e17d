"""Real refusals of the kernel, a folder that nobody can write and files that may not grow: one line, exit status 2.

Root may write everywhere but in /sys; a limit on the size of files acts as a full disk does, in the middle of a file.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pipeline.checkpoints import write_checkpoint
from tests.pipeline.data.original_layouts import write_custom
from tests.pipeline.evaluation.evaluation_cases import predictions_of, scene, write_prepared
from tests.pipeline.evaluation.rescore_cases import noisy

PROJECT = Path(__file__).resolve().parent.parent
LOCAL = ("--cluster.address", "local", "--cluster.object-store-mb", "100", "--cluster.num-cpus", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, a photo, images with predictions, and original data of 24 noisy images."""
    folder = tmp_path_factory.mktemp("place")
    write_checkpoint(folder / "model", 0)
    image = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    assert cv2.imwrite(str(folder / "photo.png"), image)
    records = scene(frames=4)
    write_prepared(folder / "images", records)
    predictions_of(records, noisy(records)).save(folder / "good.parquet")
    (folder / "custom").mkdir()
    write_custom(folder / "custom", 24)
    return folder


COMMANDS = {
    "predict": ("predict", "photo.png", "--model", "model", "--out", "OUT"),
    "stats": ("data", "stats", "images", "--out", "OUT/stats.html"),
    "show": ("data", "show", "images", "--out", "OUT"),
    "evaluate": ("evaluate", "--predictions", "good.parquet", "--data", "images", "--out", "OUT"),
    "prepare": ("prepare", "--source", "custom", "--root", "custom", "--out", "OUT", "--shard-mb", "0.05", *LOCAL),
}


def das(words, place, out, most=resource.RLIM_INFINITY):
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), -1)); "
    code += "from pipeline.cli import main; main()"
    words = [word.replace("OUT", str(out)) for word in words]
    done = subprocess.run(
        [sys.executable, "-c", code, str(most), *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    return (
        done.returncode,
        [line for line in done.stderr.splitlines() if "das: " in line or "Error" in line],
        done.stderr,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_written_is_one_line(place, name):
    status, lines, everything = das(COMMANDS[name], place, "/sys/das-out")
    assert status == 2 and "Traceback" not in everything and len(lines) == 1, everything
    assert lines[0].startswith("das: ") and "/sys/das-out" in lines[0] and ".staged" not in lines[0]
    assert "not permitted" in lines[0] or "denied" in lines[0], lines


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "prepare"])
def test_a_file_that_finds_no_room_is_one_line_with_its_name(place, name, tmp_path):
    status, lines, everything = das(COMMANDS[name], place, tmp_path / "out", most=600)
    assert status == 2 and "Traceback" not in everything and len(lines) == 1, everything
    assert lines[0].startswith(f"das: {tmp_path / 'out'}") and "File too large" in lines[0], lines
    assert ".staged" not in lines[0]
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(0 < path.stat().st_size <= 600 and not path.name.startswith(".") for path in left), left
