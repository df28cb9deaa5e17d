"""Reading, encoding and decoding of images; in memory they are (H, W, 3) uint8 RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from pipeline.infra.image_headers import MAX_IMAGE_BYTES, MAX_PIXELS, check_pixels, size_in_header
from pipeline.infra.regular_files import read_file

_SENSOR_BITS = (8, 10, 12, 14, 16)
"""Depths of sensors; a 16-bit file is taken to hold the smallest of them that its brightest value fits."""
_KINDS = {
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"%pdf": "PDF",
    b"pk\x03\x04": "a ZIP archive",
    b"gif8": "GIF",
    b"8bps": "Photoshop",
    b"fujifilmccd-raw": "a raw file of a camera",
    b"version https://git-lfs": "a Git LFS pointer",
}
"""First bytes, in lower case, of files that come under an image's name."""
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF", b"crx ": "raw (CR3)"}
"""Brands of ISO media files that are pictures; others are videos."""


def read_photo(path: str | Path, stored_pixels: bool = False) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB; arguments and ValueError as ``read_photo_bits``."""
    return read_photo_bits(path, stored_pixels)[0]


def read_photo_bits(
    path: str | Path,
    stored_pixels: bool = False,
    most_pixels: int = MAX_PIXELS,
    most_bytes: int = MAX_IMAGE_BYTES,
) -> tuple[np.ndarray, int | None]:
    """An image file, and the depth of values that do not fill a 16-bit file.

    Args:
        path: of any format that OpenCV decodes, 8 or 16 bits a value.
        stored_pixels: ignore the EXIF orientation; by default pixels are as displayed.
        most_pixels: more are refused before they are decoded.
        most_bytes: a larger file is not read.

    Returns:
        (H, W, 3) uint8 RGB, and the depth that 16-bit values were scaled by, 8, 10, 12 or 14, such as 12-bit greys in
        a 16-bit file. None where nothing is to be said: 8-bit files, and 16-bit files whose values need 16 bits.

    Raises:
        ValueError: no such file, no regular file, larger than allowed, or not an image.
    """
    return decode_photo(path, photo_bytes(path, most_pixels, most_bytes), stored_pixels)


def decode_photo(path: str | Path, data: bytes, stored_pixels: bool = False) -> tuple[np.ndarray, int | None]:
    """What ``photo_bytes`` has read, as ``read_photo_bits`` gives it; ``path`` is for its ValueError."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_IGNORE_ORIENTATION if stored_pixels else 0)
    with quiet_decoders():
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            raise ValueError(f"{path}: OpenCV cannot read it ({error.err or error})") from error
    if image is None:
        raise _no_image(path, data)
    if image.dtype == np.uint8:
        return image, None
    if image.dtype != np.uint16:
        raise ValueError(f"{path}: an image of {image.dtype} values, wanted 8 or 16 bits a value")
    scaled, bits = eight_bits(image)
    return scaled, bits if bits < 16 else None


def photo_bytes(path: str | Path, most_pixels: int = MAX_PIXELS, most_bytes: int = MAX_IMAGE_BYTES) -> bytes:
    """Content of an image file whose header has been checked; arguments and ValueError as ``read_photo_bits``."""
    try:
        data = read_file(Path(path), most_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{path}: no such file") from error
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    try:
        size = size_in_header(data)
    except ValueError as error:
        raise _no_image(path, data) from error
    try:
        check_pixels(size, most_pixels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return data


def _no_image(path: str | Path, data: bytes) -> ValueError:
    return ValueError(f"{path}: no image that OpenCV can read ({kind_of(data[:64])}), wanted JPEG, PNG, WebP or TIFF")


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keeps the remarks of OpenCV and of its decoders off the terminal: what is wrong is said in an error's one line.

    FFmpeg's level is read once, when the first video of a process is opened.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def eight_bits(image: np.ndarray) -> tuple[np.ndarray, int]:
    """16-bit values as 8-bit ones, scaled by their true range: 4095 of 12 bits becomes 255.

    Args:
        image: uint16, any shape.

    Returns:
        uint8 of the same shape, and the depth of the values: 8, 10, 12, 14 or 16.
    """
    brightest = int(image.max(initial=0))
    bits = next(bits for bits in _SENSOR_BITS if brightest < 1 << bits)
    if bits == 16:  # as OpenCV does itself: files that fill their 16 bits are stored as they are
        return (image >> 8).astype(np.uint8), bits
    table = np.round(np.arange(1 << bits) * (255 / ((1 << bits) - 1))).astype(np.uint8)
    return table[image], bits


def kind_of(start: bytes) -> str:
    """What a file is, in a word or two, by its first bytes; for messages about files that are no image."""
    if not start:
        return "an empty file"
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], "a video")
    begin = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    return next((kind for magic, kind in _KINDS.items() if begin.startswith(magic)), "damaged or of an unknown kind")


def encode_image(image: np.ndarray, ending: str) -> bytes:
    """Encodes an RGB image (H, W, 3) uint8 as a file with this ending (.jpg of quality 92, .png)."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if ending == ".jpg" else []
    good, data = cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert good, ending
    return data.tobytes()


def decode_bytes(data: bytes, most_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The bytes of an image file as (H, W, 3) uint8 RGB; ValueError if they are no image or have more pixels."""
    try:
        check_pixels(size_in_header(data), most_pixels)
        with quiet_decoders():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (ValueError, cv2.error) as error:
        raise ValueError(f"{len(data)} bytes that are no image ({error}), wanted JPEG or PNG") from error
    if image is None:
        raise ValueError(f"{len(data)} bytes that are no image, wanted JPEG or PNG")
    return image
