"""Trainings on a cluster of three nodes: the same images for any number of workers, and faults in the middle of epochs.

A checkpoint has a checksum of all samples so far, each with its epoch and step; so two trainings with equal checksums
have seen the same images in the same steps.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException

from das.checkpoint import load_model, load_training_state
from pipeline.data.shards import list_shards
from tests.jobs.own_cluster import PATIENCE, PROJECT, wait_for
from tests.jobs.test_jobs import TINY, flags, runs_of

pytestmark = pytest.mark.slow


class ThreeNodes:
    """A head and two more nodes with two CPUs each, and drivers that run on it."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
        self.more = [self.add() for _ in range(2)]

    def add(self):
        return self.cluster.add_node(num_cpus=2, object_store_memory=100 << 20)

    def drive(self, storage: Path, name: str, prepared, **options) -> subprocess.Popen[bytes]:
        """Starts a training; its output goes to storage/NAME.log."""
        command = ["small", "--data", str(prepared), "--name", name, "--cluster.storage", str(storage)]
        command += ["--cluster.shared-storage", *flags(TINY | options)]
        storage.mkdir(exist_ok=True)
        with (storage / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(PROJECT / "jobs" / "train_panoptic.py"), *command],
                cwd=storage,
                env={
                    **{k: v for k, v in os.environ.items() if k != "DAS_STORAGE"},
                    "RAY_ADDRESS": self.cluster.address,
                    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
                    "OMP_NUM_THREADS": "1",
                },
                stdout=log,
                stderr=log,
            )

    def train(self, storage: Path, name: str, prepared, **options) -> str:
        """Runs a training to its end; returns its output."""
        driver = self.drive(storage, name, prepared, **options)
        try:
            status = driver.wait(PATIENCE)
        finally:
            driver.kill()
        said = (storage / f"{name}.log").read_text()
        assert status == 0, said
        return said

    def idle(self) -> bool:
        """Whether all CPUs are free: those of a driver that has ended come back after a while."""
        with ray.init(self.cluster.address, ignore_reinit_error=True, log_to_driver=False):
            return ray.available_resources().get("CPU") == ray.cluster_resources().get("CPU") == 5

    def workers(self) -> list[dict]:
        """The training workers that are running."""
        alive = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
        try:
            actors = list_actors(address=f"http://{self.cluster.head_node.webui_url}", filters=alive, detail=True)
        except (RayStateApiException, OSError):
            return []  # a busy machine's dashboard may answer too late: callers ask again
        return [{"pid": actor.pid, "node": actor.node_id} for actor in actors]

    def two_workers(self) -> list[dict]:
        """Both workers of a training that has started."""
        return wait_for(lambda: found if len(found := self.workers()) == 2 else None, "two workers")


@pytest.fixture(scope="module")
def nodes():
    nodes = ThreeNodes()
    try:
        yield nodes
    finally:
        nodes.cluster.shutdown()


def reported(folder: Path) -> list[dict]:
    """The metrics of all kept checkpoints, in the order of time."""
    snapshot = json.loads((folder / "checkpoint_manager_snapshot.json").read_text())
    return sorted((result["metrics"] for result in snapshot["checkpoint_results"]), key=lambda m: m["step"])


def newest_state(folder: Path) -> dict:
    """The training state of the newest checkpoint."""
    return load_training_state(max(folder.glob("checkpoint_2*")))


# Six images a step, five steps an epoch.
OF_TWO = {"ingest.batch-size": 3, "workers": 2, "optim.epochs": 8}


@pytest.fixture(scope="module")
def uninterrupted(nodes, prepared, tmp_path_factory) -> Path:
    """Folder of a training of two workers without a fault."""
    storage = tmp_path_factory.mktemp("uninterrupted")
    nodes.train(storage, "whole", prepared, keep=99, **OF_TWO)
    return storage / "whole"


