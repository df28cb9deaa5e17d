"""Claims on a folder: equal work shares it, other work is refused, ended processes hold nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.infra.claims import claimed
from tests.pipeline.processes import in_a_process, status


def test_a_claim_with_other_inputs_is_refused_naming_the_process_that_holds_it(tmp_path, capsys):
    folder = str(tmp_path / "claims")
    with claimed(folder, "a" * 64, "OUT"):
        with pytest.raises(
            ValueError, match=f"OUT: another conversion.*process {os.getpid()} on .*or delete .*claims/"
        ):
            with claimed(folder, "b" * 64, "OUT"):
                raise AssertionError("the claim must be refused")
        with claimed(folder, "a" * 64, "OUT") as second:
            assert "its finished work is used" in capsys.readouterr().out and len(second.others()) == 1
    assert not os.listdir(folder)
    with claimed(folder, "b" * 64, "OUT") as alone:
        assert alone.others() == []


def test_claims_of_ended_processes_of_this_machine_are_removed_and_others_count(tmp_path):
    folder = tmp_path / "claims"
    ended = in_a_process(lambda: kill_while_claimed(folder, "a" * 64))
    assert status(ended) == -signal.SIGKILL and len(os.listdir(folder)) == 1
    (left,) = folder.iterdir()
    content = json.loads(left.read_text())
    elsewhere = folder / "elsewhere.json"
    elsewhere.write_text(json.dumps({**content, "machine": "another boot, another container"}))
    with pytest.raises(ValueError, match=r"another conversion.*elsewhere.json if it is not running any more"):
        with claimed(str(folder), "b" * 64, "OUT"):
            raise AssertionError("the claim must be refused")
    elsewhere.unlink()
    with claimed(str(folder), "b" * 64, "OUT") as alone:
        assert alone.others() == [] and not left.exists()
    # A process id that was given to another process since: its start time differs.
    (folder / "reused.json").write_text(json.dumps({**content, "pid": os.getpid()}))
    with claimed(str(folder), "b" * 64, "OUT"):
        assert not (folder / "reused.json").exists()


def kill_while_claimed(folder: Path, inputs: str) -> None:
    with claimed(str(folder), inputs, "OUT"):
        os.kill(os.getpid(), signal.SIGKILL)


def test_of_many_simultaneous_claims_at_most_one_is_held(tmp_path):
    inside, most, entered = 0, 0, 0
    lock, start = threading.Lock(), threading.Barrier(6)

    def claim_repeatedly(i: int) -> None:
        nonlocal inside, most, entered
        for _ in range(5):
            start.wait()
            try:
                with claimed(str(tmp_path / "claims"), f"{i}", "OUT"):
                    with lock:
                        inside, entered = inside + 1, entered + 1
                        most = max(most, inside)
                    time.sleep(0.005)
                    with lock:
                        inside -= 1
            except ValueError as error:
                assert "another conversion" in str(error)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(claim_repeatedly, range(6)))
    assert most <= 1 and not os.listdir(tmp_path / "claims")
