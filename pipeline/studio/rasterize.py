"""Rasterizing: shaded quads painted far to near over the room, shadows on the floor, and a camera's blur and noise.

Every vertex is projected with the camera's distortion. Canvases are ``supersampling`` times the picture's size and
averaged down at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from das.camera import project, transform
from pipeline.studio.cameras import StudioCamera
from pipeline.studio.config import StudioConfig
from pipeline.studio.geometry import to_world
from pipeline.studio.room import Room, bare_room, floor_points, pixel_rays
from pipeline.studio.spheres import SPHERES_PER_BONE, Box, turned_about_vertical
from pipeline.studio.stage import Actor

_SUBPIXEL_BITS = 4  # fractional bits of the fixed-point pixels passed to OpenCV's polygon filler
_MAX_TANGENT = 1.3  # tangent of the widest drawn angle to the optical axis (52 degrees)
_MARGIN = 60.0  # quads that extend further beyond the picture than this, in picture pixels, are not drawn
SHADOW_HALF, SHADOW_STEP = 340.0, 2.5
"""Half width of the shadow map's floor square, and size of its pixels, cm."""


@dataclass(frozen=True)
class Solid:
    """A surface of quads in the stage frame: vertices (V, 3) cm, faces (F, 4) indices, colours (F, 3) RGB 0..1."""

    vertices: ndarray
    faces: ndarray
    colours: ndarray


def join(solids: list[Solid]) -> Solid:
    """Concatenates solids in order."""
    first = np.cumsum([0, *(len(s.vertices) for s in solids)])
    return Solid(
        np.concatenate([np.zeros((0, 3)), *(s.vertices for s in solids)]),
        np.concatenate([np.zeros((0, 4), int), *(s.faces + n for s, n in zip(solids, first))]),
        np.concatenate([np.zeros((0, 3)), *(s.colours for s in solids)]),
    )


def box_solid(box: Box, cell: float) -> Solid:
    """A box of quads of about ``cell`` cm; painting far to near needs quads that are small beside the box."""
    solids = []
    for axis in range(3):
        j, k = (axis + 1) % 3, (axis + 2) % 3
        n, m = (max(1, round(2 * box.half[i] / cell)) for i in (j, k))
        a, b = np.meshgrid(np.linspace(-1, 1, n + 1), np.linspace(-1, 1, m + 1), indexing="ij")
        i = np.arange(n)[:, None] * (m + 1) + np.arange(m)
        quads = np.stack([i, i + m + 1, i + m + 2, i + 1], -1).reshape(-1, 4)
        for sign in (-1.0, 1.0):
            points = np.zeros((a.size, 3))
            points[:, axis], points[:, j], points[:, k] = sign, a.ravel(), b.ravel()
            points = turned_about_vertical(points * box.half, box.yaw) + box.centre
            faces = quads[:, ::-1] if sign > 0 else quads
            solids.append(Solid(points, faces, np.tile(box.colour, (len(faces), 1))))
    return join(solids)


def shade(solid: Solid, light: ndarray) -> ndarray:
    """Shaded colours (F, 3) RGB of all faces: direct light from ``light`` (3,), ambient light from above."""
    corners = solid.vertices[solid.faces]
    normal = np.cross(corners[:, 3] - corners[:, 1], corners[:, 2] - corners[:, 0])
    normal /= np.sqrt(np.einsum("fi,fi->f", normal, normal))[:, None] + 1e-9
    # Ambient at most 0.64, direct at most 0.54 of the colour: only the brightest clothes saturate.
    direct = np.clip(normal @ light, 0, None)
    height = np.clip(corners[:, :, 1].mean(1) / 60, 0, 1)
    ambient = (0.46 + 0.18 * normal[:, 1]) * (0.78 + 0.22 * height)
    return solid.colours * (ambient + 0.54 * direct)[:, None]


