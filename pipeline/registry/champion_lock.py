"""One change of a registered model's champion at a time, whichever machines the changes are asked from.

MLflow has neither a lock nor a compare-and-swap: an alias or a tag is overwritten by whoever writes last. What is
atomic in its stores (sqlite, PostgreSQL, MySQL, directly or behind a server) is the number of a new model version: name
and number are the table's primary key, the number is the highest so far plus one, and deleted versions keep theirs. So
whoever wants to change the champion of NAME draws a ticket, a version of the registered model ``NAME.queue``, and has
its turn when no lower ticket is left. A ticket's number is never given again: removing one can never remove another's,
as it could with one lock that is deleted and made anew.

The holder of a ticket shows that it lives by counting up a tag. A ticket whose count stands still for a whole lease, by
the clock of who waits behind it, is removed: clocks of different machines are never compared, and time in which the
waiting process itself was held up does not count. A holder that was only
asleep for so long finds its ticket gone before it moves the alias (``Turn.require``).
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
from typing import Any

from pipeline.infra.mlflow_client import is_loss, mlflow_client, refusal

LEASE = 30.0
"""Seconds without a sign of life after which a ticket is void."""
PATIENCE = 900.0
"""Seconds to wait for one's turn, at most."""

_POLL = 0.3
_OWNER, _ALIVE = "das.owner", "das.alive"
_log = logging.getLogger(__name__)


def queue_name(name: str) -> str:
    """The registered model that holds the tickets for ``name``."""
    return f"{name}.queue"


@dataclass
class ChampionLock:
    """The right to change a registered model's champion, as long as the ticket is there."""

    tracking_uri: str
    name: str
    ticket: int
    lease: float
    _ended: threading.Event = field(default_factory=threading.Event)

    def require(self) -> None:
        """Raises RuntimeError when the turn was lost: others took this process for dead."""
        if self.ticket not in _tickets(self._client, self.name):
            raise RuntimeError(
                f"no sign of life from here for {self.lease:g} s: the turn to change {self.name} was lost; try again"
            )

    def wait(self, patience: float) -> None:
        """Returns when no lower ticket is left; TimeoutError after ``patience`` seconds."""
        until = time.monotonic() + patience
        seen: dict[int, tuple[str, float]] = {}  # ticket -> its count, and seconds of looking at it without a change
        before, announced = time.monotonic(), False
        while True:
            ahead = {n: tags for n, tags in _tickets(self._client, self.name).items() if n < self.ticket}
            if not ahead:
                return
            now = time.monotonic()
            looked, before = min(now - before, 2 * _POLL), now
            owner = ahead[min(ahead)].get(_OWNER, "somebody")
            if not announced:
                _log.warning("%s is being changed by %s: waiting", self.name, owner)
                announced = True
            if now > until:
                raise TimeoutError(f"{self.name} is being changed by {owner}; gave up after {patience:g} s")
            for number, tags in ahead.items():
                count = tags.get(_ALIVE, "")
                last, still = seen.get(number, ("", 0.0))
                seen[number] = (count, still + looked if count == last else 0.0)
                if seen[number][1] > self.lease:
                    _log.warning("no sign of life from %s: its turn is over", tags.get(_OWNER, "somebody"))
                    _remove(self._client, self.name, number)
            time.sleep(_POLL)

    def beat(self) -> None:
        """Counts up the sign of life until the turn ends; runs in a thread of its own."""
        count = 0
        while not self._ended.wait(self.lease / 6):
            count += 1
            try:
                self._client.set_model_version_tag(queue_name(self.name), str(self.ticket), _ALIVE, str(count))
            except Exception as error:
                if refusal(error) == "RESOURCE_DOES_NOT_EXIST":
                    return  # taken for dead; `require` tells
                if not is_loss(error):
                    raise
                # While the store is lost nobody else sees that this count stands still; the next one may get there.

    @property
    def _client(self) -> Any:
        return mlflow_client(self.tracking_uri, must_exist=True)


@contextmanager
def champion_lock(
    tracking_uri: str, name: str, source: str, run_id: str, lease: float = LEASE, patience: float = PATIENCE
) -> Iterator[ChampionLock]:
    """Waits for its turn to change the champion of ``name``, and holds it inside the block.

    Args:
        tracking_uri: absolute address of the MLflow store.
        name: registered model.
        source: runs:/RUN_ID/PATH of the version that it is about; says on the ticket what is going on.
        run_id: of that source.
        lease: seconds; must be the same for all who wait for each other.
        patience: seconds to wait, at most.

    Raises:
        TimeoutError: others took longer than ``patience``.
    """
    client = mlflow_client(tracking_uri, must_exist=True)
    owner = f"{socket.gethostname()} pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}"
    ticket = _draw(client, name, source, run_id, {_OWNER: owner, _ALIVE: "0"})
    mine = ChampionLock(tracking_uri, name, ticket, lease)
    pulse = threading.Thread(target=mine.beat, daemon=True, name=f"turn {ticket} of {name}")
    pulse.start()
    try:
        mine.wait(patience)
        yield mine
    finally:
        mine._ended.set()
        pulse.join()
        try:
            _remove(client, name, ticket)
        except Exception as error:
            if not is_loss(error):
                raise
            _log.warning("the store is lost: ticket %d of %s becomes void after %g s", ticket, name, lease)


def _draw(client: Any, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> int:
    """A new ticket's number; the queue is made by the first who needs it."""
    queue = queue_name(name)
    for attempt in range(6):
        try:
            return int(client.create_model_version(queue, source=source, run_id=run_id, tags=dict(tags)).version)
        except Exception as error:
            if refusal(error) == "RESOURCE_DOES_NOT_EXIST":
                _make_queue(client, name)
            elif attempt == 5 or not (is_loss(error) or "creation error" in str(error)):
                raise
            else:  # several drew at once and the store gave up after its own attempts
                time.sleep(_POLL * (attempt + 1))
    raise AssertionError("the last attempt returns or raises")


def _make_queue(client: Any, name: str) -> None:
    text = f"Tickets of those who are about to change the champion of {name}; empty while nobody is. Leave it alone."
    try:
        client.create_registered_model(queue_name(name), tags={"das.queue": name}, description=text)
    except Exception as error:
        if refusal(error) != "RESOURCE_ALREADY_EXISTS":  # another process was faster
            raise


def _tickets(client: Any, name: str) -> dict[int, dict[str, str]]:
    """All tickets that are left, with their tags."""
    found = client.search_model_versions(f"name = '{queue_name(name)}'", max_results=1000)
    return {int(version.version): dict(version.tags) for version in found}


def _remove(client: Any, name: str, ticket: int) -> None:
    """Removes one ticket; that somebody else removed it already is all right."""
    try:
        client.delete_model_version(queue_name(name), str(ticket))
    except Exception as error:
        if refusal(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
