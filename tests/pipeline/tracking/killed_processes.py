"""Drivers and workers of a training that kill themselves, as processes of their own: python killed_processes.py ROLE.

Reads what it needs as JSON from its arguments. A worker logs every 20 steps and saves a checkpoint every 60.
"""

import json
import os
import signal
import sys

from pipeline.tracking import delivery
from pipeline.tracking.tracker import RunHandle, Tracker


def loss(step: int) -> float:
    """The loss of a step, the same after every restart."""
    return 100.0 / step


def train(handle: RunHandle, checkpoint: int, die_after: int, in_time: bool) -> None:
    """Trains from a checkpoint's step, and is killed after another one; prints the checkpoints that it saves.

    Numbers after the last checkpoint have been written by then, or only some of them: ``in_time``.
    """
    log = Tracker.join(handle)
    for step in range(checkpoint + 20, die_after + 1, 20):
        log.log_metrics({"loss": loss(step)}, step)
        if step % 60 == 0:
            log.log_metrics({"val": loss(step)}, step)
            log.flush()
            print(step, flush=True)
    if in_time:
        log.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def drive(store: str, name: str, folder: str, die_at: str) -> None:
    """Opens a run and trains to step 120; is killed before the numbers are sent, or before that is noted."""
    tracker = Tracker.open(store, "tests", name, folder)
    log = Tracker.join(tracker.handle)
    for step in range(20, 121, 20):
        log.log_metrics({"loss": loss(step)}, step)
    log.flush()
    if die_at == "sent":
        delivery.Journal.mark_sent = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        tracker.deliver()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    role, arguments = sys.argv[1], json.loads(sys.argv[2])
    if role == "train":
        train(RunHandle(**arguments.pop("handle")), **arguments)
    else:
        drive(**arguments)
