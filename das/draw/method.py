"""Pictures of what the network computes.

``draw_assignment`` (Section 3.2: positives of each person, per level), ``draw_map`` (a level's confidence),
``draw_offsets`` (Eq. 3: predicted offsets of one joint) and ``draw_distribution`` (Section 3.4: the density that the
flow learned). Each returns a new image.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from das.draw.montage import side_by_side
from das.draw.people import TRUTH_GREY, draw_people, person_color
from das.draw.primitives import draw_arrow, draw_caption, draw_circle, draw_line, draw_text
from das.skeleton import Skeleton


def draw_assignment(
    image: np.ndarray,
    strides: Sequence[int],
    points: Sequence[np.ndarray],
    person: Sequence[np.ndarray],
    centerness: Sequence[np.ndarray] | None = None,
    joints_uv: np.ndarray | None = None,
    skeleton: Skeleton | None = None,
) -> np.ndarray:
    """Which feature points are positives of which person, a picture per pyramid level in a row (Section 3.2).

    Arguments as in ``assignment_tiles``.
    """
    return side_by_side(*assignment_tiles(image, strides, points, person, centerness, joints_uv, skeleton))


def assignment_tiles(
    image: np.ndarray,
    strides: Sequence[int],
    points: Sequence[np.ndarray],
    person: Sequence[np.ndarray],
    centerness: Sequence[np.ndarray] | None = None,
    joints_uv: np.ndarray | None = None,
    skeleton: Skeleton | None = None,
    visible: np.ndarray | None = None,
) -> list[np.ndarray]:
    """The pictures of ``draw_assignment``, one per pyramid level.

    Args:
        image: (H, W, 3) uint8 RGB, the network input.
        strides: of the L levels, pixels.
        points: per level (P, 2), pixels of the positives.
        person: per level (P,) int, whose positives they are.
        centerness: per level (P,) targets in 0..1: discs are filled in this proportion, fully without it.
        joints_uv: (N, J, 2) the people, drawn in grey with ``skeleton`` for orientation.
        skeleton: the joint set of ``joints_uv``.
        visible: (N, J) bool, joints to draw. None means all that are finite.
    """
    faded = (0.45 * image + 0.55 * 255).astype(np.uint8)
    if joints_uv is not None and skeleton is not None:
        faded = draw_people(faded, joints_uv, skeleton, visible, colors=[TRUTH_GREY] * len(joints_uv))
    tiles = []
    for level, stride in enumerate(strides):
        tile = faded.copy()
        for v in range(stride // 2, image.shape[0], stride):
            for u in range(stride // 2, image.shape[1], stride):
                draw_circle(tile, np.array([u, v]), max(0.6, stride / 14), TRUTH_GREY)
        for i, uv in enumerate(points[level]):
            color, radius = person_color(int(person[level][i])), 0.42 * stride
            draw_circle(tile, uv, radius, color, thickness=max(1, round(stride / 12)))
            fill = 1.0 if centerness is None else float(centerness[level][i])
            draw_circle(tile, uv, radius * np.sqrt(fill), color)
        draw_caption(tile, f"stride {stride}: {len(points[level])} positives")
        tiles.append(tile)
    return tiles


def draw_map(image: np.ndarray, values: np.ndarray, stride: int) -> np.ndarray:
    """The photo, dark where a level's map (h, w) of values in 0..1 is 0, with the inferno colour map elsewhere."""
    height, width = image.shape[:2]
    cells = np.repeat(np.repeat(values, stride, axis=0), stride, axis=1)[:height, :width]
    out = (0.4 * image).astype(np.uint8)
    covered = (slice(0, cells.shape[0]), slice(0, cells.shape[1]))
    heat = cv2.applyColorMap((255 * np.clip(cells, 0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    out[covered] = np.maximum(out[covered], heat)
    return out


def draw_offsets(image: np.ndarray, offsets: np.ndarray, stride: int, step: int = 2) -> np.ndarray:
    """The offset map of one joint on one level: direction as hue, length as saturation, and arrows (Eq. 3).

    Arrows longer than their spacing are cut to it, because all of them would meet at the joint and hide it.

    Args:
        image: (H, W, 3) uint8 RGB, the network input.
        offsets: (2, h, w) pixels (u, v) from each feature point to the predicted joint.
        stride: of the level; point (y, x) is pixel (x stride + stride // 2, y stride + stride // 2).
        step: draws an arrow at every ``step``-th point of both axes.
    """
    height, width = image.shape[:2]
    angle = np.arctan2(offsets[1], offsets[0])
    length = np.hypot(*offsets)
    hsv = np.stack(
        [(angle + np.pi) / (2 * np.pi) * 179, 255 * np.clip(length / (length.max() + 1e-9), 0, 1) ** 0.5,
         np.full_like(length, 255)], axis=-1)  # fmt: skip
    cells = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    wheel = np.repeat(np.repeat(cells, stride, axis=0), stride, axis=1)[:height, :width]
    out = image.copy()
    covered = (slice(0, wheel.shape[0]), slice(0, wheel.shape[1]))
    out[covered] = cv2.addWeighted(image[covered], 0.5, wheel, 0.5, 0)
    for y in range(step // 2, offsets.shape[1], step):
        for x in range(step // 2, offsets.shape[2], step):
            tail = np.array([x, y], float) * stride + stride // 2
            cut = min(1.0, 0.8 * step * stride / (length[y, x] + 1e-9))
            draw_arrow(out, tail, tail + cut * offsets[:, y, x])
    return out


def distribution_grid(extent: float, n: int = 201) -> np.ndarray:
    """Where ``draw_distribution`` wants the density: (n, n, 2) points (x, y), both in [-extent, extent]."""
    axis = np.linspace(-extent, extent, n)
    return np.stack(np.meshgrid(axis, axis), axis=-1)


def draw_distribution(log_density: np.ndarray, extent: float, size: int = 480, title: str = "") -> np.ndarray:
    """A learned 2D density as a heat map, and the smallest regions that hold 50 % and 90 % of its mass.

    Args:
        log_density: (n, n) logarithm at ``distribution_grid(extent, n)``; y points down, as in images.
            Mass outside the grid is not counted.
        extent: half side of the grid, in the flow's units (error divided by sigma, Eq. 9).
        size: side of the picture in pixels.
        title: written into the upper left corner.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    density = np.exp(log_density - log_density.max())
    mass = cv2.resize(density, (size, size), interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap((255 * mass).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    out = cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)

    falling = np.sort(mass, axis=None)[::-1]
    held = np.cumsum(falling) / falling.sum()
    for share in (0.5, 0.9):
        inside = (mass >= falling[np.searchsorted(held, share)]).astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, (255, 255, 255), 1, cv2.LINE_AA)
        if outlines:
            top = min((outline[outline[:, 0, 1].argmin(), 0] for outline in outlines), key=lambda p: p[1])
            draw_text(out, f"{share:.0%}", (top[0] + 4, max(top[1] - 4, 12)), (255, 255, 255))

    middle, unit = (size - 1) / 2, (size - 1) / 2 / extent
    for tick in range(-int(extent), int(extent) + 1):
        draw_line(out, (middle + tick * unit, middle - 3), (middle + tick * unit, middle + 3), (200, 200, 200), 1)
        draw_line(out, (middle - 3, middle + tick * unit), (middle + 3, middle + tick * unit), (200, 200, 200), 1)
    if title:
        draw_caption(out, title)
    return out
