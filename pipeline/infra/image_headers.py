"""The size of an encoded image from its header, before anything is decoded.

A PNG of one colour packs 900 megapixels, 2.7 GB, in 1 MB. OpenCV's own limit is 1024 megapixels.
"""

from __future__ import annotations

import re
import struct

MAX_PIXELS = 1 << 27
"""Most pixels of an image that is decoded. A photo of 108 megapixels has fewer; its pixels take 400 MB."""
MAX_IMAGE_BYTES = 1 << 28
"""Largest image file that is read, bytes: 2 for each of ``MAX_PIXELS``, which is more than any JPEG has."""

_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TIFF_SIZE, _TIFF_TILE = (257, 256), (323, 322)
"""Tags: image length and width, tile length and width."""


def size_in_header(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels that an image file states; of a TIFF with larger tiles, those of a tile.

    Args:
        data: the whole file: JPEG, PNG, WebP, TIFF, BMP, GIF, PNM, Sun raster, JPEG 2000 or AVIF.

    Raises:
        ValueError: another format, or a header without a size.
    """
    try:
        found = _size(data)
    except (struct.error, IndexError) as error:
        raise ValueError("an image whose header is cut short") from error
    if found is None:
        raise ValueError(f"bytes {data[:4].hex()} at the start")
    return int(found[0]), int(found[1])


def check_pixels(size: tuple[int, int], most: int = MAX_PIXELS) -> tuple[int, int]:
    """The (height, width); ValueError when they are more pixels than ``most``."""
    height, width = size
    if height * width > most:
        raise ValueError(f"{width}x{height} pixels, wanted at most {most / 1e6:.0f} million")
    return size


def _size(data: bytes) -> tuple[int, int] | None:
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):  # the first chunk is always IHDR
        width, height = struct.unpack(">II", data[16:24])
        return height, width
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data)
    if data[:2] == b"BM":
        old = struct.unpack("<I", data[14:18])[0] == 12
        width, height = struct.unpack("<HH" if old else "<ii", data[18:22] if old else data[18:26])
        return abs(height), abs(width)
    if data[:4] == b"GIF8":
        width, height = struct.unpack("<HH", data[6:10])
        return height, width
    if data[:4] == b"\x59\xa6\x6a\x95":  # Sun raster
        width, height = struct.unpack(">II", data[4:12])
        return height, width
    if re.match(rb"P[1-7][\s#]", data):
        return _pnm(data)
    if data[:4] == b"\xff\x4f\xff\x51" or data[4:12] == b"jP  \r\n\x87\n":
        return _jpeg_2000(data)
    if data[4:12] in (b"ftypavif", b"ftypavis", b"ftypmif1"):
        # Every item of the file has an ispe box: version and flags, width, height.
        sizes = [struct.unpack(">II", data[m.end() + 4 : m.end() + 12]) for m in re.finditer(rb"ispe", data[: 1 << 20])]
        return max(((h, w) for w, h in sizes), key=lambda size: size[0] * size[1], default=None)
    return None


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in (0xFF, 0x00):  # a fill byte, or no marker
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without content
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # SOF0 to SOF15; the three are DHT, JPG, DAC
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        elif marker in (0xD9, 0xDA):  # the end, or pixels
            break
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without frame header")


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    width, height = struct.unpack("<HH", data[26:30])
    return (height & 0x3FFF, width & 0x3FFF) if kind == b"VP8 " else None


def _tiff(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    (start,) = struct.unpack(order + ("Q" if big else "I"), data[8:16] if big else data[4:8])
    length, entry, place = (8, 20, 12) if big else (2, 12, 8)
    (count,) = struct.unpack(order + ("Q" if big else "H"), data[start : start + length])
    tags: dict[int, int] = {}
    for at in range(start + length, start + length + entry * min(count, 1 << 16), entry):
        tag, kind = struct.unpack(order + "HH", data[at : at + 4])
        if tag in _TIFF_SIZE + _TIFF_TILE and kind in _TIFF_TYPES:
            form = order + _TIFF_TYPES[kind]
            (tags[tag],) = struct.unpack(form, data[at + place : at + place + struct.calcsize(form)])
    sizes = [(tags[a], tags[b]) for a, b in (_TIFF_SIZE, _TIFF_TILE) if a in tags and b in tags]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _pnm(data: bytes) -> tuple[int, int] | None:
    text = re.sub(rb"#[^\n]*\n", b"\n", data[: 1 << 16])
    if data[:2] == b"P7":
        found = [re.search(rb"\b" + word + rb"\s+(\d{1,18})\s", text) for word in (b"HEIGHT", b"WIDTH")]
        return (int(found[0][1]), int(found[1][1])) if found[0] and found[1] else None
    plain = re.match(rb"P\d\s+(\d{1,18})\s+(\d{1,18})\s", text)
    return (int(plain[2]), int(plain[1])) if plain else None


def _jpeg_2000(data: bytes) -> tuple[int, int] | None:
    at = 0
    while data[at : at + 4] != b"\xff\x4f\xff\x51":  # boxes before the codestream
        length, kind, skipped = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if length == 1:
            length, skipped = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind == b"jp2c":
            at += skipped
            break
        if length < skipped:
            return None
        at += length
    x1, y1, x0, y0 = struct.unpack(">IIII", data[at + 8 : at + 24])
    return (y1 - y0, x1 - x0) if data[at : at + 4] == b"\xff\x4f\xff\x51" and y1 > y0 and x1 > x0 else None
