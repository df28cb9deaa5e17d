"""Which files `das predict` wrote: each carries a mark, and only files with the mark are replaced.

JSON and JSON lines begin with the field written_by. Pictures and videos hold the mark where their format has room for a
comment: a COM segment in JPEG, a tEXt chunk in PNG, a free box at the end of MP4. HTML names the program as its
generator, Parquet in its metadata; of CSV the line of column names is the mark. BVH has
no room for one: NAME_track1.bvh is ours where NAME_tracks.csv beside it is.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

AUTHOR = "das predict"
_JSON_START = re.compile(rb'\{\s*"written_by": "das predict"')
_HTML_MARK = b'<meta name="generator" content="das predict">'
_CSV_STARTS = (b"file,frame,time_ms,person,score,joint,x_mm,", b"track,frame,time_ms,person,joint,x_mm,")
_MOTION = re.compile(r"_track\d+\.bvh$")
_TEXT_HEAD = 2000
_MOST_FOOTER = 1 << 24
_JPEG_HEAD = 1 << 17
"""Bytes at the beginning of a JPEG that hold its JFIF segment, which is shorter than 64 kB, and the mark."""
_PNG_END = 12
"""Bytes of the last chunk of a PNG file, IEND."""


class OutputError(ValueError):
    """A result cannot be written; the next file would fail in the same way."""


def signed(value: dict[str, Any]) -> dict[str, Any]:
    """The JSON object with the mark as its first field."""
    return {"written_by": AUTHOR, **value}


def sign_picture(data: bytes) -> bytes:
    """The bytes of a JPEG (JFIF, as OpenCV writes it) or PNG file with the mark."""
    place = _picture_mark_place(data)
    assert place is not None, data[:4]
    mark = _jpeg_mark() if data[:2] == b"\xff\xd8" else _png_mark()
    return data[:place] + mark + data[place:]


def sign_video(path: Path) -> None:
    """Appends the mark to an MP4 file."""
    with path.open("ab") as file:
        file.write(_mp4_mark())


def is_own(path: Path) -> bool:
    """Whether the file carries the mark."""
    if not path.is_file():
        return False
    if path.suffix == ".bvh":
        table = path.with_name(_MOTION.sub("_tracks.csv", path.name))
        return table != path and is_own(table)
    with path.open("rb") as file:
        if path.suffix in (".json", ".jsonl"):
            return _JSON_START.match(file.read(100)) is not None
        if path.suffix == ".html":
            return _HTML_MARK in file.read(_TEXT_HEAD)
        if path.suffix == ".csv":
            return file.read(100).startswith(_CSV_STARTS)
        if path.suffix == ".parquet":
            return _parquet_names_us(file, path.stat().st_size)
        if path.suffix == ".mp4":
            file.seek(max(0, path.stat().st_size - len(_mp4_mark())))
            return file.read() == _mp4_mark()
        if path.suffix == ".png":
            file.seek(max(0, path.stat().st_size - _PNG_END - len(_png_mark())))
            return file.read()[:-_PNG_END] == _png_mark()
        data = file.read(_JPEG_HEAD)
    place = _picture_mark_place(data)
    return place is not None and data[place:].startswith(_jpeg_mark())


def refuse_foreign(paths: Iterable[Path]) -> None:
    """Refuses to replace files that `das predict` did not write.

    Raises:
        OutputError: some exist without the mark; names them.
    """
    foreign = []
    for path in paths:
        with writing(path):
            if os.path.lexists(path) and not is_own(path):
                foreign.append(path)
    if foreign:
        few = ", ".join(map(str, foreign[:4])) + (f" and {len(foreign) - 4} more" if len(foreign) > 4 else "")
        verb = "exists and was" if len(foreign) == 1 else "exist and were"
        raise OutputError(f"{few} {verb} not written by das predict; choose another --out")


def check_folder(folder: Path) -> None:
    """Makes sure that files can be written in the folder; a folder that was created for this is removed again.

    Raises:
        OutputError: a file of that name, or a place that cannot be written.
    """
    with writing(folder):
        missing = [p for p in (folder, *folder.parents) if not os.path.lexists(p)]
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}-das-predict"
        try:
            probe.write_bytes(b"das")
        finally:
            probe.unlink(missing_ok=True)
            for created in missing:
                created.rmdir()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure of the file system into an OutputError that names the path."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _parquet_names_us(file: BinaryIO, size: int) -> bool:
    """Whether the metadata at the end of a Parquet file hold the mark; read without Parquet's library."""
    file.seek(max(0, size - 8))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or length > min(size - 8, _MOST_FOOTER):
        return False
    file.seek(size - 8 - length)
    return f'"written_by": "{AUTHOR}"'.encode() in file.read(length)


def _picture_mark_place(data: bytes) -> int | None:
    """Where the mark of a picture begins; None if it is neither JPEG with a JFIF header nor PNG."""
    if data[:4] == b"\xff\xd8\xff\xe0":
        return 4 + int.from_bytes(data[4:6], "big")
    return len(data) - _PNG_END if data[:4] == b"\x89PNG" else None


def _jpeg_mark() -> bytes:
    text = AUTHOR.encode()
    return b"\xff\xfe" + struct.pack(">H", 2 + len(text)) + text


def _png_mark() -> bytes:
    content = b"tEXt" + b"Software\0" + AUTHOR.encode()
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _mp4_mark() -> bytes:
    text = AUTHOR.encode()
    return struct.pack(">I", 8 + len(text)) + b"free" + text
