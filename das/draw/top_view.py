"""People from above, to scale in metres, and beside their picture (``panel``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from das.camera import back_project
from das.draw.montage import at_height, side_by_side
from das.draw.people import TRUTH_GREY, draw_people, draw_skeleton, drawable, person_color
from das.draw.primitives import INK, PAPER, SHIFT, Color, draw_circle, draw_line, draw_text, fixed_point
from das.skeleton import Skeleton

_GRID: Color = (222, 222, 218)


@dataclass(frozen=True)
class FloorPlan:
    """The map of ``top_view``: from camera space (mm) to pixels of a square picture, the camera below.

    Attributes:
        size: side of the picture in pixels.
        pixels_per_metre: its scale.
        camera_uv: position of the camera, pixels.
        axes: (2, 3) unit vectors of the camera frame that run right and up in the picture, both level.
    """

    size: int
    pixels_per_metre: float
    camera_uv: tuple[float, float]
    axes: np.ndarray

    @classmethod
    def around(cls, points_cam: np.ndarray, size: int, down: np.ndarray | None = None) -> FloorPlan:
        """The largest plan that shows the camera and all points (M, 3) mm; at least 2 m, whole half metres.

        ``down`` (3,) is the direction of gravity in the camera frame. Without it the camera is assumed to be
        level (y down), so the floor of a tilted camera is seen along its own y axis.
        """
        axes = level_axes(down)[[0, 2]]
        right_m, ahead_m = (points_cam @ axes.T / 1000).T if len(points_cam) else np.zeros((2, 1))
        # The camera is in the middle, 4 % above the lower edge.
        needed = max(2.0, ahead_m.max() / 0.94, 2 * abs(right_m).max()) * 1.06
        scale = size / (np.ceil(2 * needed) / 2)
        return cls(size, float(scale), ((size - 1) / 2, 0.96 * size), axes)

    def pixels(self, points_cam: np.ndarray) -> np.ndarray:
        """Camera-space points (..., 3) mm to pixels (..., 2) of the plan."""
        right_up = points_cam @ self.axes.T * (self.pixels_per_metre / 1000)
        return np.asarray(self.camera_uv) + right_up * (1, -1)


def level_axes(down: np.ndarray | None = None) -> np.ndarray:
    """(3, 3): unit vectors of the camera frame that run right, down (gravity) and forward (level).

    ``down`` (3,) is the direction of gravity in the camera frame; None assumes a level camera.
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
    """A bird's-eye picture: grid of metres, camera with its field of view, body and root of every person.

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
    shown, truth_shown = drawable(joints_cam, valid), drawable(truth_cam, truth_valid)
    plan = FloorPlan.around(np.concatenate([joints_cam[shown], truth_cam[truth_shown]]), size, down)
    out = np.full((size, size, 3), PAPER, np.uint8)
    if K is not None and image_size is not None:
        _draw_field_of_view(out, plan, K, image_size)
    _draw_grid(out, plan)

    width = max(1.0, size / 220)
    for body, ok in zip(truth_cam, truth_shown, strict=True):
        draw_skeleton(out, plan.pixels(body), ok, skeleton, TRUTH_GREY, width, halo=False)
    for i in reversed(range(len(joints_cam))):
        uv, color = plan.pixels(joints_cam[i]), colors[i] if colors is not None else person_color(i)
        draw_skeleton(out, uv, shown[i], skeleton, color, width)
        root_joints = list(skeleton.root_indices)
        if shown[i][root_joints].all():
            draw_circle(out, uv[root_joints].mean(0), 2.6 * width, (40, 40, 40))
            draw_circle(out, uv[root_joints].mean(0), 1.9 * width, color)
    return out


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
    overlay = at_height(image, max(480, image.shape[0]))
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


def _draw_field_of_view(out: np.ndarray, plan: FloorPlan, K: np.ndarray, image_size: tuple[int, int]) -> None:
    """The field of view of the image's middle row as a wedge; distortion is ignored."""
    height, width = image_size
    edges = np.array([[-0.5, (height - 1) / 2], [width - 0.5, (height - 1) / 2]])
    far_mm = 2000 * plan.size / plan.pixels_per_metre
    rays = plan.pixels(back_project(edges, np.full(2, far_mm), np.asarray(K, float)))
    corners = np.stack([np.asarray(plan.camera_uv), *rays])
    cv2.fillPoly(out, [fixed_point(corners)], (240, 243, 250), cv2.LINE_AA, SHIFT)
    for ray in rays:
        draw_line(out, plan.camera_uv, ray, (190, 200, 220), 1)


def _draw_grid(out: np.ndarray, plan: FloorPlan) -> None:
    """Lines every metre (every few where metres are narrow), distances from the camera at the left edge."""
    u0, v0 = plan.camera_uv
    metres = int(plan.size / plan.pixels_per_metre) + 1
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000, 10000, 10**9) if s * plan.pixels_per_metre >= 28)
    for m in range(-(metres // step) * step, metres + 1, step):
        u, v = u0 + m * plan.pixels_per_metre, v0 - m * plan.pixels_per_metre
        draw_line(out, (u, 0), (u, plan.size), _GRID, 1)
        draw_line(out, (0, v), (plan.size, v), _GRID, 1)
        if m > 0 and v > 12:
            draw_text(out, f"{m} m", (4, round(v) - 4), INK, scale=max(0.4, plan.size / 1400))
    outline = np.array([(-1, 1), (1, 1), (1, 0), (0.5, -1), (-0.5, -1), (-1, 0)])
    body = np.asarray(plan.camera_uv) + outline * plan.size / 60
    cv2.fillPoly(out, [fixed_point(body)], (60, 60, 60), cv2.LINE_AA, SHIFT)
