"""The size and orientation in the header of JPEG and PNG files."""

import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.encoded_image import decode_rgb, displayed, image_size, orientation, scaled_to_8_bits


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([".jpg", ".png"]), st.booleans())
def test_the_header_gives_the_size_that_decoding_gives(height, width, suffix, progressive):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)] if suffix == ".jpg" else []
    data = cv2.imencode(suffix, pixels, options)[1].tobytes()
    assert image_size(data) == (height, width)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_give_a_size_or_are_refused(data, start):
    try:
        height, width = image_size(start + data)
    except ValueError:
        return
    assert height >= 0 and width >= 0


def tagged(data: bytes, tag: int, order: str = ">") -> bytes:
    """A JPEG or PNG with an EXIF block of one entry, its orientation."""
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8)
    exif = head + struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, tag, 0, 0)
    if data.startswith(b"\xff\xd8"):
        block = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    chunk = b"eXIf" + exif
    return data[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def dots(suffix: str) -> bytes:
    """A black picture of 32 x 16 with a white block at its left top."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_an_orientation_tag_is_found_and_applied_as_opencv_does(tag, order, suffix):
    data = tagged(dots(suffix), tag, order)
    assert orientation(data) == tag and image_size(data) == (16, 32)
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    turned = displayed(data)
    assert orientation(turned) == 1 and (turned is data) == (tag == 1)
    stored = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert stored.shape == shown.shape and np.abs(stored.astype(int) - shown).max() < 12
    assert image_size(turned) == ((32, 16) if tag >= 5 else (16, 32))


@given(st.binary(max_size=100))
def test_a_malformed_tag_is_none(data):
    exif = b"Exif\0\0MM\0\x2a" + data
    file = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert 1 <= orientation(file) <= 8 and 1 <= orientation(data) <= 8


def test_webp_is_refused_by_its_name():
    data = cv2.imencode(".webp", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    with pytest.raises(ValueError, match="a WebP image, wanted JPEG or PNG"):
        image_size(data)


def png_of_one_colour(height, width):
    """A small file whose pixels take height x width x 3 bytes."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((1, 0, 0, 0, 0))  # one bit a pixel
    pixels = zlib.compress(bytes(1 + -(-width // 8)) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_more_pixels_than_the_limit_are_refused_before_decoding():
    data = png_of_one_colour(30_000, 30_000)
    assert len(data) < 2e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for call in (lambda: image_size(data), lambda: decode_rgb(data, (30_000, 30_000))):
        with pytest.raises(ValueError, match="30000x30000 pixels, wanted at most 134 million"):
            call()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_the_limit_of_pixels_is_a_parameter():
    data = png_of_one_colour(30, 40)
    assert image_size(data, most=1200) == (30, 40)
    with pytest.raises(ValueError, match="40x30 pixels"):
        image_size(data, most=1199)


@pytest.mark.parametrize("tag", [None, 6])
def test_values_that_do_not_fill_a_16_bit_file_are_divided_by_their_range(tag):
    values = np.random.default_rng(0).integers(0, 1 << 12, (20, 30, 3)).astype(np.uint16)
    values[0, 0] = 4095
    data = cv2.imencode(".png", values)[1].tobytes()
    data = data if tag is None else tagged(data, tag)
    found, bits = scaled_to_8_bits(data)
    assert bits == 12 and orientation(found) == (tag or 1) and found[24] == 8
    assert (decode_rgb(found, (20, 30)) == np.round(values * (255 / 4095))[..., ::-1]).all()
    assert scaled_to_8_bits(found) == (found, None)


def test_full_16_bit_files_and_jpegs_keep_their_bytes():
    full = np.full((20, 30, 3), 65535, np.uint16)
    for data in (cv2.imencode(".png", full)[1].tobytes(), cv2.imencode(".jpg", full.astype(np.uint8))[1].tobytes()):
        assert scaled_to_8_bits(data) == (data, None)
    with pytest.raises(ValueError, match="cannot be decoded"):
        scaled_to_8_bits(cv2.imencode(".png", full)[1].tobytes()[:40] + bytes(20))
