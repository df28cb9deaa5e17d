"""A journal of events that a server must get: written first, sent when it can be.

One file per writer, one JSON object a line; beside it the number of bytes that the server has.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


class Journal:
    """Events of one writer. Another process may read it, one alone writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sent = path.with_suffix(".sent")

    def append(self, event: dict[str, Any]) -> None:
        """Adds one event; it is in the file when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            if file.tell() > self._whole_lines():
                # A writer killed in the middle of a line left part of an event that nobody was promised.
                file.truncate(self._whole_lines())
            file.write(json.dumps(event).encode() + b"\n")

    def pending(self) -> tuple[list[dict[str, Any]], int]:
        """Events that the server lacks, oldest first, and the position in bytes behind them."""
        if not self.path.is_file():
            return [], 0
        start = int(self._sent.read_text()) if self._sent.is_file() else 0
        with self.path.open("rb") as file:
            file.seek(start)
            lines = file.read()
        lines = lines[: lines.rfind(b"\n") + 1]
        return [json.loads(line) for line in lines.splitlines()], start + len(lines)

    def length(self) -> int:
        """Events written so far, sent or not."""
        return self.path.read_bytes().count(b"\n") if self.path.is_file() else 0

    def mark_sent(self, position: int) -> None:
        """The server has all events before ``position``."""
        staging = self._sent.with_suffix(".sent.staging")
        staging.write_text(str(position))
        staging.replace(self._sent)

    def _whole_lines(self) -> int:
        """Position behind the last complete line."""
        with self.path.open("rb") as file:
            end = file.seek(0, 2)
            while end and file.seek(end - 1) == end - 1 and file.read(1) != b"\n":
                end -= 1
        return end


def journal_folder(folder: str) -> Path:
    """``tracking/`` beside the run; for runs on object storage, which cannot append, in the home folder."""
    if "://" in folder:
        return Path("~/.cache/das/tracking").expanduser() / re.sub(r"\W+", "_", folder)
    return Path(folder) / "tracking"
