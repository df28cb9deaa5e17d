"""A storage that is full while a checkpoint is written: a real file system of some megabytes, in which room is made."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from das.checkpoint import load_model, load_training_state
from tests.conftest import absent
from tests.jobs.own_cluster import PATIENCE, PROJECT, wait_for
from tests.jobs.test_cluster_of_three import newest_report, newest_state, tensors
from tests.jobs.test_jobs import TINY, flags, runs_of

pytestmark = pytest.mark.slow


class SmallDisk:
    """A file system of limited size in memory, which a process of its own namespace has mounted.

    Neither needs a right that a user lacks; what runs ``inside`` sees it at ``folder``, and others through /proc.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        folder.mkdir()
        self.folder = folder
        mount = f"mount -t tmpfs -o size={megabytes}m tmpfs {folder} && echo ready && exec sleep infinity"
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = self._holder.stdout.readline()
        if said != "ready\n":
            self._holder.wait()
            absent("mounts", f"no file system can be mounted here: {said.strip()}")
        self.seen = Path(f"/proc/{self._holder.pid}/root{folder}")

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", "--preserve-credentials", "--user", "--mount", "-t", str(self._holder.pid), *command]

    def free(self) -> int:
        found = os.statvfs(self.seen)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int) -> Path:
        """Takes all room but some bytes; returns the file that holds it."""
        filler = self.seen / "filler"
        with filler.open("wb") as file:
            file.write(bytes(max(0, self.free() - leave)))
        return filler

    def close(self) -> None:
        self._holder.send_signal(signal.SIGKILL)
        self._holder.wait()


@pytest.fixture
def disk(tmp_path):
    disk = SmallDisk(tmp_path / "disk", 64)
    yield disk
    disk.close()


def drive(command, storage, log, prepared, **options):
    words = ["small", "--data", str(prepared), "--name", "full", "--cluster.storage", str(storage)]
    words += [
        "--cluster.tracking-uri",
        f"sqlite:///{log.parent}/mlflow.db",
        "--cluster.address",
        "local",
        "--cluster.num-cpus",
        "1",
    ]
    words += ["--cluster.object-store-mb", "100"]
    words += flags(TINY | {"optim.epochs": 8, "keep": 2} | options)
    with log.open("ab") as output:
        return subprocess.Popen(
            command(sys.executable, str(PROJECT / "jobs/train_panoptic.py"), *words),
            cwd=log.parent,
            env={k: v for k, v in os.environ.items() if k != "DAS_STORAGE"}
            | {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
        )


def test_a_full_storage_ends_the_training_in_one_line_and_it_goes_on_when_there_is_room(disk, prepared, tmp_path):
    log, folder = tmp_path / "log", disk.seen / "full"
    (tmp_path / "roomy").mkdir()
    whole = drive(lambda *words: words, tmp_path / "roomy", tmp_path / "roomy/log", prepared)
    driver = drive(disk.inside, disk.folder, log, prepared)
    try:
        wait_for(lambda: newest_report(folder)["step"] > 8 or driver.poll() is not None, "two checkpoints")
        filler = disk.fill(leave=100_000)
        assert driver.wait(PATIENCE) == 2, log.read_text()
    finally:
        driver.kill()
    lines = log.read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("das: "))
    assert "No space left on device" in line, line
    assert not any("Traceback" in line for line in lines), lines
    listed = json.loads((folder / "checkpoints.json").read_text())["checkpoint_results"]
    assert listed
    for result in listed:
        state = load_training_state(folder / result["checkpoint_dir_name"])
        assert state["progress"]["step"] == result["metrics"]["step"] > 0
    filler.unlink()
    # What a full disk leaves where Ray was about to write its list of checkpoints.
    (folder / "checkpoint_manager_snapshot.json").write_bytes(b"")
    (run,) = runs_of(tmp_path, "full")
    assert run.info.status == "FAILED"

    again = drive(disk.inside, disk.folder, log, prepared)
    try:
        assert again.wait(PATIENCE) == 0, log.read_text()
    finally:
        again.kill()
    assert whole.wait(PATIENCE) == 0
    for wanted, found in zip(*(tensors(newest_state(f)) for f in (tmp_path / "roomy/full", folder)), strict=True):
        assert wanted[0] == found[0] and torch.equal(wanted[1], found[1]), wanted[0]
    best = [load_model(f / "best")[0].state_dict() for f in (tmp_path / "roomy/full", folder)]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())
    (run,) = runs_of(tmp_path, "full")
    assert run.info.status == "FINISHED"
