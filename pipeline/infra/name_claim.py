"""The claim of a training or a sweep on its name: of two processes with the same one, the second is refused.

A claim is a small JSON file in the run's folder. A process first writes that it asks, then reads the others' files: one
that is held refuses it, and of several that ask at the same moment the one with the smallest file name is served. So
exactly one wins, with files that are listed once they are written, which POSIX and object storage (S3 since 2020)
guarantee, and without a lock.

A killed process leaves its claim, which the next one removes when its holder is known to be dead:

- a process of the same machine: when it has ended;
- a driver of the same Ray cluster: when its node or its Ray job has ended;
- any other: when the number in its claim, which it raises every 2 s, stays the same for 8 s of the asking process's
  own clock. Clocks of different machines are not compared.

A holder that was suspended for longer finds its claim removed when it goes on, and is interrupted (KeyboardInterrupt
in its main thread), because another process may have its name by then.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline.infra.claims import has_ended, is_of_this_machine, this_process
from pipeline.infra.files import delete, exists, join, names, read_json, write_json
from pipeline.infra.ray_jobs import has_ended_in_ray, this_ray_job
from pipeline.infra.redaction import redacted

BEAT = 2.0
"""Seconds between two raises of the number in a claim."""
PATIENCE = 8.0
"""Seconds after which a claim of another machine whose number stays the same is one of a dead process."""

FOLDER = "claims"
_POLL = 0.2


@contextmanager
def claimed_name(run: str, kind: str, beat: float = BEAT, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the claim on a run's name while the block runs.

    Args:
        run: the run's folder, or its URI.
        kind: training or sweep, for messages.
        beat: seconds between two raises of the claim's number.
        patience: seconds after which a claim whose number stays the same is not held any more.

    Raises:
        ValueError: another process holds it; names its host, process id, start and Ray job.
        KeyboardInterrupt: in the main thread, when this process was suspended so long that another may have it.
    """
    claim = _Claim(join(run, FOLDER), patience)
    claim.write("asks")
    try:
        # Also one that asks shows that it lives: two that asked without would take each other for dead.
        with _beating(claim, kind, beat):
            if (other := claim.rival()) is not None:
                raise ValueError(
                    f"{redacted(run)}: this {kind} is running already ({_who(other)}): wait for its end, stop it or "
                    "choose another --name"
                )
            claim.write("holds")
            yield
    finally:
        delete(claim.path)


@dataclass
class _Claim:
    """The claim of this process, in a folder of claims."""

    folder: str
    patience: float
    name: str = field(default_factory=lambda: f"{uuid.uuid4().hex}.json")
    beats: int = 0
    state: str = ""
    removed: list[str] = field(default_factory=list)
    process: dict[str, Any] = field(default_factory=lambda: {**this_process(), "ray": this_ray_job()})
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> str:
        return join(self.folder, self.name)

    def write(self, state: str = "") -> None:
        """Writes the file, in the same or another state, with a number that it has not had before."""
        with self.lock:
            self.state, self.beats = state or self.state, self.beats + 1
            content = {"state": self.state, "beats": self.beats, "removed": self.removed, **self.process}
            write_json(self.path, content)

    def is_lost(self) -> bool:
        """Whether another process has taken this one for dead. Its file may be there again, written at that moment."""
        return not exists(self.path) or any(self.name in other["removed"] for other in self._others().values())

    def rival(self) -> dict[str, Any] | None:
        """The content of a claim that goes before this one; None when this one may be held.

        Those of dead processes are removed. It waits for the decision of those that ask after this one: they may have
        looked before this one was written, and then hold the name next.
        """
        while True:
            others = self._others()
            for name, content in others.items():
                if (content["state"] == "holds" or name < self.name) and not self._is_dead(name, content):
                    return content
            if not any(not self._is_dead(name, content) for name, content in others.items() if name > self.name):
                return None
            time.sleep(_POLL)

    def _others(self) -> dict[str, dict[str, Any]]:
        return {
            name: content
            for name in names(self.folder)
            if name != self.name and not name.startswith(".") and (content := self._read(name)) is not None
        }

    def _read(self, name: str) -> dict[str, Any] | None:
        with suppress(ValueError):  # withdrawn meanwhile
            content: dict[str, Any] = read_json(join(self.folder, name))
            return content
        return None

    def _is_dead(self, name: str, content: dict[str, Any]) -> bool:
        """Whether the process of another claim has ended, or withdrew it; the claim of a dead one is removed."""
        if is_of_this_machine(content):
            dead = has_ended(content)
        elif not (dead := has_ended_in_ray(content["ray"])):
            after = self._beat_after(name, content)
            if after is None:
                return True
            dead = after == content["beats"]
        if dead:
            print(f"{redacted(self.folder)}: the claim of a process that has ended is removed ({_who(content)})")
            self.removed.append(name)
            delete(join(self.folder, name))
        return dead

    def _beat_after(self, name: str, content: dict[str, Any]) -> int | None:
        """The number of a claim as soon as it has changed, or the same one after all patience; None if it is gone."""
        print(f"{redacted(self.folder)}: waits up to {self.patience:g} s for a sign of life ({_who(content)})")
        end = time.monotonic() + self.patience
        now: dict[str, Any] | None = content
        while now is not None and now["beats"] == content["beats"] and time.monotonic() < end:
            time.sleep(_POLL)
            now = self._read(name)
        return None if now is None else int(now["beats"])


def _who(claim: dict[str, Any]) -> str:
    job = claim["ray"].get("name")
    return f"process {claim['pid']} on {claim['host']} since {claim['since']}" + (f", Ray job {job}" if job else "")


@contextmanager
def _beating(claim: _Claim, kind: str, beat: float) -> Iterator[None]:
    """Raises the claim's number while the block runs; interrupts the process when the claim has been removed."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(beat):
            with suppress(OSError):  # a storage that does not answer for a moment; tried again
                if claim.state == "holds" and claim.is_lost():
                    print(
                        f"{redacted(claim.folder)}: this {kind} was suspended and its claim removed; it ends",
                        file=sys.stderr,
                    )
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return
                claim.write()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
