"""Reading of photos: orientation, 16-bit files scaled by their true range, and files that are no image."""

import cv2
import numpy as np
import pytest

from pipeline.infra.images import decode_bytes, eight_bits, encode_image, kind_of, read_photo, read_photo_bits
from tests.pipeline.predict.prediction_cases import jpeg_with_orientation, refused


@pytest.fixture
def grey(tmp_path):
    return np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_values_of_a_16_bit_file_are_scaled_by_their_true_range(tmp_path, grey, bits):
    path = tmp_path / "deep.png"
    grey[0, 0] = 255
    full = (1 << bits) - 1
    assert cv2.imwrite(str(path), np.round(grey * (full / 255)).astype(np.uint16))
    image, found = read_photo_bits(path)
    assert found == bits and image.dtype == np.uint8 and (image == grey[..., None]).all()
    assert (read_photo(path) == image).all()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_the_brightest_value_becomes_white_and_the_middle_stays_the_middle(bits):
    full = (1 << bits) - 1
    values = np.array([[0, full // 510, full // 510 + 1, full // 2, full // 2 + 1, full - 1, full]], np.uint16)
    scaled, found = eight_bits(values)
    assert found == bits and scaled.tolist() == [[0, 0, 1, 127, 128, 255, 255]]
    exact = 255 * np.arange(full + 1) / full
    assert np.abs(eight_bits(np.arange(full + 1, dtype=np.uint16))[0] - exact).max() <= 0.5


def test_full_16_bit_and_8_bit_files_need_no_word(tmp_path, grey):
    grey[0, 0] = 255
    for name, values in (("a.png", grey), ("b.png", grey.astype(np.uint16) << 8), ("c.tiff", grey)):
        assert cv2.imwrite(str(tmp_path / name), values)
        image, bits = read_photo_bits(tmp_path / name)
        assert bits is None and (image == grey[..., None]).all()
    assert eight_bits(np.zeros((2, 2), np.uint16))[0].tolist() == [[0, 0], [0, 0]]


def test_colours_of_16_bit_files_keep_their_order(tmp_path):
    image = np.zeros((4, 5, 3), np.uint16)
    image[..., 2] = 4095  # OpenCV writes BGR
    assert cv2.imwrite(str(tmp_path / "red.png"), image)
    assert (read_photo(tmp_path / "red.png") == [255, 0, 0]).all()


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tiff", "a.bmp"])
def test_usual_formats_are_read(tmp_path, name):
    assert cv2.imwrite(str(tmp_path / name), np.full((6, 8, 3), 130, np.uint8))
    assert abs(read_photo(tmp_path / name).astype(int) - 130).max() <= 2


def test_pixels_are_as_displayed_or_as_stored(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = 255
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg_with_orientation(image, 6))
    stored, displayed = read_photo(path, stored_pixels=True), read_photo(path)
    assert stored.shape == (40, 60, 3) and displayed.shape == (60, 40, 3)
    assert stored[20, 10, 0] > 200 > 50 > stored[20, 50, 0]
    assert displayed[10, 20, 0] > 200 > 50 > displayed[50, 20, 0]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\n<html><body>", "an HTML page"),
        (b"%PDF-1.4", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"\xff\xd8\xff\xe0 broken", "damaged"),
    ],
)
def test_a_file_that_is_no_image_is_refused_by_its_kind(tmp_path, content, word):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    refused(lambda: read_photo(path), "holiday.jpg", "no image that OpenCV can read", word)
    assert word in kind_of(content)


def test_values_that_are_no_whole_numbers_are_refused(tmp_path):
    assert cv2.imwrite(str(tmp_path / "depth.tiff"), np.full((4, 5, 3), 0.5, np.float32))
    refused(lambda: read_photo(tmp_path / "depth.tiff"), "depth.tiff", "float32", "8 or 16 bits")


def test_encoded_bytes_are_decoded(grey):
    image = np.stack([grey] * 3, -1)
    assert (decode_bytes(encode_image(image, ".png")) == image).all()
    refused(lambda: decode_bytes(b""), "0 bytes")
