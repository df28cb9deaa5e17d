"""The size in the header of JPEG and PNG files."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.encoded_image import image_size


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
