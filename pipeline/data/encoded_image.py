"""Size and pixels of encoded images (JPEG and PNG)."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

from pipeline.infra.image_headers import MAX_PIXELS, check_pixels, size_in_header
from pipeline.infra.images import eight_bits, quiet_decoders


def image_size(data: bytes, most: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) in pixels of an encoded JPEG or PNG, read from its header; also checks that its end is there.

    Args:
        data: the encoded image.
        most: largest number of pixels that it may have.

    Raises:
        ValueError: the bytes are empty, not a JPEG or PNG, cut short, or have more pixels.
    """
    if not data:
        raise ValueError("no bytes")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        if len(data) < 24 or b"IEND" not in data[-64:]:
            raise ValueError("a PNG that is cut short")
        return check_pixels(size_in_header(data), most)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        raise ValueError("a WebP image, wanted JPEG or PNG")
    if not data.startswith(b"\xff\xd8"):
        raise ValueError(f"bytes {data[:4].hex()} at the start")
    # Decoders fill the missing part of a cut JPEG with grey and succeed, so the end marker is looked for. It need not
    # be the last two bytes: some writers append a few of their own after it.
    if b"\xff\xd9" not in data[-4096:]:
        raise ValueError("a JPEG that is cut short")
    return check_pixels(size_in_header(data), most)


_ORIENTATION = 0x0112  # EXIF tag
_JPEG_QUALITY = 95
_PNG_HEADER = 33  # bytes of the signature and of IHDR, the first chunk


def orientation(data: bytes) -> int:
    """The orientation tag (EXIF) of an encoded JPEG or PNG: 1 to 8, 1 where there is none or it has no meaning.

    The beginning of the file, up to its pixels, is enough. With 5 to 8 height and width change places.
    """
    try:
        return _tag_of(_exif(data))
    except (struct.error, IndexError):  # cut short or malformed: decoders ignore it too
        return 1


def _exif(data: bytes) -> bytes:
    """The EXIF block, a TIFF without pixels; b"" if there is none."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at = 8
        while at + 8 <= len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            if kind == b"eXIf":
                return data[at + 8 : at + 8 + length]
            at += 12 + length
        return b""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # SOS: the pixels begin
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 10 : at + 2 + length]
        at += 1 if data[at + 1] == 0xFF else 2 + length
    return b""


def _tag_of(exif: bytes) -> int:
    """The orientation in an EXIF block; 1 if it has none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    (start,) = struct.unpack(order + "I", exif[4:8])
    (count,) = struct.unpack(order + "H", exif[start : start + 2])
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack(order + "HHIH", exif[at : at + 10])
        if tag == _ORIENTATION:
            return value if 1 <= value <= 8 else 1
    return 1


def displayed(data: bytes) -> bytes:
    """The image as programs display it: turned by its orientation tag and encoded again, without the tag.

    Without a tag the bytes are returned unchanged.

    Raises:
        ValueError: it has a tag and cannot be decoded.
    """
    if orientation(data) == 1:
        return data
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ValueError(f"an image that cannot be decoded ({error})") from error
    if image is None:
        raise ValueError("an image that cannot be decoded")
    suffix = ".png" if data.startswith(b"\x89PNG") else ".jpg"
    done, turned = cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == ".jpg" else [])
    assert done, image.shape
    return turned.tobytes()


def scaled_to_8_bits(data: bytes) -> tuple[bytes, int | None]:
    """A 16-bit PNG whose values do not fill it, such as 12-bit greys, as an 8-bit one divided by their true range.

    Decoders divide by 256, which leaves of 12-bit values a sixteenth of the brightness.

    Args:
        data: an encoded image, checked by ``image_size``.

    Returns:
        the new file with the same orientation tag and the depth of the values; other images unchanged, and None.

    Raises:
        ValueError: a 16-bit PNG that cannot be decoded.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[24] != 16:
        return data, None
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    with quiet_decoders():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("a PNG that cannot be decoded")
    scaled, bits = eight_bits(image)
    if bits == 16:
        return data, None
    done, found = cv2.imencode(".png", scaled)
    assert done, image.shape
    encoded, exif = found.tobytes(), _exif(data)
    if exif:
        chunk = b"eXIf" + exif
        chunk = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        encoded = encoded[:_PNG_HEADER] + chunk + encoded[_PNG_HEADER:]
    return encoded, bits


def is_jpeg(data: bytes) -> bool:
    """Whether an encoded image is a JPEG, whose decoder can give a smaller image in less time."""
    return data.startswith(b"\xff\xd8")


def decode_rgb(data: bytes, size: tuple[int, int], half: bool = False) -> np.ndarray:
    """Decodes a JPEG or PNG of a known size.

    The orientation tag of EXIF is ignored, because annotations refer to the pixels as stored.

    Args:
        data: the encoded image.
        size: (height, width) in pixels that the image must have.
        half: decode it at half the size, rounded up: pixel i is the mean of 2 i and 2 i + 1.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the image cannot be decoded, or has another size.
    """
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if half:
        flags |= cv2.IMREAD_REDUCED_GRAYSCALE_2  # the size alone: REDUCED_COLOR_2 is this and BGR
    wanted = (-(-size[0] // 2), -(-size[1] // 2)) if half else size
    try:
        found = image_size(data)
        # The header is compared first: decoding a header with a far larger size would allocate memory for all of it.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if found == size else None
    except (ValueError, cv2.error) as error:
        raise ValueError(f"image cannot be decoded: found {error}") from error
    if image is None and found == size:
        raise ValueError(f"image decodes to no image, wanted {size[1]}x{size[0]}")
    if image is None or image.shape[:2] != wanted:
        found, wanted = (found, size) if image is None else (image.shape[:2], wanted)
        raise ValueError(f"image decodes to {found[1]}x{found[0]} pixels, wanted {wanted[1]}x{wanted[0]}")
    return image
