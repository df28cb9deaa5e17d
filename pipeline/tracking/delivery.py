"""Sends a run's journal to MLflow, and tries again later when the server is lost.

One process sends, the driver's. Workers only write the journal (outbox.py), so they need neither the server nor its
password, and a sqlite store may lie where they cannot see it.

Events have their own time, so sending one twice changes nothing. A worker that is restarted from a checkpoint computes
the steps after it again; their numbers are those of before, so the first ones stay and the others are left out: a
metric of a worker is sent only with a step above the highest one sent.

Nothing that the server or the storage does ends a job while it runs, but that its run is deleted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from pipeline.infra.files import join
from pipeline.infra.mlflow_client import MlflowStore, error_code, fault, is_refusal
from pipeline.infra.redaction import redacted
from pipeline.tracking.outbox import Event, Journal
from pipeline.tracking.sending import send_events

RETRY_AFTER = 30.0
"""Seconds without a new attempt after the server was lost: an attempt blocks its caller until it fails."""
EVERY = 5.0
"""Seconds between two looks at what the workers have written."""
_log = logging.getLogger(__name__)


class RunDeletedError(ValueError):
    """The MLflow run was deleted while its job was running."""


class Sender:
    """Writes the driver's events, and sends those of all processes of a run while the server answers.

    Args:
        store: the MLflow store.
        run_id: the run.
        folder: folder or object-storage URI of the run.
    """

    def __init__(self, store: MlflowStore, run_id: str, folder: str) -> None:
        self.journal = Journal(folder, run_id)
        self._store, self._run_id, self._folder = store, run_id, folder
        self._sending = threading.Lock()
        self._retry_at = 0.0  # monotonic seconds; 0 while the server answers
        self._steps: dict[str, int] | None = None  # as the journal has them
        self._refused: set[str] = set()
        self._addresses: dict[str, str] = {}  # redacted addresses of artifacts to their own, of this process

    def add(self, event: Event) -> None:
        """Writes an event with the present time, and sends all that is waiting unless the server was lost just now.

        Raises:
            OSError: it cannot be written.
            RunDeletedError: the run was deleted.
        """
        if "artifact" in event:
            self._addresses[redacted(event["artifact"])] = event["artifact"]
        self.journal.write([_now(event)])
        self.deliver_if_due()

    def add_last(self, event: Event) -> None:
        """As ``add``, but the server is told also where the storage is full. OSError is a warning here."""
        try:
            self.journal.write([_now(event)])
        except OSError as error:
            _log.warning("%s cannot be written: %s", redacted(self.journal.place), redacted(str(error)))
            try:
                send_events(self._store, self._run_id, [_now(event)])
            except Exception as lost:
                self._lose(lost)

    def deliver_if_due(self) -> None:
        """Sends what is waiting, unless the server was lost just now or another thread is sending."""
        if time.monotonic() >= self._retry_at and self._sending.acquire(blocking=False):
            try:
                self._deliver()
            finally:
                self._sending.release()

    def deliver(self) -> bool:
        """Sends what is waiting, from all processes of the run; returns whether the server has all of it now.

        Raises:
            RunDeletedError: the run was deleted.
        """
        with self._sending:
            self._refused.clear()  # tried again: two runs that bring one new data set at once hinder each other
            return self._deliver()

    def _deliver(self) -> bool:
        try:
            count = self._send_in_order()
        except RunDeletedError:
            raise
        except Exception as error:  # of the server or a storage, whatever it is: see above
            self._lose(error)
            return False
        if self._retry_at:
            _log.warning("MLflow at %s is back: %d events sent", redacted(self._store.uri), count)
            self._retry_at = 0.0
        return not self._refused

    def _lose(self, error: Exception) -> None:
        if not self._retry_at:
            _log.warning(
                "MLflow at %s does not get what is logged (%s): it is kept in %s and sent later",
                redacted(self._store.uri),
                fault(error),
                redacted(self.journal.place),
            )
        self._retry_at = time.monotonic() + RETRY_AFTER

    def _send_in_order(self) -> int:
        """Sends numbers and texts, then files, then the status; returns the number of events."""
        waiting = {name: events for name, events in self.journal.waiting().items() if name not in self._refused}
        texts: dict[str, list[Event]] = {}
        files: dict[str, list[Event]] = {}
        status: dict[str, list[Event]] = {}
        for name, events in waiting.items():
            kind = files if "artifact" in events[0] else status if "status" in events[0] else texts
            kind[name] = events
        self._send(texts)
        failed: Exception | None = None
        try:
            for name, events in files.items():
                self._send({name: events})
        except RunDeletedError:
            raise
        except Exception as error:  # a file that cannot be read must not leave a finished run running
            failed = error
        self._send(status)
        if failed is not None:
            raise failed
        return sum(map(len, waiting.values()))

    def _send(self, files: Mapping[str, list[Event]]) -> None:
        """Sends the events of some of the journal's files; those that the server refuses are left where they are."""
        if not files:
            return
        known = self.journal.highest_steps() if self._steps is None else self._steps
        events, steps = unsent([event for file in files.values() for event in file], known)
        try:
            send_events(self._store, self._run_id, [self._with_address(event) for event in events])
        except Exception as error:
            if not is_refusal(error):
                raise
            self._require_run()
            if len(files) > 1:
                for name, part in files.items():
                    self._send({name: part})
            else:
                self._refused |= files.keys()
                place = redacted(self.journal.place)
                _log.warning("MLflow refuses an event, kept in %s: %s", place, fault(error))
            return
        self.journal.mark_sent(list(files), steps if steps != known else None)
        self._steps = steps

    def _require_run(self) -> None:
        """Raises RunDeletedError, also in the workers, where the run is not there any more."""
        try:
            if self._store.client().get_run(self._run_id).info.lifecycle_stage == "active":
                return
        except Exception as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
        reason = f"run {self._run_id} of MLflow at {redacted(self._store.uri)} was deleted while it was written"
        self.journal.end(reason)
        raise RunDeletedError(reason)

    def _with_address(self, event: Event) -> Event:
        """The event with the artifact's own address, as far as this process or the run's folder has it."""
        source = event.get("artifact", "")
        if "***" not in source:
            return event
        if source in self._addresses:
            return {**event, "artifact": self._addresses[source]}
        place = redacted(self._folder).partition("?")[0].rstrip("/")
        if not source.startswith(place + "/"):
            return event
        name = source.removeprefix(place + "/").partition("?")[0]
        return {**event, "artifact": join(self._folder, name)}