def test_any_number_of_workers_sees_the_same_images_in_the_same_steps(nodes, uninterrupted, prepared, tmp_path):
    by_epoch = {metrics["epoch"]: metrics["samples"] for metrics in reported(uninterrupted)}
    assert len(set(by_epoch.values())) == 8
    drivers = [
        nodes.drive(tmp_path, f"of-{n}", prepared, **{"ingest.batch-size": 6 // n, "workers": n, "optim.epochs": 1})
        for n in (1, 3)
    ]
    assert [driver.wait(PATIENCE) for driver in drivers] == [0, 0], (tmp_path / "of-1.log").read_text()
    for n in (1, 3):
        (metrics,) = reported(tmp_path / f"of-{n}")
        assert metrics["samples"] == by_epoch[1] and metrics["step"] == 5


def test_an_elastic_training_goes_on_with_the_workers_that_are_left(nodes, uninterrupted, prepared, tmp_path):
    # Before the test that kills a driver: Ray keeps the place of a killed one for three minutes, in which an elastic
    # training would start with one worker.
    folder, log = tmp_path / "elastic", tmp_path / "elastic.log"
    elastic = OF_TWO | {"workers": "1:2", "cpus-per-worker": 2, "checkpoint-steps": 2}
    wait_for(nodes.idle, "a cluster that is idle")  # else it would start with one worker
    driver = nodes.drive(tmp_path, "elastic", prepared, **elastic)
    try:
        wait_for(lambda: driver.poll() is not None or len(nodes.workers()) == 2, "a training of two workers")
        wait_for(lambda: within_an_epoch(folder) or driver.poll() is not None, "a checkpoint within an epoch")
        both = nodes.two_workers()
        assert len({worker["node"] for worker in both}) == 2, log.read_text()
        gone = next(node for node in nodes.more if node.node_id == both[0]["node"])
        nodes.cluster.remove_node(gone)
        nodes.more.remove(gone)
        wait_for(lambda: driver.poll() is not None or len(nodes.workers()) == 1, "a training of one worker")
        nodes.more.append(nodes.add())
        assert driver.wait(PATIENCE) == 0, log.read_text()
    finally:
        driver.kill()
    assert newest_state(folder)["progress"]["samples"] == newest_state(uninterrupted)["progress"]["samples"]
    (run,) = runs_of(tmp_path, "elastic")
    assert run.info.status == "FINISHED" and run.data.metrics["step"] == 40


def test_killed_workers_and_a_killed_driver_change_nothing(nodes, uninterrupted, prepared, tmp_path):
    folder, log = tmp_path / "killed", tmp_path / "killed.log"
    options = OF_TWO | {"checkpoint-steps": 2}
    driver = nodes.drive(tmp_path, "killed", prepared, **options)
    try:
        wait_for(lambda: within_an_epoch(folder) or driver.poll() is not None, "a checkpoint within an epoch")
        old = nodes.two_workers()
        os.kill(old[0]["pid"], signal.SIGKILL)
        stood_at = newest_report(folder)["step"]
        wait_for(lambda: newest_report(folder)["step"] > stood_at + 4, "progress after the restart")
    finally:
        driver.kill()
    assert "restart from the last checkpoint" in log.read_text() and not (folder / "finished.json").exists()
    nodes.train(tmp_path, "killed", prepared, **options)
    for wanted, found in zip(*(tensors(newest_state(f)) for f in (uninterrupted, folder)), strict=True):
        assert wanted[0] == found[0] and torch.equal(wanted[1], found[1]), wanted[0]
    assert newest_state(folder)["progress"]["samples"] == newest_state(uninterrupted)["progress"]["samples"]
    best = [load_model(f / "best")[0].state_dict() for f in (uninterrupted, folder)]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())
    (run,) = runs_of(tmp_path, "killed")
    assert run.info.status == "FINISHED" and run.data.metrics["step"] == 40


def test_a_damaged_shard_ends_the_training_in_one_line_that_names_it(nodes, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    shard = Path(list_shards(tmp_path / "data", "train")[-1])
    content = bytearray(shard.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    shard.write_bytes(content)
    check_refused(nodes, tmp_path, "shard", tmp_path / "data", shard.name, OF_TWO)


def test_losses_that_stay_nan_end_the_training_in_one_line_that_names_samples(nodes, prepared, tmp_path):
    options = OF_TWO | {"optim.lr": "1e30", "optim.max-bad-steps": 3}
    check_refused(nodes, tmp_path, "nan", prepared, "3 steps in a row skipped", options)


def check_refused(nodes, storage, name, prepared, said, options):
    """A training that fails: one line, status 2, one failed run, and no restart, which would meet the fault again."""
    driver = nodes.drive(storage, name, prepared, **options)
    assert driver.wait(PATIENCE) == 2
    lines = (storage / f"{name}.log").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("das: "))
    assert said in line and not any("Traceback" in line or "restart" in line for line in lines), lines
    (run,) = runs_of(storage, name)
    assert run.info.status == "FAILED"


def newest_report(folder: Path) -> dict:
    """The metrics of the newest committed checkpoint; step 0 before there is one."""
    if not (folder / "checkpoint_manager_snapshot.json").exists():
        return {"step": 0, "epoch_step": 0}
    return max(reported(folder), key=lambda metrics: metrics["step"], default={"step": 0, "epoch_step": 0})


def within_an_epoch(folder: Path) -> bool:
    """Whether the newest committed checkpoint was written within an epoch."""
    return newest_report(folder)["epoch_step"] > 0


def tensors(tree, name=""):
    """(name, tensor) of a tree of dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    if isinstance(tree, torch.Tensor):
        yield name, tree
    for key, value in items:
        yield from tensors(value, f"{name}/{key}")
