"""Pictures of poses and of what the model learned: plain functions from arrays to RGB uint8 images.

``draw_people`` puts skeletons on the photo, ``top_view`` shows the same people from above, in metres, and
``panel`` is both in one picture. ``draw_boxes`` and ``draw_ignored`` add what an annotation says besides joints,
``captioned``, ``contact_sheet``, ``side_by_side`` and ``above_each_other`` arrange pictures. Four more show the
method from within: ``draw_assignment`` (Section 3.2: which feature points learn which person, per level),
``draw_map`` (where a level finds people), ``draw_offsets`` (Eq. 3: where each point believes a joint to lie) and
``draw_distribution`` (Section 3.4: the density that the flow learned).

Every person has a hue of their own, the left limbs lighter and the right limbs darker than the middle.
Nothing is drawn in place: images come back as copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from das.camera import back_project
from das.skeleton import Skeleton

Color = tuple[int, int, int]
Point = np.ndarray | tuple[float, float]

TRUTH_GREY: Color = (150, 150, 150)
_PAPER: Color = (250, 250, 248)
_GRID: Color = (222, 222, 218)
_INK: Color = (90, 90, 90)
# cv2 draws between pixels when coordinates carry this many fractional bits.
_SHIFT = 4
# Points farther outside are of no use to a drawing, and the 32-bit coordinates would overflow.
_FARTHEST_PX = 1e6


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
    """Skeletons on a copy of the image; the first person lies on top.

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
    shown = _drawable(joints_uv, valid)
    for i in reversed(range(len(joints_uv))):
        color = colors[i] if colors is not None else person_color(i)
        points = joints_uv[i][shown[i]]
        if not len(points):
            continue
        width = _line_width(image, points)
        _draw_skeleton(out, joints_uv[i], shown[i], skeleton, color, width)
        if occluded is not None:
            for k in np.flatnonzero(shown[i] & occluded[i]):
                _circle(out, joints_uv[i][k], 1.5 * width, side_color(skeleton.joints[k], color))
                _circle(out, joints_uv[i][k], 0.9 * width, (255, 255, 255))
        if labels is not None:
            _label(out, labels[i], points[points[:, 1].argmin()], color)
    return out


def draw_boxes(image: np.ndarray, boxes: np.ndarray, colors: Sequence[Color] | None = None) -> np.ndarray:
    """Outlines of boxes (N, 4), x0 y0 x1 y1 in pixels, on a copy of the image, in the colours of ``draw_people``."""
    out = image.copy()
    width = max(1.0, np.hypot(*image.shape[:2]) / 700)
    for i in reversed(range(len(boxes))):
        color = colors[i] if colors is not None else person_color(i)
        _outline(out, _clamped(boxes[i]), color, width)
    return out


