"""The jobs on a GPU: trained with nccl, killed, continued, evaluated as a CPU would, and timed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from own_cluster import wait_for

from das.checkpoint import load_training_state
from pipeline.predictions import PredictionSet

PROJECT = Path(__file__).resolve().parents[2]
# 8 steps an epoch.
TINY = ["--model.backbone-width", "8", "--ingest.width", "96", "--ingest.height", "54", "--ingest.batch-size", "4"]
TINY += ["--optim.lr", "3e-3", "--optim.warmup-steps", "0"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("gpu")]


def start(storage, job, *arguments):
    """One job on a Ray of its own, in a session of its own."""
    command = [sys.executable, str(PROJECT / "jobs" / f"{job}.py"), *arguments, "--cluster.address", "local"]
    environment = {**os.environ, "DAS_STORAGE": str(storage)}
    log = (storage / "log").open("ab")
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log, start_new_session=True)


def run(storage, job, *arguments):
    assert start(storage, job, *arguments).wait() == 0, (storage / "log").read_text()


def checkpoints(folder):
    return sorted(folder.glob("checkpoint_2*/model.safetensors"))


def test_a_model_is_trained_killed_continued_evaluated_and_timed_on_a_gpu(prepared, tmp_path):
    # In fp16, whose loss scale is one more thing to continue with.
    training = ["small", "--data", str(prepared), "--name", "here", "--gpu", "--optim.amp", "fp16", *TINY]
    training += ["--optim.epochs", "12"]
    driver = start(tmp_path, "train_panoptic", *training)
    wait_for(lambda: len(checkpoints(tmp_path / "here")) > 1 or driver.poll() is not None, "a second checkpoint")
    assert driver.poll() is None, (tmp_path / "log").read_text()
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    run(tmp_path, "train_panoptic", *training)
    (journal,) = (tmp_path / "here" / "tracking").glob("*.worker.jsonl")
    events = [json.loads(line).get("metrics", {}) for line in journal.read_text().splitlines()]
    trained = [int(metrics["epoch"]) for metrics in events if "epoch" in metrics]
    assert trained[0] == 1 and trained.count(1) == 1 and trained[-1] == 12, "continued, not begun again"
    newest = max((tmp_path / "here").glob("checkpoint_2*"))
    assert load_training_state(newest)["progress"]["step"] == 12 * 8

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
