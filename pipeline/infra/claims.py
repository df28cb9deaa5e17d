"""Claims on an output folder: jobs with different inputs exclude each other, jobs with the same inputs share work.

A claim is a small JSON file in a folder of claims. A job writes its claim first and then reads the others', so of two
jobs that start at the same moment at least one sees the other. This needs no lock with a timeout and no renewal; it
only needs a file to be listed once it is written, which POSIX and object storage (S3 since 2020) guarantee.

A killed job leaves its claim. The claim is removed when its process is known to have ended, which only the same machine
can find out. With a claim from another machine a job of the same inputs goes on, since equal inputs make equal files,
and a job of other inputs is refused with the name of the file to delete.
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
from pipeline.infra.redaction import redacted


@dataclass(frozen=True)
class Claim:
    """The claim of this process.

    Attributes:
        folder: the folder of claims, or its URI.
        name: of this claim's file in it.
        inputs: hash of the job's inputs and options.
    """

    folder: str
    name: str
    inputs: str

    def others(self) -> list[tuple[str, dict[str, Any]]]:
        """(file, content) of the other claims; removes those whose process has ended."""
        found = []
        for name in names(self.folder):
            if name == self.name or name.startswith("."):
                continue
            path = join(self.folder, name)
            with suppress(ValueError):  # withdrawn meanwhile
                content = read_json(path)
                if has_ended(content):
                    delete(path)
                else:
                    found.append((path, content))
        return found


@contextmanager
def claimed(folder: str, inputs: str, what: str, job: str = "conversion") -> Iterator[Claim]:
    """Holds a claim while the block runs.

    Args:
        folder: the folder of claims, or its URI; made if needed.
        inputs: hash of the job's inputs and options.
        what: the output folder, for messages.
        job: kind of job, for messages.

    Raises:
        ValueError: a job with other inputs may be running.
    """
    claim = Claim(folder, f"{uuid.uuid4().hex}.json", inputs)
    content = {"inputs": inputs, **this_process()}
    try:
        write_json(join(folder, claim.name), content)
    except FileNotFoundError:  # a job that ended at this moment has removed the folder
        write_json(join(folder, claim.name), content)
    try:
        for path, other in claim.others():
            by = f"process {other['pid']} on {other['host']} since {other['since']}"
            if other["inputs"] != inputs:
                raise ValueError(
                    f"{what}: another {job}, from other files or with other options, is running there ({by}): "
                    f"choose another folder, or delete {path} if it is not running any more"
                )
            state = f"the same {job} is running or was interrupted there ({by}); its finished work is used"
            print(f"{redacted(what)}: {state}")
        yield claim
    finally:
        delete(join(folder, claim.name))


def this_process() -> dict[str, Any]:
    """What a claim says about the process that holds it, as JSON; ``since`` is now."""
    pid = os.getpid()
    process = {"machine": _machine(), "host": socket.gethostname(), "pid": pid, "started": _start_time(pid)}
    return {"since": datetime.now(UTC).isoformat(timespec="seconds"), **process}


def is_of_this_machine(claim: dict[str, Any]) -> bool:
    """Whether the process of a claim is, or was, one of this machine, which can then tell whether it has ended."""
    return bool(_machine()) and claim["machine"] == _machine()


def _machine() -> str:
    """Where a process id is unique: the boot of this machine and the container's namespace; "" if not known."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    """Start time of a process of this machine in clock ticks since boot; None when it has ended, collected or not."""
    try:
        # Field 22 of stat(5). The command's name, field 2, may hold spaces and brackets: count from its last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def has_ended(claim: dict[str, Any]) -> bool:
    """Whether the process of a claim is known to have ended; False for a process of another machine.

    The start time is compared too, because the kernel may have given the process id to another process.
    """
    return is_of_this_machine(claim) and claim["started"] != _start_time(claim["pid"])