def draw_ignored(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4), x0 y0 x1 y1 in pixels, hatched on a copy of the image: areas that teach and count for nothing."""
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
        _outline(out, _clamped(box), TRUTH_GREY, max(1.0, gap / 10))
    return out


@dataclass(frozen=True)
class FloorPlan:
    """The map of ``top_view``: from camera space (mm) to pixels of a square picture, the camera below.

    Attributes:
        size: side of the picture in pixels.
        pixels_per_metre: its scale.
        camera_uv: where the camera stands, pixels.
        axes: (2, 3) unit vectors of the camera frame that run right and up in the picture, both level.
    """

    size: int
    pixels_per_metre: float
    camera_uv: tuple[float, float]
    axes: np.ndarray

    @classmethod
    def around(cls, points_cam: np.ndarray, size: int, down: np.ndarray | None = None) -> FloorPlan:
        """The largest plan that shows the camera and all points (M, 3) mm; at least 2 m, whole half metres.

        ``down`` (3,) is the direction of gravity in the camera frame. Without it the camera is taken to stand
        level (y down), so the floor of a tilted camera is seen along its own y axis.
        """
        axes = level_axes(down)[[0, 2]]
        right_m, ahead_m = (points_cam @ axes.T / 1000).T if len(points_cam) else np.zeros((2, 1))
        # The camera stands in the middle, 4 % above the lower edge.
        needed = max(2.0, ahead_m.max() / 0.94, 2 * abs(right_m).max()) * 1.06
        scale = size / (np.ceil(2 * needed) / 2)
        return cls(size, float(scale), ((size - 1) / 2, 0.96 * size), axes)

    def pixels(self, points_cam: np.ndarray) -> np.ndarray:
        """Camera-space points (..., 3) mm to pixels (..., 2) of the plan."""
        right_up = points_cam @ self.axes.T * (self.pixels_per_metre / 1000)
        return np.asarray(self.camera_uv) + right_up * (1, -1)


def level_axes(down: np.ndarray | None = None) -> np.ndarray:
    """(3, 3): unit vectors of the camera frame that run right, down and forward for somebody who stands upright.

    ``down`` (3,) is the direction of gravity in the camera frame; None takes the camera to stand level.
    """
    down = np.array([0.0, 1.0, 0.0]) if down is None else np.asarray(down, float) / np.linalg.norm(down)
    forward = np.array([0.0, 0.0, 1.0])
    forward = forward - (forward @ down) * down
    forward /= np.linalg.norm(forward)
    return np.stack([np.cross(down, forward), down, forward])


def top_view(
    joints_cam: np.ndarray,
    skeleton: Skeleton,
    valid: np.ndarray | None = None,
    truth_cam: np.ndarray | None = None,
    truth_valid: np.ndarray | None = None,
    K: np.ndarray | None = None,
    image_size: tuple[int, int] | None = None,
    down: np.ndarray | None = None,
    size: int = 640,
    colors: Sequence[Color] | None = None,
) -> np.ndarray:
    """A bird's-eye picture: grid of metres, camera with its field of view, everybody's body and root.

    Args:
        joints_cam: (N, J, 3) mm, camera frame, in the colours of ``draw_people``.
        skeleton: the joint set of the J joints.
        valid: (N, J) or (J,) bool, joints to draw. None means all that are finite.
        truth_cam: (M, J, 3) mm, drawn below in grey.
        truth_valid: (M, J) or (J,) bool, which of those.
        K: (3, 3) intrinsics and ``image_size`` its (height, width): draws the horizontal field of view.
        image_size: see K.
        down: (3,) gravity in the camera frame, see ``FloorPlan.around``.
        size: side of the picture in pixels.
        colors: N RGB colours instead of one hue per person.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    truth_cam = np.zeros((0, len(skeleton), 3)) if truth_cam is None else truth_cam
    shown, truth_shown = _drawable(joints_cam, valid), _drawable(truth_cam, truth_valid)
    plan = FloorPlan.around(np.concatenate([joints_cam[shown], truth_cam[truth_shown]]), size, down)
    out = np.full((size, size, 3), _PAPER, np.uint8)
    if K is not None and image_size is not None:
        _draw_field_of_view(out, plan, K, image_size)
    _draw_grid(out, plan)

    width = max(1.0, size / 220)
    for body, ok in zip(truth_cam, truth_shown, strict=True):
        _draw_skeleton(out, plan.pixels(body), ok, skeleton, TRUTH_GREY, width, halo=False)
    for i in reversed(range(len(joints_cam))):
        uv, color = plan.pixels(joints_cam[i]), colors[i] if colors is not None else person_color(i)
        _draw_skeleton(out, uv, shown[i], skeleton, color, width)
        root_joints = list(skeleton.root_indices)
        if shown[i][root_joints].all():
            _circle(out, uv[root_joints].mean(0), 2.6 * width, (40, 40, 40))
            _circle(out, uv[root_joints].mean(0), 1.9 * width, color)
    return out


