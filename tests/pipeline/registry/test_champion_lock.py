"""Turns, as other processes see them: one at a time, in order, and none kept by the dead or the sleeping."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.infra.mlflow_client import mlflow_client
from pipeline.models import resolve_model
from pipeline.registry.champion_lock import champion_lock, queue_name
from pipeline.registry.models_store import champion_version
from pipeline.tracking.tracker import Tracker

PROJECT = Path(__file__).resolve().parents[3]
LEASE = 3.0
HOLDER = """
import sys
from pipeline.registry.champion_lock import turn
with turn(sys.argv[1], "das-x", sys.argv[2], sys.argv[3], lease=float(sys.argv[4])) as mine:
    print("mine", flush=True)
    sys.stdin.readline()
    mine.require()
print("kept", flush=True)
"""


class Store:
    def __init__(self, uri, folder):
        self.uri = uri
        with Tracker.open(uri, "das", "training", folder) as tracker:
            self.run_id = tracker.handle.run_id
        self.source = f"runs:/{self.run_id}/checkpoint"

    def champion_lock(self, name="das-x", **more):
        return champion_lock(self.uri, name, self.source, self.run_id, **{"lease": LEASE, **more})

    def tickets(self, name="das-x"):
        return len(mlflow_client(self.uri).search_model_versions(f"name = '{queue_name(name)}'"))

    def holder(self):
        """Another process in its turn."""
        command = [sys.executable, "-c", HOLDER, self.uri, self.source, self.run_id, str(LEASE)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=PROJECT, **pipes)
        assert process.stdout.readline() == "mine\n", process.stderr.read()
        return process


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return Store(f"sqlite:///{folder}/mlflow.db", folder)


def test_turns_of_threads_never_overlap_and_leave_nothing(store):
    inside, seen, errors = [], [], []

    def work(number):
        try:
            with store.turn("das-threads") as mine:
                inside.append(number)
                seen.append(len(inside))
                time.sleep(0.02)
                mine.require()
                inside.remove(number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and seen == [1] * 5 and store.tickets("das-threads") == 0


def test_an_error_inside_a_turn_ends_it(store):
    with pytest.raises(KeyError), store.turn():
        raise KeyError
    with store.turn(patience=5):
        pass


def test_a_living_holder_is_waited_for_however_long_it_takes(store):
    """Its signs of life keep the turn far beyond a lease; who loses patience is told who holds it."""
    with store.turn("das-long") as mine:
        with pytest.raises(TimeoutError, match=f"das-long is being changed by .* pid {os.getpid()} since .* gave up"):
            with store.turn("das-long", patience=2 * LEASE):
                pass
        mine.require()
    assert store.tickets("das-long") == 0


@pytest.mark.slow
def test_a_killed_holder_loses_its_turn_after_a_lease(store):
    holder = store.holder()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert store.tickets() == 1
    began = time.monotonic()
    with store.turn(patience=60) as mine:
        assert time.monotonic() - began > LEASE
        mine.require()
    assert store.tickets() == 0


@pytest.mark.slow
def test_a_holder_that_slept_too_long_finds_its_turn_gone(store):
    """What it was about to write would overwrite the decision of who came after it."""
    holder = store.holder()
    os.kill(holder.pid, signal.SIGSTOP)
    with store.turn(patience=60):
        pass
    os.kill(holder.pid, signal.SIGCONT)
    out, error = holder.communicate("go\n", timeout=60)
    assert holder.returncode == 1 and not out
    assert "RuntimeError: no sign of life from here for 3 s: the turn to change das-x was lost" in error


def test_a_queue_is_no_model_that_anybody_is_offered(store):
    with store.turn():
        pass
    assert champion_version(store.uri, "das-x") is None
    with pytest.raises(ValueError, match="no registered model 'das-x'; there are: none"):
        resolve_model("models:/das-x@champion", store.uri)
