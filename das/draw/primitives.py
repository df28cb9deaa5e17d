"""Primitives of all drawings: lines, circles, arrows, boxes and text with subpixel positions.

Each function draws into the (H, W, 3) uint8 RGB image that it is given. Whole people are in ``people``, arrangements
of several images in ``montage``.
"""

from __future__ import annotations

import cv2
import numpy as np

Color = tuple[int, int, int]
Point = np.ndarray | tuple[float, float]

PAPER: Color = (250, 250, 248)
INK: Color = (90, 90, 90)
# cv2 draws between pixels when coordinates carry this many fractional bits.
SHIFT = 4
# Points farther outside are not drawn: cv2's 32-bit fixed-point coordinates would overflow.
FARTHEST_PX = 1e6


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Pixels as integers with SHIFT fractional bits."""
    return np.round(np.asarray(points, float) * (1 << SHIFT)).astype(np.int32)


def draw_line(out: np.ndarray, a: Point, b: Point, color: Color, width: float) -> None:
    """A smooth line between two places, pixels, at least 1 wide."""
    start, end = fixed_point(np.array([a, b])).tolist()
    cv2.line(out, start, end, color, max(1, round(width)), cv2.LINE_AA, SHIFT)


def draw_circle(out: np.ndarray, center: np.ndarray, radius: float, color: Color, thickness: int = -1) -> None:
    """A smooth disc, or a ring of the given thickness."""
    fixed_radius = max(1, round(radius * (1 << SHIFT)))
    cv2.circle(out, fixed_point(center).tolist(), fixed_radius, color, thickness, cv2.LINE_AA, SHIFT)


def draw_arrow(out: np.ndarray, tail: np.ndarray, tip: np.ndarray) -> None:
    """A thin dark arrow."""
    start, end = fixed_point(np.array([tail, tip])).tolist()
    cv2.arrowedLine(out, start, end, (20, 20, 20), 1, cv2.LINE_AA, SHIFT, tipLength=0.3)


def draw_outline(out: np.ndarray, box: np.ndarray, color: Color, width: float) -> None:
    """The four sides of a box x0 y0 x1 y1."""
    x0, y0, x1, y1 = box
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    for a, b in zip(corners, (*corners[1:], corners[0]), strict=True):
        draw_line(out, a, b, color, width)


def draw_text(out: np.ndarray, text: str, at: tuple[int, int], color: Color, scale: float = 0.4) -> None:
    """One line of words, its left lower corner at the given pixel."""
    cv2.putText(out, text, (int(at[0]), int(at[1])), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)


def draw_caption(out: np.ndarray, text: str, below: bool = False) -> None:
    """Dark text on a light strip in the upper left corner, or in the lower left one."""
    scale = max(0.35, np.hypot(*out.shape[:2]) / 1800)
    (w, h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    top = max(0, out.shape[0] - h - base - 7) if below else 0
    cv2.rectangle(out, (0, top), (w + 8, top + h + base + 6), (255, 255, 255), -1)
    draw_text(out, text, (4, top + h + 4), (30, 30, 30), scale)