def side_by_side(*images: np.ndarray, gap: int = 8) -> np.ndarray:
    """Pictures in one row at the first one's height, (H, sum of widths + gaps, 3) uint8 RGB."""
    height = images[0].shape[0]
    row: list[np.ndarray] = []
    for image in images:
        row += [_at_height(image, height), np.full((height, gap, 3), 255, np.uint8)]
    return np.concatenate(row[:-1], axis=1)


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """The picture under a light strip with one line of text, cut where it is longer than the picture is wide."""
    scale = max(0.45, image.shape[1] / 2000)
    (_, h), base = cv2.getTextSize("Ag", cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    strip = np.full((h + base + 8, image.shape[1], 3), _PAPER, np.uint8)
    _text(strip, text, (4, h + 4), (30, 30, 30), scale)
    return np.concatenate([strip, image])


def contact_sheet(images: Sequence[np.ndarray], columns: int = 4, width: int = 480, gap: int = 8) -> np.ndarray:
    """Pictures in a grid, row by row, each scaled to ``width`` pixels: (H, W, 3) uint8 RGB."""
    tiles = [_at_height(image, max(1, round(image.shape[0] * width / image.shape[1]))) for image in images]
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


def panel(
    image: np.ndarray,
    joints_uv: np.ndarray,
    joints_cam: np.ndarray,
    skeleton: Skeleton,
    valid: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
    truth_uv: np.ndarray | None = None,
    truth_cam: np.ndarray | None = None,
    truth_valid: np.ndarray | None = None,
    K: np.ndarray | None = None,
    down: np.ndarray | None = None,
) -> np.ndarray:
    """Overlay and top view in one picture; arguments as in ``draw_people`` and ``top_view``, truth in grey.

    Small photos are enlarged to a height of 480 first, so that the lines on them stay fine.
    """
    overlay = _at_height(image, max(480, image.shape[0]))
    # Pixel centres: pixel 0 of the enlarged photo is not the centre of pixel 0 of the small one.
    scale = np.array(overlay.shape[1::-1]) / image.shape[1::-1]

    def enlarged(uv: np.ndarray) -> np.ndarray:
        return (uv + 0.5) * scale - 0.5

    if truth_uv is not None:
        grey = [TRUTH_GREY] * len(truth_uv)
        overlay = draw_people(overlay, enlarged(truth_uv), skeleton, truth_valid, colors=grey)
    overlay = draw_people(overlay, enlarged(joints_uv), skeleton, valid, labels)
    size = overlay.shape[0]
    above = top_view(joints_cam, skeleton, valid, truth_cam, truth_valid, K, image.shape[:2], down, size)
    return side_by_side(overlay, above)


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
                _circle(tile, np.array([u, v]), max(0.6, stride / 14), TRUTH_GREY)
        for i, uv in enumerate(points[level]):
            color, radius = person_color(int(person[level][i])), 0.42 * stride
            _circle(tile, uv, radius, color, thickness=max(1, round(stride / 12)))
            fill = 1.0 if centerness is None else float(centerness[level][i])
            _circle(tile, uv, radius * np.sqrt(fill), color)
        _caption(tile, f"stride {stride}: {len(points[level])} positives")
        tiles.append(tile)
    return tiles


def draw_map(image: np.ndarray, values: np.ndarray, stride: int) -> np.ndarray:
    """The photo, dark where a level's map (h, w) of values in 0..1 is 0, and in the colours of fire where it is not."""
    height, width = image.shape[:2]
    cells = np.repeat(np.repeat(values, stride, axis=0), stride, axis=1)[:height, :width]
    out = (0.4 * image).astype(np.uint8)
    covered = (slice(0, cells.shape[0]), slice(0, cells.shape[1]))
    heat = cv2.applyColorMap((255 * np.clip(cells, 0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    out[covered] = np.maximum(out[covered], heat)
    return out


def draw_offsets(image: np.ndarray, offsets: np.ndarray, stride: int, step: int = 2) -> np.ndarray:
    """The offset map of one joint on one level: direction as hue, length as saturation, and arrows (Eq. 3).

    Arrows longer than their spacing are cut to it, or all of them would meet in the joint and hide it.

    Args:
        image: (H, W, 3) uint8 RGB, the network input.
        offsets: (2, h, w) pixels (u, v) from each feature point to where it believes the joint to lie.
        stride: of the level; point (y, x) lies at pixel (x stride + stride // 2, y stride + stride // 2).
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
            _arrow(out, tail, tail + cut * offsets[:, y, x])
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
            _text(out, f"{share:.0%}", (top[0] + 4, max(top[1] - 4, 12)), (255, 255, 255))

    middle, unit = (size - 1) / 2, (size - 1) / 2 / extent
    for tick in range(-int(extent), int(extent) + 1):
        _line(out, (middle + tick * unit, middle - 3), (middle + tick * unit, middle + 3), (200, 200, 200), 1)
        _line(out, (middle - 3, middle + tick * unit), (middle + 3, middle + tick * unit), (200, 200, 200), 1)
    if title:
        _caption(out, title)
    return out


def _drawable(points: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """(N, J) bool: wanted, finite and not absurdly far away."""
    good = np.isfinite(points).all(-1) & (np.abs(np.nan_to_num(points)) < _FARTHEST_PX).all(-1)
    return good if valid is None else good & valid


def _at_height(image: np.ndarray, height: int) -> np.ndarray:
    h, w = image.shape[:2]
    if h == height:
        return image
    method = cv2.INTER_AREA if h > height else cv2.INTER_LINEAR
    return cv2.resize(image, (max(1, round(w * height / h)), height), interpolation=method)


def _line_width(image: np.ndarray, points: np.ndarray) -> float:
    """Grows with the picture, but small people keep thin limbs."""
    person = np.ptp(points, axis=0).max()
    return float(max(1.0, min(np.hypot(*image.shape[:2]) / 260, max(person, 1) / 28)))


def _draw_skeleton(
    out: np.ndarray,
    uv: np.ndarray,
    shown: np.ndarray,
    skeleton: Skeleton,
    color: Color,
    width: float,
    halo: bool = True,
) -> None:
    bones = [(a, b) for a, b in skeleton.bone_indices if shown[a] and shown[b]]
    if halo:  # a dark rim keeps light limbs readable on light ground
        for a, b in bones:
            _line(out, uv[a], uv[b], (25, 25, 25), width + 2)
    for a, b in bones:
        # A bone's side is that of its outer end: neck to left shoulder belongs to the left.
        _line(out, uv[a], uv[b], side_color(skeleton.joints[b], color), width)
    for k in np.flatnonzero(shown):
        _circle(out, uv[k], 0.9 * width, side_color(skeleton.joints[k], color))


def _clamped(box: np.ndarray) -> np.ndarray:
    """The box as finite numbers that can be drawn."""
    return np.clip(np.nan_to_num(np.asarray(box, float)), -_FARTHEST_PX, _FARTHEST_PX)


def _outline(out: np.ndarray, box: np.ndarray, color: Color, width: float) -> None:
    x0, y0, x1, y1 = box
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    for a, b in zip(corners, (*corners[1:], corners[0]), strict=True):
        _line(out, a, b, color, width)


def _draw_field_of_view(out: np.ndarray, plan: FloorPlan, K: np.ndarray, image_size: tuple[int, int]) -> None:
    """The wedge that the image's middle row sees; distortion is left out."""
    height, width = image_size
    edges = np.array([[-0.5, (height - 1) / 2], [width - 0.5, (height - 1) / 2]])
    far_mm = 2000 * plan.size / plan.pixels_per_metre
    rays = plan.pixels(back_project(edges, np.full(2, far_mm), np.asarray(K, float)))
    corners = np.stack([np.asarray(plan.camera_uv), *rays])
    cv2.fillPoly(out, [_fixed(corners)], (240, 243, 250), cv2.LINE_AA, _SHIFT)
    for ray in rays:
        _line(out, plan.camera_uv, ray, (190, 200, 220), 1)


def _draw_grid(out: np.ndarray, plan: FloorPlan) -> None:
    """Lines every metre (every few where metres are narrow), distances from the camera at the left edge."""
    u0, v0 = plan.camera_uv
    metres = int(plan.size / plan.pixels_per_metre) + 1
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000, 10000, 10**9) if s * plan.pixels_per_metre >= 28)
    for m in range(-(metres // step) * step, metres + 1, step):
        u, v = u0 + m * plan.pixels_per_metre, v0 - m * plan.pixels_per_metre
        _line(out, (u, 0), (u, plan.size), _GRID, 1)
        _line(out, (0, v), (plan.size, v), _GRID, 1)
        if m > 0 and v > 12:
            _text(out, f"{m} m", (4, round(v) - 4), _INK, scale=max(0.4, plan.size / 1400))
    outline = np.array([(-1, 1), (1, 1), (1, 0), (0.5, -1), (-0.5, -1), (-1, 0)])
    body = np.asarray(plan.camera_uv) + outline * plan.size / 60
    cv2.fillPoly(out, [_fixed(body)], (60, 60, 60), cv2.LINE_AA, _SHIFT)


def _fixed(points: np.ndarray) -> np.ndarray:
    """Pixels as integers with _SHIFT fractional bits."""
    return np.round(np.asarray(points, float) * (1 << _SHIFT)).astype(np.int32)


def _line(out: np.ndarray, a: Point, b: Point, color: Color, width: float) -> None:
    start, end = _fixed(np.array([a, b])).tolist()
    cv2.line(out, start, end, color, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _circle(out: np.ndarray, center: np.ndarray, radius: float, color: Color, thickness: int = -1) -> None:
    fixed_radius = max(1, round(radius * (1 << _SHIFT)))
    cv2.circle(out, _fixed(center).tolist(), fixed_radius, color, thickness, cv2.LINE_AA, _SHIFT)


def _arrow(out: np.ndarray, tail: np.ndarray, tip: np.ndarray) -> None:
    start, end = _fixed(np.array([tail, tip])).tolist()
    cv2.arrowedLine(out, start, end, (20, 20, 20), 1, cv2.LINE_AA, _SHIFT, tipLength=0.3)


def _text(out: np.ndarray, text: str, at: tuple[int, int], color: Color, scale: float = 0.4) -> None:
    cv2.putText(out, text, (int(at[0]), int(at[1])), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)


def _caption(out: np.ndarray, text: str) -> None:
    """Dark text on a light strip in the upper left corner."""
    scale = max(0.35, np.hypot(*out.shape[:2]) / 1800)
    (w, h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.rectangle(out, (0, 0), (w + 8, h + base + 6), (255, 255, 255), -1)
    _text(out, text, (4, h + 4), (30, 30, 30), scale)


def _label(out: np.ndarray, text: str, head_uv: np.ndarray, color: Color) -> None:
    """A small flag in the person's colour above their highest joint, kept inside the image."""
    scale = max(0.35, np.hypot(*out.shape[:2]) / 2400)
    (w, h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    height, width = out.shape[:2]
    u = int(np.clip(head_uv[0] - w / 2, 0, max(0, width - w - 4)))
    v = int(np.clip(head_uv[1] - 2 * h - base - 4, 0, max(0, height - h - base - 4)))
    cv2.rectangle(out, (u, v), (u + w + 4, v + h + base + 2), color, -1)
    _text(out, text, (u + 2, v + h + 2), (0, 0, 0), scale)