def unsent(events: list[Event], known: Mapping[str, int]) -> tuple[list[Event], dict[str, int]]:
    """The events without the metrics that the server has at their step or a later one, and the new highest steps.

    Args:
        events: of the journal. Only those with "once", the workers', are left out.
        known: the highest step that the server has of every metric.
    """
    steps, kept = dict(known), [event for event in events if not event.get("once")]
    # By step, not by time: the clock of a replaced node may have been ahead.
    for event in sorted((e for e in events if e.get("once")), key=lambda e: (e["step"], e["time_ms"])):
        new = {name: value for name, value in event["metrics"].items() if event["step"] > steps.get(name, -1)}
        steps |= dict.fromkeys(new, event["step"])
        kept += [{**event, "metrics": new}] if new else []
    return kept, steps


class Deliveries:
    """Sends from a daemon thread, from ``start`` to ``stop``, what the processes of a run have written."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="deliveries to MLflow")

    def start(self) -> None:
        """Starts the thread; it looks after one interval for the first time."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.wait(EVERY):
                self._sender.deliver_if_due()
        except RunDeletedError as error:  # raised in the workers, and here by the next event
            _log.error("%s", error)


def _now(event: dict[str, Any]) -> Event:
    return {**event, "time_ms": int(time.time() * 1000)}
