"""Journals: what is waiting, in which order of steps, also after writers and drivers that were killed."""

import json

import pytest

from pipeline.tracking.delivery import unsent
from pipeline.tracking.outbox import BackgroundWriter, Journal


def logged(step, time_ms=0, **metrics):
    return {"metrics": metrics, "step": step, "once": True, "time_ms": time_ms}


def test_what_one_process_writes_another_reads_until_it_is_marked_as_sent(tmp_path):
    Journal(str(tmp_path), "run").write([{"n": 1}])
    Journal(str(tmp_path), "run").write([{"n": 2}, {"n": 3}])
    driver = Journal(str(tmp_path), "run")
    assert [event["n"] for events in driver.waiting().values() for event in events] == [1, 2, 3]
    driver.mark_sent([*driver.waiting()], {"loss": 40})
    assert driver.waiting() == {} and Journal(str(tmp_path), "run").highest_steps() == {"loss": 40}
    (kept,) = (tmp_path / "tracking/run/sent").iterdir()
    assert [event["n"] for event in json.loads(kept.read_text())] == [1, 2, 3]


def test_a_half_written_file_is_not_an_event(tmp_path):
    journal = Journal(str(tmp_path), "run")
    journal.write([{"n": 1}])
    (tmp_path / "tracking/run/waiting/.staged-0-1.json").write_text('[{"n": ')  # killed here
    assert [*journal.waiting().values()] == [[{"n": 1}]]


def test_steps_computed_again_after_a_restart_are_left_out_and_those_after_them_are_not():
    first, steps = unsent([logged(20, loss=3.0), logged(40, loss=2.0, lr=0.1)], {})
    assert [event["step"] for event in first] == [20, 40] and steps == {"loss": 40, "lr": 40}
    again, steps = unsent([logged(40, loss=2.0, lr=0.1, val=9.0), logged(60, loss=1.0)], steps)
    assert [(event["step"], event["metrics"]) for event in again] == [(40, {"val": 9.0}), (60, {"loss": 1.0})]
    assert steps == {"loss": 60, "lr": 40, "val": 40}


def test_no_step_is_lost_where_the_clock_of_a_replaced_node_was_ahead():
    # The worker before the restart: steps 20 and 40 at 9 o'clock; after it, from step 20: 40 and 60 at 8 o'clock.
    waiting = [logged(40, 8, loss=2.0), logged(60, 8, loss=1.0), logged(20, 9, loss=3.0), logged(40, 9, loss=2.0)]
    sent, steps = unsent(waiting, {})
    assert [event["step"] for event in sent] == [20, 40, 60] and steps == {"loss": 60}


def test_results_of_the_driver_are_sent_whatever_their_step():
    result = {"metrics": {"recall": 0.5}, "step": 0, "time_ms": 1}
    assert unsent([result], {"recall": 0})[0] == [result]


def test_a_storage_that_cannot_be_written_keeps_events_in_memory_and_is_said_before_a_checkpoint(tmp_path, caplog):
    (tmp_path / "tracking").write_text("a file where the folder should be")
    writer = BackgroundWriter(Journal(str(tmp_path), "run"))
    writer.add({"n": 1})
    with pytest.raises(OSError):
        writer.flush()
    (tmp_path / "tracking").unlink()
    writer.add({"n": 2})
    writer.flush()
    waiting = Journal(str(tmp_path), "run").waiting()
    assert [event["n"] for events in waiting.values() for event in events] == [1, 2]
    writer._thread.shutdown()
    assert caplog.text.count("cannot be written") == 1


def test_steps_of_a_group_go_on_after_those_that_were_written_or_sent(tmp_path):
    journal = Journal(str(tmp_path), "run")
    assert journal.next_step("system") == 0
    journal.write([logged(4, **{"system/cpu": 1.0, "system/node/cpu": 1.0})])
    journal.write([logged(7, **{"system/node/cpu": 1.0})])
    assert (journal.next_step("system"), journal.next_step("system/node")) == (5, 8)
    journal.mark_sent([*journal.waiting()], {"system/cpu": 4, "system/node/cpu": 7})
    assert (journal.next_step("system"), journal.next_step("system/node")) == (5, 8)
