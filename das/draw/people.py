"""People on an image: skeletons, boxes and ignored areas.

Plain functions from arrays to RGB uint8 images. Every person has another hue, left limbs lighter and right limbs darker
than the middle. Images are never changed in place: each function returns a copy. ``top_view`` draws the same people
from above, ``method`` what the network computes; both are built from ``primitives``.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from das.draw.primitives import FARTHEST_PX, Color, draw_circle, draw_line, draw_outline, draw_text
from das.skeleton import Skeleton

TRUTH_GREY: Color = (150, 150, 150)


def person_color(index: int) -> Color:
    """RGB of person ``index``: hues by the golden ratio, so that neighbours in the list differ strongly."""
    hue = int(179 * ((0.02 + 0.61803399 * index) % 1))
    r, g, b = cv2.cvtColor(np.array([[[hue, 205, 240]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return r, g, b


def side_color(joint: str, color: Color) -> Color:
    """The person's colour for one joint: lighter on their left, darker on their right."""
    toward, amount = {"l_": (255, 0.55), "r_": (0, 0.35)}.get(joint[:2], (0, 0.0))
    r, g, b = (round(c + amount * (toward - c)) for c in color)
    return r, g, b


def draw_people(
    image: np.ndarray,
    joints_uv: np.ndarray,
    skeleton: Skeleton,
    valid: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
    occluded: np.ndarray | None = None,
) -> np.ndarray:
    """Skeletons on a copy of the image; the first person is drawn on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        joints_uv: (N, J, 2) pixels.
        skeleton: the joint set of the J joints.
        valid: (N, J) or (J,) bool, joints to draw; bones need both ends. None means all that are finite.
        labels: N short texts (scores, say), written above each person.
        colors: N RGB colours instead of one hue per person.
        occluded: (N, J) bool, joints that are drawn as rings and not as discs.
    """
    out = image.copy()
    shown = drawable(joints_uv, valid)
    for i in reversed(range(len(joints_uv))):
        color = colors[i] if colors is not None else person_color(i)
        points = joints_uv[i][shown[i]]
        if not len(points):
            continue
        width = _line_width(image, points)
        draw_skeleton(out, joints_uv[i], shown[i], skeleton, color, width)
        if occluded is not None:
            for k in np.flatnonzero(shown[i] & occluded[i]):
                draw_circle(out, joints_uv[i][k], 1.5 * width, side_color(skeleton.joints[k], color))
                draw_circle(out, joints_uv[i][k], 0.9 * width, (255, 255, 255))
        if labels is not None:
            _label(out, labels[i], points[points[:, 1].argmin()], color)
    return out


def draw_boxes(image: np.ndarray, boxes: np.ndarray, colors: Sequence[Color] | None = None) -> np.ndarray:
    """Outlines of boxes (N, 4), x0 y0 x1 y1 in pixels, on a copy of the image, in the colours of ``draw_people``."""
    out = image.copy()
    width = max(1.0, np.hypot(*image.shape[:2]) / 700)
    for i in reversed(range(len(boxes))):
        color = colors[i] if colors is not None else person_color(i)
        draw_outline(out, _clamped(boxes[i]), color, width)
    return out


def draw_ignored(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4), x0 y0 x1 y1 in pixels, hatched on a copy of the image: areas that do not count."""
    out = image.copy()
    height, width = image.shape[:2]
    gap = max(8, round(np.hypot(height, width) / 60))
    hatched = np.zeros((height, width), bool)
    v, u = np.mgrid[:height, :width]
    stripes = (u + v) % gap < max(2, gap // 6)
    for box in boxes:
        x0, y0, x1, y1 = _clamped(box)
        hatched |= stripes & (u >= x0) & (u <= x1) & (v >= y0) & (v <= y1)
    out[hatched] = (0.35 * out[hatched] + 0.65 * np.array(TRUTH_GREY)).astype(np.uint8)
    for box in boxes:
        draw_outline(out, _clamped(box), TRUTH_GREY, max(1.0, gap / 10))
    return out


def draw_skeleton(
    out: np.ndarray,
    uv: np.ndarray,
    shown: np.ndarray,
    skeleton: Skeleton,
    color: Color,
    width: float,
    halo: bool = True,
) -> None:
    """The bones and joints (J, 2) px that are shown (J,), drawn into ``out``."""
    bones = [(a, b) for a, b in skeleton.bone_indices if shown[a] and shown[b]]
    if halo:  # a dark rim keeps light limbs readable on light ground
        for a, b in bones:
            draw_line(out, uv[a], uv[b], (25, 25, 25), width + 2)
    for a, b in bones:
        # A bone's side is that of its outer end: neck to left shoulder belongs to the left.
        draw_line(out, uv[a], uv[b], side_color(skeleton.joints[b], color), width)
    for k in np.flatnonzero(shown):
        draw_circle(out, uv[k], 0.9 * width, side_color(skeleton.joints[k], color))


def drawable(points: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """(N, J) bool: wanted, finite and less than ``FARTHEST_PX`` from the image."""
    good = np.isfinite(points).all(-1) & (np.abs(np.nan_to_num(points)) < FARTHEST_PX).all(-1)
    return good if valid is None else good & valid


def _line_width(image: np.ndarray, points: np.ndarray) -> float:
    """Grows with the picture, but small people keep thin limbs."""
    person = np.ptp(points, axis=0).max()
    return float(max(1.0, min(np.hypot(*image.shape[:2]) / 260, max(person, 1) / 28)))


def _clamped(box: np.ndarray) -> np.ndarray:
    """The box as finite numbers that can be drawn."""
    return np.clip(np.nan_to_num(np.asarray(box, float)), -FARTHEST_PX, FARTHEST_PX)


def _label(out: np.ndarray, text: str, head_uv: np.ndarray, color: Color) -> None:
    """A small flag in the person's colour above the highest joint, kept inside the image."""
    scale = max(0.35, np.hypot(*out.shape[:2]) / 2400)
    (w, h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    height, width = out.shape[:2]
    u = int(np.clip(head_uv[0] - w / 2, 0, max(0, width - w - 4)))
    v = int(np.clip(head_uv[1] - 2 * h - base - 4, 0, max(0, height - h - base - 4)))
    cv2.rectangle(out, (u, v), (u + w + 4, v + h + base + 2), color, -1)
    draw_text(out, text, (u + 2, v + h + 2), (0, 0, 0), scale)
