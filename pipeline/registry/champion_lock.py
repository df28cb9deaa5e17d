"""A lock across machines: one change of a registered model's champion at a time.

MLflow has neither a lock nor a compare-and-swap: the last write of an alias or a tag wins. What is atomic in its stores
(sqlite, PostgreSQL, MySQL, directly or behind a server) is the number of a new model version: name and number are the
table's primary key, the number is the highest so far plus one, and deleted versions keep theirs. So a process that
wants the lock of model NAME draws a ticket, a version of the registered model ``NAME.queue``, and has the lock when no
lower ticket is left. No number is given twice: removing one ticket can never remove another, as it could with a single
lock object that is deleted and created again.

While a process waits for the lock or holds it, a thread increments a heartbeat tag on its ticket. A waiting process
removes a ticket ahead of it whose heartbeat has not changed for a whole lease. It measures this with its own clock, so
clocks of different machines are never compared, and it does not count time in which it was suspended itself. A process
that was suspended for longer than the lease finds its ticket removed before it moves the alias
(``ChampionLock.require``).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.infra.mlflow_client import MlflowStore, error_code, is_loss
from pipeline.models import QUEUE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEASE = 30.0
"""Seconds without a heartbeat after which a ticket may be removed by others."""
PATIENCE = 900.0
"""Longest wait for the lock, seconds."""

_POLL = 0.3  # seconds between two looks at the tickets
_DRAWS = 6  # attempts to draw a ticket
_OWNER, _HEARTBEAT = "das.owner", "das.alive"
_log = logging.getLogger(__name__)


def queue_name(name: str) -> str:
    """The registered model whose versions are the tickets for the champion of ``name``."""
    return f"{name}.queue"


@dataclass
class ChampionLock:
    """The right to change a registered model's champion; valid as long as the ticket exists.

    Attributes:
        store, name: of the registered model. ticket: number of the ticket. lease: seconds.
    """

    store: MlflowStore
    name: str
    ticket: int
    lease: float
    _ended: threading.Event = field(default_factory=threading.Event)

    def require(self) -> None:
        """Raises RuntimeError where the ticket was removed because its heartbeat was missing for a lease."""
        if self.ticket not in _tickets(self._client, self.name):
            raise RuntimeError(
                f"no heartbeat from here for {self.lease:g} s: the lock on the champion of {self.name} was lost; "
                "try again"
            )

    def wait(self, patience: float) -> None:
        """Returns when no lower ticket is left; TimeoutError after ``patience`` seconds."""
        until = time.monotonic() + patience
        seen: dict[int, tuple[str, float]] = {}  # ticket -> its heartbeat, and seconds watched without a change
        before, announced = time.monotonic(), False
        while True:
            ahead = {n: tags for n, tags in _tickets(self._client, self.name).items() if n < self.ticket}
            if not ahead:
                return
            now = time.monotonic()
            # At most two polls count: more means that this process was suspended, and saw no heartbeats meanwhile.
            watched, before = min(now - before, 2 * _POLL), now
            owner = _owner(ahead[min(ahead)])
            if not announced:
                _log.warning("%s is being changed by %s: waiting", self.name, owner)
                announced = True
            if now > until:
                raise TimeoutError(f"{self.name} is being changed by {owner}; gave up after {patience:g} s")
            for number, tags in ahead.items():
                heartbeat = tags.get(_HEARTBEAT, "")
                last, unchanged = seen.get(number, ("", 0.0))
                seen[number] = (heartbeat, unchanged + watched if heartbeat == last else 0.0)
                if seen[number][1] > self.lease:
                    _log.warning("no heartbeat from %s for %g s: its ticket is removed", _owner(tags), self.lease)
                    _remove(self._client, self.name, number)
            time.sleep(_POLL)

    def beat(self) -> None:
        """Increments the ticket's heartbeat six times a lease until the lock is released; runs in its own thread."""
        count = 0
        while not self._ended.wait(self.lease / 6):
            count += 1
            try:
                self._client.set_model_version_tag(queue_name(self.name), str(self.ticket), _HEARTBEAT, str(count))
            except Exception as error:
                if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                    return  # the ticket was removed; `require` raises
                if not is_loss(error):
                    raise
                # Others cannot read the tickets from a lost store either. The next heartbeat may arrive.

    @property
    def _client(self) -> MlflowClient:
        return self.store.client(must_exist=True)


@contextmanager
def champion_lock(
    store: MlflowStore, name: str, source: str, run_id: str, lease: float = LEASE, patience: float = PATIENCE
) -> Iterator[ChampionLock]:
    """Waits for the lock on the champion of ``name``, holds it for the block, and releases it.

    Args:
        store: of the registered model.
        name: registered model.
        source: runs:/RUN_ID/PATH of the version that the change is about; shown on the ticket's page.
        run_id: of that source.
        lease: seconds; must be the same in all processes that compete for the lock.
        patience: longest wait, seconds.

    Raises:
        TimeoutError: the lock was not free within ``patience``.
    """
    client = store.client(must_exist=True)
    owner = f"{socket.gethostname()} pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}"
    ticket = _draw(client, name, source, run_id, {_OWNER: owner, _HEARTBEAT: "0"})
    lock = ChampionLock(store, name, ticket, lease)
    heartbeat = threading.Thread(target=lock.beat, daemon=True, name=f"ticket {ticket} of {name}")
    heartbeat.start()
    try:
        lock.wait(patience)
        yield lock
    finally:
        lock._ended.set()
        heartbeat.join()
        try:
            _remove(client, name, ticket)
        except Exception as error:
            if not is_loss(error):
                raise
            _log.warning("the store is lost: ticket %d of %s becomes void after %g s", ticket, name, lease)


def _draw(client: MlflowClient, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> int:
    """A new ticket's number; creates the queue where the model has none yet."""
    queue = queue_name(name)
    for attempt in range(_DRAWS):
        try:
            return int(client.create_model_version(queue, source=source, run_id=run_id, tags=dict(tags)).version)
        except Exception as error:
            if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                _create_queue(client, name)
            elif attempt == _DRAWS - 1 or not (is_loss(error) or "creation error" in str(error)):
                raise
            else:  # several processes drew at once and the store gave up after its own attempts
                time.sleep(_POLL * (attempt + 1))
    raise AssertionError("the last attempt returns or raises")


def _create_queue(client: MlflowClient, name: str) -> None:
    text = f"Tickets of the processes that are changing the champion of {name}; normally empty. Do not edit."
    try:
        client.create_registered_model(queue_name(name), tags={QUEUE_TAG: name}, description=text)
    except Exception as error:
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":  # another process has just created it
            raise


def _tickets(client: MlflowClient, name: str) -> dict[int, dict[str, str]]:
    """All tickets that are left, with their tags."""
    found = client.search_model_versions(f"name = '{queue_name(name)}'", max_results=1000)
    return {int(version.version): dict(version.tags) for version in found}


def _owner(tags: Mapping[str, str]) -> str:
    """Host, process and start of a ticket's owner."""
    return tags.get(_OWNER, "an unknown process")


def _remove(client: MlflowClient, name: str, ticket: int) -> None:
    """Removes one ticket; no error where another process has removed it already."""
    try:
        client.delete_model_version(queue_name(name), str(ticket))
    except Exception as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
