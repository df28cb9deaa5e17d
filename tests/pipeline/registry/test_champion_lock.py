"""The lock across threads and processes: one holder at a time, in order, lost by killed and suspended ones."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.infra.mlflow_client import MlflowStore
from pipeline.models import resolve_model
from pipeline.registry.champion_lock import champion_lock, queue_name
from pipeline.registry.registered_model import RegisteredModel
from pipeline.tracking.tracker import Tracker

PROJECT = Path(__file__).resolve().parents[3]
LEASE = 3.0
HOLDER = """
import sys
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.registry.champion_lock import champion_lock
store = MlflowStore(sys.argv[1])
with champion_lock(store, "das-x", sys.argv[2], sys.argv[3], lease=float(sys.argv[4])) as lock:
    print("locked", flush=True)
    sys.stdin.readline()
    lock.require()
print("kept", flush=True)
"""


class Model:
    """A registered model that is locked, in a store with one training run."""

    def __init__(self, uri, folder):
        self.uri, self.store = uri, MlflowStore(uri)
        with Tracker.open(uri, "das", "training", folder) as tracker:
            self.run_id = tracker.handle.run_id
        self.source = f"runs:/{self.run_id}/checkpoint"

    def lock(self, name="das-x", **more):
        return champion_lock(self.store, name, self.source, self.run_id, **{"lease": LEASE, **more})

    def tickets(self, name="das-x"):
        return len(self.store.client().search_model_versions(f"name = '{queue_name(name)}'"))

    def holder(self):
        """Another process that holds the lock."""
        command = [sys.executable, "-c", HOLDER, self.uri, self.source, self.run_id, str(LEASE)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=PROJECT, **pipes)
        assert process.stdout.readline() == "locked\n", process.stderr.read()
        return process


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return Model(f"sqlite:///{folder}/mlflow.db", folder)


def test_one_thread_at_a_time_holds_the_lock_and_no_ticket_is_left(model):
    inside, seen, errors = [], [], []

    def work(number):
        try:
            with model.lock("das-threads") as lock:
                inside.append(number)
                seen.append(len(inside))
                time.sleep(0.02)
                lock.require()
                inside.remove(number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and seen == [1] * 5 and model.tickets("das-threads") == 0


def test_an_error_inside_the_block_releases_the_lock(model):
    with pytest.raises(KeyError), model.lock():
        raise KeyError
    with model.lock(patience=5):
        pass


def test_a_lock_with_heartbeats_is_held_longer_than_a_lease(model):
    """A process that waits for longer than its patience gets an error that names the holder."""
    with model.lock("das-long") as lock:
        with pytest.raises(TimeoutError, match=f"das-long is being changed by .* pid {os.getpid()} since .* gave up"):
            with model.lock("das-long", patience=2 * LEASE):
                pass
        lock.require()
    assert model.tickets("das-long") == 0


@pytest.mark.slow
def test_a_killed_holder_loses_the_lock_after_a_lease(model):
    holder = model.holder()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert model.tickets() == 1
    began = time.monotonic()
    with model.lock(patience=60) as lock:
        assert time.monotonic() - began > LEASE
        lock.require()
    assert model.tickets() == 0


@pytest.mark.slow
def test_a_suspended_holder_finds_its_lock_lost(model):
    """What it was about to write would overwrite the decision of the process that had the lock after it."""
    holder = model.holder()
    os.kill(holder.pid, signal.SIGSTOP)
    with model.lock(patience=60):
        pass
    os.kill(holder.pid, signal.SIGCONT)
    out, error = holder.communicate("go\n", timeout=60)
    assert holder.returncode == 1 and not out
    assert "RuntimeError: no heartbeat from here for 3 s: the lock on the champion of das-x was lost" in error


def test_a_queue_is_not_listed_among_the_models(model):
    with model.lock():
        pass
    assert RegisteredModel(model.store, "das-x").champion() is None
    with pytest.raises(ValueError, match="no registered model 'das-x'; there are: none"):
        resolve_model("models:/das-x@champion", model.uri)
