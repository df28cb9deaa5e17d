"""Arrays in files of NumPy (.npz) and MATLAB (.mat), bounded before they take memory; pickles are never read.

Both formats pack a thousand zeros in one byte and state sizes that nothing checks. So the sizes that a file states are
added up first, and no more than those is unpacked.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.infra.regular_files import MAX_ANNOTATION_BYTES, read_file, regular_file, unread

_MAT_HEADER, _TAG = 128, 8
_MATRIX, _COMPRESSED = 14, 15
"""Types of elements of a .mat file."""
_CELLS, _STRUCT = 1, 2
"""Classes of arrays whose elements are arrays; these take at least a tag each."""
_MAX_DEPTH = 32
"""Deepest nesting of cells and structures that is read."""


def read_npz(
    path: Path, wanted: str, names: Sequence[str] | None = None, most: int = MAX_ANNOTATION_BYTES
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file.

    Args:
        path: of the file.
        wanted: what it should be, for messages.
        names: those that are read, all by default.
        most: bytes of the file, and of all its arrays together, at most.

    Raises:
        ValueError: no such file, too large, no archive of plain arrays, or a name is not in it; names the file.
    """
    try:
        regular_file(path, most)
    except OSError as error:
        raise ValueError(unread(error)) from error
    try:
        with zipfile.ZipFile(path) as packed:
            if (size := sum(member.file_size for member in packed.infolist())) > most:
                raise ValueError(f"holds {size} bytes, wanted at most {most}")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in (archive.files if names is None else names)}
    except Exception as error:  # errors of the zip file, of the format and of the names have no common type
        raise ValueError(f"{path}: wanted {wanted} ({_text(error)})") from error


def read_mat(
    path: Path, wanted: str, names: Sequence[str] | None = None, most: int = MAX_ANNOTATION_BYTES
) -> dict[str, Any]:
    """The variables of a .mat file, as scipy.io.loadmat gives them.

    Args:
        path: of the file, of MATLAB's versions 4 to 7.2.
        wanted: what it should be, for messages.
        names: those that are read, all by default.
        most: bytes of the file, and of its unpacked variables together, at most.

    Raises:
        ValueError: no such file, too large, no .mat file, or a name is not in it; names the file.
    """
    import scipy.io  # here: the command line lists all sources before it reads any

    try:
        data = read_file(path, most)
    except OSError as error:
        raise ValueError(unread(error)) from error
    try:
        found = scipy.io.loadmat(BytesIO(unpacked_mat(data, most)), variable_names=names and list(names))
        return {name: found[name] for name in (found if names is None else names) if not name.startswith("__")}
    except Exception as error:  # scipy's errors for damaged files have no common type
        raise ValueError(f"{path}: wanted {wanted} ({_text(error)})") from error


def unpacked_mat(data: bytes, most: int) -> bytes:
    """A .mat file of version 5 with its compressed elements unpacked, so that a reader finds no more than is there.

    Other versions are returned unchanged; they are not compressed.

    Raises:
        ValueError: more than ``most`` bytes, or elements that are not what they state.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or data[:4] == bytes(4):
        return data
    parts, at, room = [data[:_MAT_HEADER]], _MAT_HEADER, most
    while at + _TAG <= len(data):
        kind, length = struct.unpack(order + "II", data[at : at + _TAG])
        body = data[at + _TAG : at + _TAG + length]
        if len(body) < length:
            raise ValueError(f"an element of {length} bytes, of which {len(body)} are there")
        at += _TAG + length
        if kind == _COMPRESSED:
            body = _unpacked(body, order, room)
            kind, length = _MATRIX, len(body)
        room -= length
        if room < 0:
            raise ValueError(f"more than {most} bytes of variables")
        if kind == _MATRIX:
            _check_elements(body, order)
        # Elements begin at multiples of 8, counted from the file's start; compressed ones may not.
        parts += [struct.pack(order + "II", kind, length + -length % 8), body, bytes(-length % 8)]
    return b"".join(parts)


def _unpacked(packed: bytes, order: str, most: int) -> bytes:
    """The content of a compressed element, without its tag."""
    unpack = zlib.decompressobj()
    kind, length = struct.unpack(order + "II", unpack.decompress(packed, _TAG))
    if kind != _MATRIX or length > most:
        raise ValueError(f"a packed element of type {kind} and {length} bytes, wanted a matrix of at most {most}")
    body = unpack.decompress(unpack.unconsumed_tail, length + 1) if length else b""
    if len(body) != length:
        raise ValueError(f"a packed matrix states {length} bytes and has {'more' if len(body) > length else 'fewer'}")
    return body


def _check_elements(body: bytes | memoryview, order: str, depth: int = 0) -> None:
    """Refuses cells and structures that state more elements than their bytes can hold, or are nested too deep."""
    view, at = memoryview(body), 0
    parts: list[tuple[int, memoryview]] = []
    while at + _TAG <= len(view):
        kind, length = struct.unpack(order + "II", view[at : at + _TAG])
        if kind >> 16:  # a small element: type and length in 4 bytes, data in the next 4
            kind, length, start, step = kind & 0xFFFF, kind >> 16, at + 4, _TAG
        else:
            start, step = at + _TAG, _TAG + length + -length % 8
        if length > len(view) - start:
            raise ValueError(f"an element of {length} bytes, of which {len(view) - start} are there")
        parts.append((kind, view[start : start + length]))
        at += step
    if len(parts) < 2 or len(parts[0][1]) < 4:
        return
    flags = struct.unpack(order + "I", parts[0][1][:4])[0]
    inner = [part for kind, part in parts if kind == _MATRIX]
    if flags & 0xFF in (_CELLS, _STRUCT):
        sizes = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1][: len(parts[1][1]) // 4 * 4])
        if (stated := math.prod(sizes)) > len(view) // _TAG:
            raise ValueError(f"{stated} elements stated in {len(view)} bytes")
    if inner and depth >= _MAX_DEPTH:
        raise ValueError(f"cells in cells, more than {_MAX_DEPTH} deep")
    for part in inner:
        _check_elements(part, order, depth + 1)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
