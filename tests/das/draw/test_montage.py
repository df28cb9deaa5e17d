"""Pictures in rows, columns and grids, and under captions."""

import numpy as np
import pytest

from das.draw.montage import above_each_other, captioned, contact_sheet, side_by_side
from tests.das.draw.drawings import grey_image


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_a_contact_sheet_holds_every_picture_in_order(count):
    images = [np.full((60 + 10 * i, 90, 3), 10 * i + 5, np.uint8) for i in range(count)]
    sheet = contact_sheet(images, columns=3, width=45, gap=4)
    columns = min(3, count)
    assert sheet.shape[1] == columns * 49 - 4
    heights = [round(image.shape[0] / 2) for image in images]
    top = 0
    for row in range(0, count, 3):
        for i in range(row, min(row + 3, count)):
            u = (i - row) * 49
            assert (sheet[top : top + heights[i], u : u + 45] == 10 * i + 5).all()
            assert (sheet[top : top + heights[i], u + 45 : u + 49] == 255).all()
        top += max(heights[row : row + 3]) + 4
    assert sheet.shape[0] == top - 4


def test_a_caption_is_above_and_pictures_in_a_column_have_one_width():
    image = grey_image(50, 70)
    out = captioned(image, "a caption that is far too long for such a narrow picture")
    np.testing.assert_array_equal(out[-50:], image)
    assert out.shape[1] == 70 and out[:-50].min() < 120 and len(out) < 80
    column = above_each_other(image, np.zeros((20, 35, 3), np.uint8), gap=2)
    assert column.shape == (50 + 2 + 40, 70, 3) and not column[52:].any() and (column[50:52] == 255).all()


def test_side_by_side_keeps_the_first_picture_and_its_height():
    a, b = grey_image(100, 150), grey_image(300, 600)
    out = side_by_side(a, b, gap=10)
    assert out.shape == (100, 150 + 10 + 200, 3)
    np.testing.assert_array_equal(out[:, :150], a)
    assert (out[:, 150:160] == 255).all()
