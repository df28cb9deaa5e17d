"""Who is converting into a folder, so that different conversions exclude each other and equal ones share their work.

A claim is a small file beside the unfinished parts. Everybody writes a claim first and then looks for those of
others, so of two that start at the same moment at least one sees the other. That asks the file system for nothing
but that a file is listed once it is written, which POSIX and object storage (S3 since 2020) promise; no lock that
times out, and nothing to renew.

A killed conversion leaves its claim. It counts as dead when its process is known to have ended, which is known on the
same machine alone. From elsewhere, work of the same inputs goes on all the same (equal work makes equal files); work
of other inputs is refused, in words that say which file to delete.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.infra.files import delete, join, names, read_json, write_json


@dataclass(frozen=True)
class Claim:
    """This process's claim on a folder."""

    folder: str
    """Of the claims."""
    name: str
    """Of its file."""
    inputs: str
    """Hash of what is converted."""

    def others(self) -> list[tuple[str, dict[str, Any]]]:
        """(file, content) of all claims of others that may be alive; those that are dead for certain are removed."""
        found = []
        for name in names(self.folder):
            if name == self.name or name.startswith("."):
                continue
            path = join(self.folder, name)
            with suppress(ValueError):  # withdrawn meanwhile
                content = read_json(path)
                if _is_dead(content):
                    delete(path)
                else:
                    found.append((path, content))
        return found


@contextmanager
def claimed(folder: str, inputs: str, what: str) -> Iterator[Claim]:
    """Holds a claim on ``folder`` for as long as the block runs.

    Args:
        folder: of the claims.
        inputs: hash of what is converted.
        what: the place, for error messages.

    Raises:
        ValueError: another conversion, of other inputs, may be running.
    """
    claim = Claim(folder, f"{uuid.uuid4().hex}.json", inputs)
    pid = os.getpid()
    who = {"machine": _machine(), "host": socket.gethostname(), "pid": pid, "started": _started(pid)}
    since = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"inputs": inputs, "since": since, **who}
    try:
        write_json(join(folder, claim.name), content)
    except FileNotFoundError:  # whoever was here finished at this moment and removed the folder
        write_json(join(folder, claim.name), content)
    try:
        for path, other in claim.others():
            by = f"process {other['pid']} on {other['host']} since {other['since']}"
            if other["inputs"] != inputs:
                raise ValueError(
                    f"{what}: another conversion, from other files or with other options, is under way there ({by}): "
                    f"choose another folder, or delete {path} if it is not running any more"
                )
            print(f"{what}: the same conversion is under way or was cut off there ({by}); its finished work is used")
        yield claim
    finally:
        delete(join(folder, claim.name))


def _machine() -> str:
    """Names the space in which a process id means something: this boot of this machine, this container."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # not known on this system: then nobody counts as dead


def _started(pid: int) -> str | None:
    """When a process of this machine started, in the kernel's own ticks; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _is_dead(claim: dict[str, Any]) -> bool:
    """Whether the process that wrote a claim has ended for certain; its number may have been given to another."""
    return bool(_machine()) and claim["machine"] == _machine() and claim["started"] != _started(claim["pid"])
