"""The journal of a run: small files on the run's storage, written before anything is sent to the server.

Any process of the run writes, on any node; the driver alone reads and sends. A file appears whole and never changes, so
object storage, which cannot append, serves as well as a disk.

tracking/RUN_ID/waiting/    events that the server lacks, one file for each time that somebody wrote some
tracking/RUN_ID/sent/       events that it has, one file for each time that the driver sent some
tracking/RUN_ID/sent.json   the highest step that it has of every metric
tracking/RUN_ID/files/      artifacts that exist nowhere else
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.infra.files import STAGED, delete, exists, join, names, read_bytes, read_json, write_bytes, write_json
from pipeline.infra.redaction import redacted, redacted_values

Event = dict[str, Any]
"""What happened, with its time in milliseconds since 1970 under "time_ms"; the other fields are those of sending.py."""
_log = logging.getLogger(__name__)


class Journal:
    """The journal of one run.

    Args:
        folder: folder or object-storage URI of the run.
        run_id: the MLflow run.

    Attributes:
        place: folder or URI of the journal.
    """

    def __init__(self, folder: str, run_id: str) -> None:
        self.place = join(folder, "tracking", run_id)
        self._waiting, self._sent = join(self.place, "waiting"), join(self.place, "sent")
        self._steps, self._end = join(self.place, "sent.json"), join(self.place, "deleted.json")
        self._read: dict[str, list[Event]] = {}

    def write(self, events: Sequence[Event]) -> None:
        """Writes events, redacted, as one file; they are on the storage when this returns.

        Raises:
            OSError: they cannot be written, as on a full disk.
        """
        # Two writers may meet in one nanosecond, and two nodes in one time.
        name = f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json"
        write_bytes(join(self._waiting, name), json.dumps(redacted_values(list(events))).encode())

    def waiting(self) -> dict[str, list[Event]]:
        """The events that the server lacks, by file, the oldest first."""
        found: dict[str, list[Event]] = {}
        for name in names(self._waiting):
            if name in self._read:  # during a long loss the same files are asked for again and again
                found[name] = self._read[name]
            elif not name.startswith(STAGED):
                try:
                    data = read_bytes(join(self._waiting, name))
                except ValueError:  # sent by the driver meanwhile, where a worker looks
                    continue
                found[name] = json.loads(data)
        self._read = found
        return dict(self._read)

    def highest_steps(self) -> dict[str, int]:
        """The highest step that the server has of every metric."""
        return dict(read_json(self._steps)) if exists(self._steps) else {}

    def next_step(self, group: str) -> int:
        """The step after the last of all metrics named ``group/NAME``, sent or not."""
        events = [event for events in self.waiting().values() for event in events]
        steps = [(name, event["step"]) for event in events for name in event.get("metrics", ())]
        steps += self.highest_steps().items()  # read last: what was sent in between is in both
        return 1 + max((step for name, step in steps if name.rpartition("/")[0] == group), default=-1)

    def mark_sent(self, sent: Sequence[str], steps: Mapping[str, int] | None) -> None:
        """Records that the server has the events of these files, and the highest steps where they have changed.

        The steps come first: a driver that is killed in between sends the files again, which changes nothing, and
        knows by then which steps of a restarted worker to leave out.
        """
        if steps is not None:
            write_json(self._steps, steps)
        events = [event for name in sent for event in self._read[name]]
        write_bytes(join(self._sent, min(sent)), json.dumps(events).encode())
        for name in sent:
            delete(join(self._waiting, name))

    def end(self, reason: str | None) -> None:
        """Tells the writers that nothing is sent any more, and why; None takes it back."""
        if reason is not None:
            write_json(self._end, reason)
        else:
            delete(self._end)

    def require_open(self) -> None:
        """ValueError with the reason where the driver has ended the journal."""
        if exists(self._end):
            raise ValueError(read_json(self._end))

    def write_file(self, name: str, data: bytes) -> str:
        """Writes a file that is to become an artifact; returns its path or URI."""
        path = join(self.place, "files", name)
        write_bytes(path, data)
        return path


class BackgroundWriter:
    """Writes events of one process to the journal from a thread: training does not wait for the storage."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._events: list[Event] = []
        self._writing = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "journal")
        self._failed = False

    def add(self, event: Event) -> None:
        """Writes an event soon, with the present time. What cannot be written is kept and tried again with the next."""
        self._events.append({**event, "time_ms": int(time.time() * 1000)})
        self._thread.submit(self._try)

    def flush(self) -> None:
        """Writes what is left; everything added so far is on the storage when this returns.

        Raises:
            OSError: it cannot be written; it is kept.
        """
        with self._writing:
            if events := list(self._events):
                self.journal.write(events)
                del self._events[: len(events)]
            self._failed = False

    def _try(self) -> None:
        try:
            self.flush()
        except OSError as error:  # `flush`, called before a checkpoint, raises it if it lasts
            if not self._failed:
                _log.warning("%s cannot be written: %s", redacted(self.journal.place), redacted(str(error)))
            self._failed = True
