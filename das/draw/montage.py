"""Whole images arranged in rows, columns and grids, and captions above them.

Every function takes (H, W, 3) uint8 RGB images and returns a new one; nothing is drawn on the images themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from das.draw.primitives import PAPER, draw_text


def side_by_side(*images: np.ndarray, gap: int = 8) -> np.ndarray:
    """Pictures in one row at the first one's height, (H, sum of widths + gaps, 3) uint8 RGB."""
    height = images[0].shape[0]
    row: list[np.ndarray] = []
    for image in images:
        row += [at_height(image, height), np.full((height, gap, 3), 255, np.uint8)]
    return np.concatenate(row[:-1], axis=1)


def above_each_other(*images: np.ndarray, gap: int = 8) -> np.ndarray:
    """Pictures in one column at the first one's width, (sum of heights + gaps, W, 3) uint8 RGB."""
    width = images[0].shape[1]
    column: list[np.ndarray] = []
    for image in images:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        method = cv2.INTER_AREA if image.shape[1] > width else cv2.INTER_LINEAR
        fitted = image if image.shape[1] == width else cv2.resize(image, (width, height), interpolation=method)
        column += [fitted, np.full((gap, width, 3), 255, np.uint8)]
    return np.concatenate(column[:-1])


def contact_sheet(images: Sequence[np.ndarray], columns: int = 4, width: int = 480, gap: int = 8) -> np.ndarray:
    """Pictures in a grid, row by row, each scaled to ``width`` pixels: (H, W, 3) uint8 RGB."""
    tiles = [at_height(image, max(1, round(image.shape[0] * width / image.shape[1]))) for image in images]
    # Rounding may leave them a pixel off.
    tiles = [tile if tile.shape[1] == width else cv2.resize(tile, (width, tile.shape[0])) for tile in tiles]
    columns = min(columns, len(tiles))
    rows = []
    for at in range(0, len(tiles), columns):
        row = tiles[at : at + columns]
        sheet = np.full((max(t.shape[0] for t in row), columns * (width + gap) - gap, 3), 255, np.uint8)
        for i, tile in enumerate(row):
            sheet[: tile.shape[0], i * (width + gap) : i * (width + gap) + width] = tile
        rows.append(sheet)
    return above_each_other(*rows, gap=gap)


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """The picture under a light strip with one line of text, cut where it is longer than the picture is wide."""
    scale = max(0.45, image.shape[1] / 2000)
    (_, h), base = cv2.getTextSize("Ag", cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    strip = np.full((h + base + 8, image.shape[1], 3), PAPER, np.uint8)
    draw_text(strip, text, (4, h + 4), (30, 30, 30), scale)
    return np.concatenate([strip, image])


def at_height(image: np.ndarray, height: int) -> np.ndarray:
    """The picture scaled to this height, proportions kept."""
    h, w = image.shape[:2]
    if h == height:
        return image
    method = cv2.INTER_AREA if h > height else cv2.INTER_LINEAR
    return cv2.resize(image, (max(1, round(w * height / h)), height), interpolation=method)
