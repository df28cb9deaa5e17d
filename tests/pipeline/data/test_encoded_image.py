"""The size in the header of JPEG and PNG files."""

import resource
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.encoded_image import decode_rgb, image_size


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
