"""The jobs on a GPU: training with nccl, killed and continued; evaluation as on a CPU; benchmark."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.predictions_file import PredictionSet
from tests.jobs.own_cluster import wait_for
from tests.jobs.test_jobs import check_whole, committed, training

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("gpu")]


def start(storage, job, *arguments):
    """Starts one job with an embedded Ray, in a new session, so that all of its processes can be killed together."""
    command = [sys.executable, str(PROJECT / "jobs" / f"{job}.py"), *arguments, "--cluster.address", "local"]
    environment = {**os.environ, "DAS_STORAGE": str(storage)}
    log = (storage / "log").open("ab")
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log, start_new_session=True)


def run(storage, job, *arguments):
    assert start(storage, job, *arguments).wait() == 0, (storage / "log").read_text()


def test_a_model_is_trained_killed_continued_evaluated_and_timed_on_a_gpu(prepared, tmp_path):
    # In fp16, because its loss scale is part of the state that a restart must restore.
    options = {"optim.amp": "fp16", "optim.epochs": 12}
    arguments = [*training(prepared, tmp_path, "here", **options), "--gpu"]
    driver = start(tmp_path, "train_panoptic", *arguments)
    wait_for(lambda: committed(tmp_path / "here") or driver.poll() is not None, "the first committed checkpoint")
    assert driver.poll() is None, (tmp_path / "log").read_text()
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    run(tmp_path, "train_panoptic", *arguments)
    assert check_whole(tmp_path, "here", epochs=12, steps=12 * 8).count(1) == 1, "the first epoch was committed"

    model = ["--model", str(tmp_path / "here" / "best"), "--data", str(prepared)]
    found = {}
    for device, flag in (("gpu", ["--gpu"]), ("cpu", [])):
        out = tmp_path / device
        run(tmp_path, "evaluate", *model, *flag, "--threshold", "0.01", "--name", device, "--out", str(out))
        found[device] = PredictionSet.load(out / "predictions.parquet")
    assert found["gpu"].keys == found["cpu"].keys and found["cpu"].counts.sum() > 0
    np.testing.assert_allclose(found["gpu"].scores.max(), found["cpu"].scores.max(), rtol=0.02)
    assert found["gpu"].counts.sum() == pytest.approx(found["cpu"].counts.sum(), rel=0.1)

    run(tmp_path, "benchmark", *model, "--devices", "cpu", "gpu", "--out", str(tmp_path / "times"))
    devices = json.loads((tmp_path / "times" / "benchmark.json").read_text())["devices"]
    assert devices["gpu"]["runtime"]["peak_gpu_memory_mb"] > 0
    assert devices["cpu"]["runtime"]["peak_gpu_memory_mb"] is None
