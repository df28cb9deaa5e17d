"""Claims on a name, in real processes: one wins, a live holder is named, a dead one is no hindrance."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.infra import claims, name_claim
from pipeline.infra.name_claim import claimed_name
from tests.pipeline.processes import in_a_process, status

QUICK = {"beat": 0.1, "patience": 1.0}


def hold(run: Path, elsewhere: bool = False) -> None:
    """Holds the claim until the process is killed; ``elsewhere`` in what others take for another machine."""
    if elsewhere:
        claims._machine = lambda: "another boot, another container"
    with claimed_name(str(run), "training", **QUICK):
        (run / "held").touch()
        time.sleep(60)


def holder(run: Path, elsewhere: bool = False):
    """A process that holds the claim."""
    process = in_a_process(lambda: hold(run, elsewhere))
    deadline = time.monotonic() + 60
    while not (run / "held").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    return process


def seconds_to_claim(run: Path) -> float:
    began = time.monotonic()
    with claimed_name(str(run), "training", **QUICK):
        return time.monotonic() - began


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same machine", "another machine"])
def test_the_second_is_refused_naming_the_first_which_is_no_hindrance_once_it_is_killed(tmp_path, elsewhere):
    first = holder(tmp_path, elsewhere)
    try:
        with pytest.raises(ValueError) as refused:
            seconds_to_claim(tmp_path)
        (line,) = str(refused.value).splitlines()
        assert (
            f"{tmp_path}: this training is running already (process {first.pid} on {os.uname().nodename} since 2"
            in line
        )
        assert "choose another --name" in line
    finally:
        first.kill()
    assert status(first) == -signal.SIGKILL and len(os.listdir(tmp_path / "claims")) == 1
    # Of a process of this machine it is known at once; the number of another's is watched.
    took = seconds_to_claim(tmp_path)
    assert QUICK["patience"] <= took < 5 if elsewhere else took < QUICK["patience"]
    assert not os.listdir(tmp_path / "claims")


def test_a_holder_that_was_suspended_until_another_took_its_name_is_interrupted(tmp_path):
    first = holder(tmp_path, elsewhere=True)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        with claimed_name(str(tmp_path), "training", **QUICK):
            os.kill(first.pid, signal.SIGCONT)
            first.join(30)
            assert first.exitcode == 1, "a KeyboardInterrupt ends the process"
            assert len(os.listdir(tmp_path / "claims")) == 1
    finally:
        first.kill()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same machine", "different machines"])
def test_of_many_that_ask_at_the_same_moment_exactly_one_wins(tmp_path, monkeypatch, elsewhere):
    if elsewhere:  # each judges the others by their signs of life alone
        monkeypatch.setattr(name_claim, "is_of_this_machine", lambda claim: False)
    start, decided = threading.Barrier(6), threading.Barrier(6)

    def ask(_: int) -> int:
        won = 0
        for _ in range(8):
            start.wait()
            try:
                with claimed_name(str(tmp_path), "sweep", **QUICK):
                    won += 1
                    decided.wait()
            except ValueError as error:
                assert "this sweep is running already" in str(error)
                decided.wait()
        return won

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(ask, range(6))) == 8
    assert not os.listdir(tmp_path / "claims")
