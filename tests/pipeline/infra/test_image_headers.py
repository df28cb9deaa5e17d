"""Sizes in headers equal those of the decoded images; files that only claim to be large are refused."""

import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.infra.image_headers import check_pixels, size_in_header
from pipeline.infra.images import decode_bytes, read_photo_bits

ENDINGS = (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif", ".ppm", ".pgm", ".pam", ".ras", ".jp2", ".avif")


def one_colour_png(width, height) -> bytes:
    """A PNG without an image in memory: a thousandth of its pixels in bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pack = zlib.compressobj(9)
    pixels = b"".join(pack.compress(bytes(1 + width * 3)) for _ in range(height)) + pack.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_that_claims(width, height) -> bytes:
    data = bytearray(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiled_tiff(width, height, tile) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("size", [(240, 400), (301, 177)])
def test_the_header_has_the_size_of_the_decoded_image(ending, size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 1 if ending == ".pgm" else 3), np.uint8)
    data = cv2.imencode(ending, image)[1].tobytes()
    assert size_in_header(data) == size == cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_cut_header_is_a_value_error(ending):
    data = cv2.imencode(ending, np.zeros((240, 400, 1 if ending == ".pgm" else 3), np.uint8))[1].tobytes()
    for length in range(0, min(len(data), 200)):
        try:
            found = size_in_header(data[:length])
        except ValueError:
            continue
        assert found == (240, 400), length


@pytest.mark.parametrize(
    "data",
    [
        jpeg_that_claims(65500, 65500),
        tiled_tiff(64, 64, 30000),
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 154, 0, 0, 54, 40, 30000, -30000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100),
        b"P6 # a remark\n30000 30000 255\n" + bytes(10),
        b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n",
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + bytes(20),
        b"RIFF\x20\0\0\0WEBPVP8L\x14\0\0\0\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(20),
        b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\x3f\xff\xff\x3f" + bytes(20),
    ],
)
def test_images_that_claim_too_many_pixels_are_refused_before_they_are_decoded(data, tmp_path):
    (tmp_path / "x").write_bytes(data)
    for call in (lambda: read_photo_bits(tmp_path / "x"), lambda: decode_bytes(data)):
        with pytest.raises(ValueError, match="pixels, wanted at most 134 million"):
            call()
    with pytest.raises(ValueError, match="64x48 pixels, wanted at most 0 million"):
        check_pixels((48, 64), 100)


def test_a_png_of_900_megapixels_takes_no_memory(tmp_path):
    (tmp_path / "bomb.png").write_bytes(one_colour_png(30000, 30000))
    code = """
import resource, sys
from pathlib import Path
from pipeline.data.encoded_image import image_size
from pipeline.infra.images import read_photo_bits
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
data = Path(sys.argv[1]).read_bytes()
for call in (lambda: read_photo_bits(sys.argv[1]), lambda: image_size(data)):
    try:
        call()
    except ValueError as error:
        assert "30000x30000 pixels" in str(error), error
    else:
        raise AssertionError("it was read")
"""
    limit = str(2 << 30)
    assert int(limit) <= (resource.getrlimit(resource.RLIMIT_AS)[0] % (1 << 63) or 1 << 62)
    project = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.png"), limit], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
