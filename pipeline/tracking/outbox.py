"""Journals: files of events that are written first and sent to the server when it answers.

One file per writer, one JSON object a line; beside it a file ``.sent`` with the number of bytes that the server has.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pipeline.infra.redaction import redacted


class Journal:
    """The events of one writer: one process may write at a time, others may read.

    Args:
        path: of the JSON-lines file; its folder is created with the first event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sent = path.with_suffix(".sent")

    def append(self, event: dict[str, Any]) -> None:
        """Writes one event; it is in the file when this returns.

        Raises:
            OSError: it cannot be written, as on a full disk; names the file.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                if file.tell() > self._whole_lines():
                    # A process that was killed in the middle of a line left part of an event; `append` never returned.
                    file.truncate(self._whole_lines())
                file.write(json.dumps(event).encode() + b"\n")
        except OSError as error:  # one of a write has no file name
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def pending(self) -> tuple[list[dict[str, Any]], int]:
        """Events that the server lacks, the oldest first, and the position after the last of them, bytes."""
        if not self.path.is_file():
            return [], 0
        start = int(self._sent.read_text()) if self._sent.is_file() else 0
        with self.path.open("rb") as file:
            file.seek(start)
            lines = file.read()
        lines = lines[: lines.rfind(b"\n") + 1]
        return [json.loads(line) for line in lines.splitlines()], start + len(lines)

    def length(self) -> int:
        """Number of events written so far, sent or not."""
        return self.path.read_bytes().count(b"\n") if self.path.is_file() else 0

    def mark_sent(self, position: int) -> None:
        """Records that the server has all events before ``position`` (bytes, from ``pending``)."""
        staging = self._sent.with_suffix(".sent.staging")
        staging.write_text(str(position))
        staging.replace(self._sent)

    def _whole_lines(self) -> int:
        """Position after the last complete line, bytes."""
        with self.path.open("rb") as file:
            end = file.seek(0, 2)
            # Backwards byte by byte: the file may be large, an unfinished line is short.
            while end and file.seek(end - 1) == end - 1 and file.read(1) != b"\n":
                end -= 1
        return end


def journal_folder(folder: str) -> Path:
    """``tracking/`` in the run's folder; below the home folder for runs on object storage, which cannot append."""
    if "://" in folder:
        return Path("~/.cache/das/tracking").expanduser() / re.sub(r"\W+", "_", redacted(folder))
    return Path(folder) / "tracking"