def visible_quads(camera: StudioCamera, solid: Solid, width: int, height: int) -> tuple[ndarray, ndarray]:
    """Projects the faces that a canvas of ``width`` x ``height`` pixels shows, in order from far to near.

    Returns:
        Indices (M,) of the faces turned to the camera, and their corners (M, 4, 2) in fixed-point canvas pixels.
    """
    scale = width / camera.width
    cam = transform(to_world(solid.vertices), camera.R, camera.t)
    depth = np.maximum(cam[:, 2], 1.0)
    flat = cam / depth[:, None]
    flat[:, 2] = 1.0
    uv = (project(flat, camera.K, camera.distortion) + 0.5) * scale - 0.5
    pixels = np.round(uv * (1 << _SUBPIXEL_BITS)).clip(-1e6, 1e6).astype(np.int32)
    # Far outside the picture the distortion polynomial is not monotone and would map points back into the picture.
    shown = (cam[:, 2] > 20) & (np.einsum("vi,vi->v", flat, flat) < 1 + _MAX_TANGENT**2)
    shown &= ((uv > -_MARGIN * scale) & (uv < np.array([width, height]) + _MARGIN * scale)).all(-1)
    distance = np.sqrt(np.einsum("vi,vi->v", cam, cam))

    a, b, c, d = solid.faces.T
    one, other = pixels[c] - pixels[a], pixels[d] - pixels[b]
    facing = one[:, 0].astype(float) * other[:, 1] > one[:, 1].astype(float) * other[:, 0]
    chosen = np.flatnonzero(facing & shown[a] & shown[b] & shown[c] & shown[d])
    order = chosen[np.argsort(-(distance[a] + distance[c])[chosen], kind="stable")]
    return order, pixels[solid.faces[order]]


def paint(canvas: ndarray, camera: StudioCamera, solid: Solid, lit: ndarray) -> None:
    """Paints a solid with face colours ``lit`` (F, 3) RGB onto a BGR uint8 canvas of the camera's view, in place."""
    order, quads = visible_quads(camera, solid, canvas.shape[1], canvas.shape[0])
    colours = (255 * lit[order, ::-1].clip(0, 1)).tolist()
    for quad, colour in zip(quads, colours):
        cv2.fillConvexPoly(canvas, quad, colour, cv2.LINE_8, _SUBPIXEL_BITS)


def face_index_map(camera: StudioCamera, solid: Solid) -> ndarray:
    """(H, W) int32: index of the face at the centre of each pixel, -1 for none."""
    # At twice the size, as pictures are painted: OpenCV's filler widens polygons by half a canvas pixel.
    faces = np.full((2 * camera.height, 2 * camera.width), -1, np.int32)
    order, quads = visible_quads(camera, solid, 2 * camera.width, 2 * camera.height)
    for quad, face in zip(quads, order.tolist()):
        cv2.fillConvexPoly(faces, quad, face, cv2.LINE_8, _SUBPIXEL_BITS)
    return faces[1::2, 1::2]


@dataclass(frozen=True)
class CameraEffects:
    """A camera's effects in one take.

    Attributes:
        gain: (3,) BGR factors, exposure and white balance.
        blur: sigma in pixels.
        noise: sigma in grey levels of 255.
    """

    gain: ndarray
    blur: float
    noise: float


def sample_effects(rng: np.random.Generator) -> CameraEffects:
    """Samples exposure, white balance, focus and noise."""
    gain = rng.normal(1, 0.07) * rng.normal(1, 0.02, 3)
    return CameraEffects(gain.astype(np.float32), rng.uniform(0, 0.6), rng.uniform(1.0, 4.0))


