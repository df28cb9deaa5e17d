"""Focal lengths from EXIF data, against values computed by hand for the data of two phones."""

import struct

import cv2
import numpy as np
import pytest

from pipeline.infra.exif import exif_focal

# A phone whose data have the equivalent on 35 mm film: 26 mm, on 4032 x 3024 pixels whose diagonal is 5040.
# 26 / 43.2666 x 5040 = 3028.7.
FILM_PHONE = {0xA405: 26, 0x920A: (570, 100), 0xA002: 4032, 0xA003: 3024}
# One without it: 4.25 mm, 8192 pixels per cm of the sensor. 4.25 x 819.2 = 3481.6.
PLANE_PHONE = {0x920A: (425, 100), 0xA20E: (8192, 1), 0xA210: 3, 0xA002: 4000, 0xA003: 3000}


def with_exif(tags, size=(30, 40), orientation=1):
    """A JPEG file of (height, width) pixels with an orientation and the camera's tags: a number, or (n, d)."""
    data = cv2.imencode(".jpg", np.zeros((*size, 3), np.uint8))[1].tobytes()
    values, entries = b"", b""
    # IFD0 at 8: orientation and the place of the camera's tags at 38; the values behind those.
    place = 38 + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        if isinstance(value, tuple):
            entries += struct.pack("<HHII", tag, 5, 1, place + len(values))
            values += struct.pack("<II", *value)
        else:
            entries += struct.pack("<HHII", tag, 4, 1, value)
    first = struct.pack("<HHHII", 2, 0x0112, 3, 1, orientation) + struct.pack("<HHII", 0x8769, 4, 1, 38) + bytes(4)
    tiff = b"II*\0" + struct.pack("<I", 8) + first + struct.pack("<H", len(tags)) + entries + bytes(4) + values
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + data[2:]


def test_the_equivalent_on_35_mm_film_is_by_the_diagonal():
    found = exif_focal(with_exif(FILM_PHONE), (3024, 4032))
    assert found.focal_px == pytest.approx(3028.7, abs=0.1) and found.numbers == {"focal_length_35mm": 26}
    # Turned by its tag or by a program, and made smaller: the same field of view.
    assert exif_focal(with_exif(FILM_PHONE, orientation=6), (4032, 3024)).focal_px == pytest.approx(3028.7, abs=0.1)
    assert exif_focal(with_exif(FILM_PHONE), (756, 1008)).focal_px == pytest.approx(3028.7 / 4, abs=0.1)


def test_without_it_the_focal_length_and_the_resolution_of_the_sensor_are_used():
    found = exif_focal(with_exif(PLANE_PHONE), (3000, 4000))
    assert found.focal_px == pytest.approx(3481.6, abs=0.01)
    assert found.numbers == {"focal_length_mm": 4.25, "pixels_per_mm": pytest.approx(819.2)}
    assert exif_focal(with_exif(PLANE_PHONE), (2000, 1500)).focal_px == pytest.approx(3481.6 / 2, abs=0.01)
    inches = {**PLANE_PHONE, 0xA20E: (20807, 1), 0xA210: 2}  # 20807 / 25.4 = 819.17 pixels per mm
    assert exif_focal(with_exif(inches), (3000, 4000)).focal_px == pytest.approx(3481.5, abs=0.1)


def test_a_crop_is_not_believed_and_said():
    found = exif_focal(with_exif(FILM_PHONE), (3024, 3024))
    assert found.focal_px is None and "4032x3024 pixels and the file has 3024x3024" in found.fault


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {0xA405: 0, 0x920A: (570, 100)},
        {**PLANE_PHONE, 0xA210: 9},
        {**PLANE_PHONE, 0xA20E: (1, 0)},
        {**PLANE_PHONE, 0x920A: (0, 0)},
    ],
)
def test_what_is_unknown_or_senseless_gives_no_focal_length(tags):
    found = exif_focal(with_exif(tags), (3000, 4000))
    assert found.focal_px is None and found.fault == ""


def test_damaged_data_give_no_focal_length(monkeypatch):
    whole = with_exif(FILM_PHONE)
    for data in (b"", b"\xff\xd8\xff", whole[:60], whole[:40] + b"\xff" * 60 + whole[100:]):
        assert exif_focal(data, (3024, 4032)).focal_px is None
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(20, 160, 6)] = rng.integers(0, 256, 6)
        exif_focal(damaged.tobytes(), (3024, 4032))

    def stumble(*_, **__):
        raise struct.error("unpack requires a buffer")

    monkeypatch.setattr("pipeline.infra.exif.Image.open", stumble)
    assert exif_focal(whole, (3024, 4032)).fault == "EXIF not used: it cannot be read (error)"
