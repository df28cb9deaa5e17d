"""A Ray cluster for tests of whole jobs, started with `ray start` and stopped without touching other clusters."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ray.util.state import list_actors

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 300  # seconds until a test stops waiting and fails; a loaded machine may be very slow


def wait_for(condition, what: str):
    """Polls until ``condition()`` is truthy and returns its value; fails with ``what`` after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        time.sleep(0.1)
    return found


class Cluster:
    """A Ray cluster with the job server, started in the project's or another folder; it assumes four CPUs anywhere.

    Jobs see the variables of this process, without those that name a cluster or a storage, and those that are given.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, folder: Path = PROJECT) -> None:
        self.gcs, self.dashboard, agent, client = _free_ports(4)
        # Ray makes sockets below this folder, whose paths may have about 100 characters at most. It also writes the
        # address of the running cluster there, so that address="auto" of other programs does not find this one.
        self.folder = Path(tempfile.mkdtemp(prefix="das-ray-"))
        unset = ("RAY_ADDRESS", "DAS_STORAGE", "DAS_PRESET", "DAS_PREPARED", "MLFLOW_TRACKING_URI")
        self.environment = {k: v for k, v in os.environ.items() if k not in unset} | {
            # Jobs find this Python by name, as after `source .venv/bin/activate`.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }
        command = ["ray", "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address", "127.0.0.1"]
        command += ["--port", str(self.gcs), "--dashboard-port", str(self.dashboard), "--num-cpus", "4"]
        command += ["--dashboard-agent-listen-port", str(agent), "--ray-client-server-port", str(client)]
        command += ["--object-store-memory", str(200 << 20), "--temp-dir", str(self.folder)]
        with (self.folder / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def ready(self) -> bool:
        """Whether jobs can be submitted; fails with Ray's output if it has ended."""
        assert self._process.poll() is None, (self.folder / "start.log").read_text()
        listing = ["ray", "job", "list", "--address", f"http://127.0.0.1:{self.dashboard}"]
        return subprocess.run(listing, env=self.environment, capture_output=True).returncode == 0

    def stop(self) -> None:
        """Kills this cluster's processes and no others; `ray stop` would take half a minute and stop other clusters."""
        for pid in (self._process.pid, *_descendants(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def submit(self, *entry: str, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
        """`ray job submit ...`, run in the project's or another folder until the job has ended."""
        command = ["ray", "job", "submit", "--address", f"http://127.0.0.1:{self.dashboard}", *entry]
        return subprocess.run(
            command, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=2 * PATIENCE
        )

    def ray(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command of Ray's, `ray job stop ...`."""
        address = {"RAY_ADDRESS": f"http://127.0.0.1:{self.dashboard}"}
        command = ["ray", *words]
        return subprocess.run(command, env={**self.environment, **address}, capture_output=True, text=True, timeout=60)

    def drive(self, log: Path, job: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a job script as a driver of this cluster, in another process that a test may kill."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, str(PROJECT / "jobs" / job), *arguments],
                cwd=log.parent,
                env={**self.environment, "RAY_ADDRESS": f"127.0.0.1:{self.gcs}"},
                stdout=output,
                stderr=output,
            )

    def training_workers(self) -> list[tuple[str, int]]:
        """(actor id, process id) of the training workers that are running."""
        alive = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
        actors = list_actors(address=f"http://127.0.0.1:{self.dashboard}", filters=alive, detail=True)
        return [(actor.actor_id, actor.pid) for actor in actors]


def _descendants(pid: int) -> list[int]:
    """Ids of the child processes, their children, and so on."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for parent in found:  # grows while it is read
        found += children.get(parent, [])
    return found[1:]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()