class View:
    """One camera of one sequence, with what its pictures share: the empty room, floor coordinates of pixels, noise."""

    def __init__(self, config: StudioConfig, room: Room, camera: StudioCamera, rng: np.random.Generator) -> None:
        self.camera = camera
        self.size = (camera.width * config.supersampling, camera.height * config.supersampling)
        # Canvases above HD enlarge the room's image: its textures have no finer detail.
        small = (camera.width, camera.height) if self.size[0] > 2000 else self.size
        backdrop = np.ascontiguousarray((255 * bare_room(room, camera, *small)[..., ::-1]).astype(np.uint8))
        if small != self.size:
            backdrop = cv2.resize(backdrop, self.size, interpolation=cv2.INTER_LINEAR)
        furniture = join([box_solid(box, 18.0) for box in room.furniture])
        paint(backdrop, camera, furniture, 0.9 * shade(furniture, room.light))
        self.backdrop = backdrop
        ground = floor_points(camera, pixel_rays(camera, *self.size))
        # Pixels of walls and furniture need no mask: their floor points are outside the shadow map.
        self.floor_map = ((ground + SHADOW_HALF) / SHADOW_STEP).clip(-10, 30000)
        # Twice the picture's size: each picture takes a random window of it, which is cheaper than new noise.
        self.noise = rng.normal(0, 1, (2 * camera.height, 2 * camera.width, 3)).astype(np.float32)

    def picture(
        self, solid: Solid, lit: ndarray, shadow: ndarray, effects: CameraEffects, rng: np.random.Generator
    ) -> ndarray:
        """Renders one picture, (H, W, 3) uint8 BGR.

        Args:
            solid: people and movable furniture.
            lit: (F, 3) its shaded colours, RGB.
            shadow: map of ``floor_shadow``.
            effects: of the camera.
            rng: for the window of the noise.
        """
        dim = cv2.remap(shadow, self.floor_map, None, cv2.INTER_LINEAR, borderValue=255)
        canvas = cv2.multiply(self.backdrop, cv2.merge([dim, dim, dim]), scale=1 / 255)
        paint(canvas, self.camera, solid, lit)
        h, w = self.camera.height, self.camera.width
        image = cv2.resize(canvas, (w, h), interpolation=cv2.INTER_AREA)
        if effects.blur > 0.2:
            image = cv2.GaussianBlur(image, (0, 0), effects.blur)
        y, x = rng.integers(0, h), rng.integers(0, w)
        grain = self.noise[y : y + h, x : x + w]
        return np.clip(image * effects.gain + np.float32(effects.noise) * grain, 0, 255).astype(np.uint8)


def floor_shadow(actors: list[Actor], boxes: list[Box], moment: int, light: ndarray) -> ndarray:
    """Cast and contact shadows on the floor.

    Args:
        actors: the people.
        boxes: furniture.
        moment: index of the moment.
        light: (3,) unit vector towards the main light, stage frame.

    Returns:
        (S, S) uint8 over the floor, x to the right, z down: remaining light, 255 without shadow.
    """
    size = round(2 * SHADOW_HALF / SHADOW_STEP)
    cast, contact = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)

    def pixels(points: ndarray) -> ndarray:
        return np.round((points[:, [0, 2]] + SHADOW_HALF) / SHADOW_STEP).astype(np.int32)

    def projected_along_light(points: ndarray) -> ndarray:
        return points - points[:, 1:2] / light[1] * light

    for actor in actors:
        bones = actor.spheres.centres[moment].reshape(-1, SPHERES_PER_BONE, 3)
        thick = actor.spheres.radii.reshape(-1, SPHERES_PER_BONE).mean(1) / SHADOW_STEP
        starts, ends = (pixels(projected_along_light(bones[:, k])).tolist() for k in (0, -1))
        for start, end, wide in zip(starts, ends, np.maximum(1, np.round(1.7 * thick)).astype(int).tolist()):
            cv2.line(cast, start, end, 255, wide)
        # From high to low, so that parts near the floor overwrite others.
        starts, ends = (pixels(bones[:, k]).tolist() for k in (0, -1))
        below = 255 * (1 - bones[:, :, 1].mean(1) / 70)
        for i in np.argsort(below)[(below <= 0).sum() :]:
            cv2.line(contact, starts[i], ends[i], float(below[i]), round(2 * thick[i]) + 3)
    for box in boxes:
        square = (
            turned_about_vertical(np.array([(-1, 0, -1), (1, 0, -1), (1, 0, 1), (-1, 0, 1)]) * box.half, box.yaw)
            + box.centre
        )
        low, high = (square + [0, h * box.half[1], 0] for h in (-1, 1))
        cv2.fillConvexPoly(cast, cv2.convexHull(pixels(projected_along_light(np.concatenate([low, high])))), 255)
        if low[0, 1] < 5:
            cv2.fillConvexPoly(contact, pixels(low), 255)
    cast, contact = cv2.GaussianBlur(cast, (0, 0), 2.2), cv2.GaussianBlur(contact, (0, 0), 3.4)
    return cv2.subtract(255, cv2.addWeighted(cast, 0.36, contact, 0.42, 0))
