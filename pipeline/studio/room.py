"""The room: floor, four walls and furniture along them, rendered once per camera and reused for every picture.

There are few rooms, and every split uses the same ones: the background must not reveal the split.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from das.camera import undistort
from pipeline.studio.cameras import StudioCamera
from pipeline.studio.config import SPLITS, StudioConfig
from pipeline.studio.geometry import to_world
from pipeline.studio.spheres import Box

ROOMS = 3
"""Number of rooms; a green-screen room comes in addition."""
HALF = 450.0
"""Half the room's width, cm."""
WALL = 340.0
"""Height of the walls, cm."""


@dataclass(frozen=True)
class Room:
    """Textures, furniture and the main light of a room.

    Attributes:
        floor: texture of the square floor, (H, W, 3) RGB 0..1.
        walls: four textures, at +x, -x, +z, -z.
        furniture: blocks that never move.
        light: (3,) unit vector towards the main light, stage frame.
        density: pixels per cm of the textures.
    """

    floor: ndarray
    walls: list[ndarray]
    furniture: list[Box]
    light: ndarray
    density: float


class _Texture:
    """A texture that is drawn on in centimetres, origin at the top left."""

    def __init__(self, width: float, height: float, density: float, colour: ndarray) -> None:
        self.density = density
        self.pixels = np.empty((round(height * density), round(width * density), 3), np.float32)
        self.pixels[:] = colour

    def _at(self, x: float, y: float) -> tuple[int, int]:
        return round(x * self.density), round(y * self.density)

    def block(self, x0: float, y0: float, x1: float, y1: float, colour: ndarray) -> None:
        cv2.rectangle(self.pixels, self._at(x0, y0), self._at(x1, y1), [float(c) for c in colour], cv2.FILLED)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: ndarray, wide: float = 0.8) -> None:
        thickness = max(1, round(wide * self.density))
        cv2.line(self.pixels, self._at(x0, y0), self._at(x1, y1), [float(c) for c in colour], thickness, cv2.LINE_AA)

    def disc(self, x: float, y: float, radius: float, colour: ndarray) -> None:
        cv2.circle(self.pixels, self._at(x, y), max(1, round(radius * self.density)), [float(c) for c in colour], -1,
                   cv2.LINE_AA)  # fmt: skip

    def speckle(self, rng: np.random.Generator, cell: float, amount: float) -> None:
        """Multiplies by smooth noise of grain ``cell`` cm and standard deviation ``amount``."""
        h, w = self.pixels.shape[:2]
        grains = max(2, round(w / self.density / cell)), max(2, round(h / self.density / cell))
        noise = rng.normal(0, amount, (grains[1], grains[0])).astype(np.float32)
        self.pixels *= 1 + cv2.resize(noise, (w, h), interpolation=cv2.INTER_CUBIC)[..., None]


def make_room(number: int, density: float) -> Room:
    """Room ``number`` (0 to ROOMS - 1) at ``density`` pixels per cm; the same for every seed, sequence and split."""
    rng = np.random.default_rng([7351, number])
    wall_tone = np.array([(0.72, 0.72, 0.66), (0.62, 0.68, 0.72), (0.74, 0.66, 0.58)][number % 3])
    return Room(
        floor=_floor(rng, number, density),
        walls=[_wall(rng, wall_tone, density) for _ in range(4)],
        furniture=_furniture(rng),
        light=np.array([0.34, 0.87, 0.36]) / np.linalg.norm([0.34, 0.87, 0.36]),
        density=density,
    )


def sequence_room(config: StudioConfig, sequence: str) -> Room:
    """The room of a sequence; the sequences of each split cycle through the rooms, starting with room 0.

    Raises:
        ValueError: the sequence is not in the config.
    """
    for split in SPLITS:
        if sequence in config.sequences(split):
            number = config.sequences(split).index(sequence) % ROOMS
            return make_room(number, room_density(config))
    raise ValueError(f"sequence {sequence!r} is not among the config's sequences")


def room_density(config: StudioConfig) -> float:
    """Pixels per cm of the room's textures, about the canvas's resolution on the nearest floor; 2.4 at 3840 pixels."""
    return max(0.5, 2.4 * config.width * config.supersampling / 3840)


def green_screen_room(density: float) -> Room:
    """An empty room with green walls and floor, unevenly lit, as in MuCo-3DHP's unaugmented images."""
    rng = np.random.default_rng([7351, ROOMS])
    green = np.array([0.24, 0.62, 0.30])

    def cloth(width: float, height: float, tone: ndarray) -> ndarray:
        texture = _Texture(width, height, density, tone)
        for cell, amount in ((3, 0.01), (25, 0.02), (120, 0.05)):
            texture.speckle(rng, cell, amount)
        return texture.pixels

    light = np.array([0.2, 0.95, 0.24])
    return Room(
        floor=cloth(2 * HALF, 2 * HALF, green),
        walls=[cloth(2 * HALF, WALL, 0.95 * green) for _ in range(4)],
        furniture=[],
        light=light / np.linalg.norm(light),
        density=density,
    )


def _floor(rng: np.random.Generator, number: int, density: float) -> ndarray:
    size = 2 * HALF
    tone = np.array([(0.46, 0.44, 0.40), (0.52, 0.40, 0.28), (0.40, 0.42, 0.44)][number % 3])
    texture = _Texture(size, size, density, tone)
    if number % 3 == 1:  # planks
        for i, x in enumerate(np.arange(0.0, size, 18).tolist()):
            for y in np.arange(-rng.uniform(0, 180), size, 180).tolist():
                texture.block(x, y, x + 18, y + 180, tone * rng.uniform(0.86, 1.12))
                texture.line(x, y, x + 18, y, 0.7 * tone)
            texture.line(x, 0, x, size, (0.72 + 0.06 * (i % 2)) * tone)
    else:  # tiles or bare concrete with joints
        step = 60 if number % 3 == 2 else 150
        for x in np.arange(0.0, size, step).tolist():
            for y in np.arange(0.0, size, step).tolist():
                texture.block(x, y, x + step, y + step, tone * rng.uniform(0.94, 1.06))
        for x in np.arange(0.0, size, step).tolist():
            texture.line(x, 0, x, size, 0.8 * tone)
            texture.line(0, x, size, x, 0.8 * tone)
    for _ in range(14):  # scuffs
        x, y = rng.uniform(60, size - 60, 2)
        dx, dy = rng.normal(0, 22, 2)
        texture.line(x, y, x + dx, y + dy, tone * rng.uniform(0.75, 1.15), 1.5)
    for cell, amount in ((1.2, 0.02), (4, 0.025), (14, 0.03), (70, 0.05)):
        texture.speckle(rng, cell, amount)
    return texture.pixels


def _wall(rng: np.random.Generator, tone: ndarray, density: float) -> ndarray:
    texture = _Texture(2 * HALF, WALL, density, tone * rng.uniform(0.94, 1.04))
    for x in np.arange(rng.uniform(40, 110), 2 * HALF, 112).tolist():  # panel joints
        texture.line(x, 0, x, WALL, 0.82 * tone, 1.2)
    texture.line(0, 105, 2 * HALF, 105, 0.86 * tone, 1.2)
    texture.block(0, WALL - 11, 2 * HALF, WALL, 0.62 * tone)
    x = rng.uniform(30, 120)
    while x < 2 * HALF - 150:
        kind = rng.choice(["poster", "window", "door", "shelf", "nothing"])
        width = rng.uniform(60, 120)
        if kind == "poster":
            _poster(rng, texture, x, rng.uniform(95, 135), width, rng.uniform(55, 95))
        elif kind == "window":
            texture.block(x - 5, 75, x + width + 5, 205, np.array([0.86, 0.86, 0.84]))
            texture.block(x, 80, x + width, 200, np.array([0.70, 0.80, 0.88]))
            for y in np.arange(84.0, 200, 8).tolist():
                texture.line(x, y, x + width, y, np.array([0.90, 0.90, 0.86]), 2.5)
        elif kind == "door":
            texture.block(x - 6, 122, x + 96, WALL, np.array([0.42, 0.34, 0.28]))
            texture.block(x, 128, x + 90, WALL, np.array([0.56, 0.45, 0.36]) * rng.uniform(0.8, 1.2))
            texture.disc(x + 80, 238, 3.5, np.array([0.75, 0.72, 0.62]))
        elif kind == "shelf":
            for y in (130.0, 172.0, 214.0):
                texture.block(x, y, x + width, y + 4, np.array([0.40, 0.30, 0.22]))
                book = x + 2
                while book < x + width - 12:
                    w = rng.uniform(3, 8)
                    texture.block(book, y - rng.uniform(18, 32), book + w, y, rng.uniform(0.15, 0.8, 3))
                    book += w + rng.choice([0.5, 6], p=[0.85, 0.15])
        x += width + rng.uniform(50, 170)
    for cell, amount in ((1.5, 0.008), (6, 0.01), (90, 0.05)):
        texture.speckle(rng, cell, amount)
    return texture.pixels


def _poster(rng: np.random.Generator, texture: _Texture, x: float, y: float, width: float, height: float) -> None:
    texture.block(x - 2, y - 2, x + width + 2, y + height + 2, np.array([0.2, 0.2, 0.2]))
    texture.block(x, y, x + width, y + height, rng.uniform(0.3, 0.95, 3))
    for _ in range(7):
        cx, cy = x + width * rng.uniform(0.2, 0.8), y + height * rng.uniform(0.2, 0.8)
        if rng.random() < 0.5:
            texture.disc(cx, cy, 0.16 * min(width, height) * rng.uniform(0.3, 1), rng.uniform(0.1, 0.95, 3))
        else:
            w, h = 0.18 * width * rng.uniform(0.3, 1), 0.18 * height * rng.uniform(0.3, 1)
            texture.block(cx - w, cy - h, cx + w, cy + h, rng.uniform(0.1, 0.95, 3))


def _furniture(rng: np.random.Generator) -> list[Box]:
    """Blocks along the walls: cupboards, crates, benches; some have the size of people, as negatives for a detector."""
    boxes = []
    for wall in range(4):
        for place in rng.permutation([-250.0, -60.0, 130.0, 290.0])[:3]:
            w, h, d = [(45, 90, 25), (28, 85, 22), (70, 28, 24), (30, 30, 30), (22, 60, 22)][rng.integers(5)]
            off = HALF - d - 2
            centre = {0: (off, place), 1: (-off, place), 2: (place, off), 3: (place, -off)}[wall]
            half = (d, h, w) if wall < 2 else (w, h, d)
            tone = np.array(
                [(0.52, 0.38, 0.26), (0.30, 0.32, 0.35), (0.68, 0.66, 0.62), (0.33, 0.42, 0.38), (0.50, 0.24, 0.20)][
                    rng.integers(5)
                ]
            )
            boxes.append(Box(np.array([centre[0], h, centre[1]]), np.array(half, dtype=float), 0.0, tone))
    return boxes


def pixel_rays(camera: StudioCamera, width: int, height: int) -> ndarray:
    """World directions (height, width, 3) of the rays through a canvas's pixels, with depth 1 in the camera frame.

    The distortion is inverted on a grid of 6 pixels and interpolated: exact inversion is iterative and slow.
    """
    columns, rows = max(2, width // 6), max(2, height // 6)
    x = np.linspace(-0.5, camera.width - 0.5, columns)
    y = np.linspace(-0.5, camera.height - 0.5, rows)
    uv = np.stack(np.meshgrid(x, y), -1)
    distorted = (uv - camera.K[:2, 2]) / np.diag(camera.K)[:2]
    ideal = undistort(distorted.reshape(-1, 2), camera.distortion).reshape(rows, columns, 2).astype(np.float32)
    # Canvas pixel centres on the grid whose first and last nodes are the picture's outer edges.
    gx = (np.arange(width, dtype=np.float32) + 0.5) / width * (columns - 1)
    gy = (np.arange(height, dtype=np.float32) + 0.5) / height * (rows - 1)
    fine = cv2.remap(ideal, *np.meshgrid(gx, gy), cv2.INTER_LINEAR)
    ones = np.ones((height, width, 1), np.float32)
    return np.concatenate([fine, ones], -1) @ camera.R.astype(np.float32)


def floor_points(camera: StudioCamera, rays: ndarray) -> ndarray:
    """Intersections of rays (H, W, 3) with the floor: (H, W, 2) stage x, z in cm; 1e5 cm away above the horizon."""
    position = to_world(camera.centre)  # stage frame
    direction = to_world(rays)
    down = np.where(direction[..., 1] < -1e-4, direction[..., 1], np.nan)
    reach = np.nan_to_num(-position[1] / down, nan=1e5)
    x, z = (position[axis] + reach * direction[..., axis] for axis in (0, 2))
    return np.stack([x, z], -1).astype(np.float32)


def bare_room(room: Room, camera: StudioCamera, width: int, height: int) -> ndarray:
    """Floor and walls on a canvas, (height, width, 3) float32 RGB 0..1, darker towards edges and corners."""
    rays = pixel_rays(camera, width, height)
    position = to_world(camera.centre).astype(np.float32)
    direction = to_world(rays).astype(np.float32)
    ground = floor_points(camera, rays)
    inside = np.abs(ground).max(-1) < HALF
    picture = _sample(room.floor, (ground + HALF) * room.density)
    x, z = ground[..., 0], ground[..., 1]
    # The lamps light the middle of the floor most.
    brightness = 1.08 - 0.30 * np.clip((x * x + z * z) / HALF**2, 0, 1.6)
    corner = 1 - 0.35 * np.exp(-(HALF - np.maximum(abs(x), abs(z))).clip(0) / 35)
    picture *= (brightness * corner)[..., None]
    for i, wall in enumerate(room.walls):
        axis, sign = (0 if i < 2 else 2), (1.0 if i % 2 == 0 else -1.0)
        towards = direction[..., axis] * sign
        reach = (HALF - sign * position[axis]) / np.maximum(towards, 1e-4)
        along = position[2 - axis] + reach * direction[..., 2 - axis]
        up = position[1] + reach * direction[..., 1]
        hit = ~inside & (abs(along) <= HALF) & (towards > 1e-4)
        place = np.stack([along + HALF, np.clip(WALL - up, 0, WALL)], -1)[hit].astype(np.float32)
        shade = (0.80 + 0.22 * np.clip(up / WALL, 0, 1.2)) * (1 - 0.30 * np.exp(-(HALF - abs(along)).clip(0) / 45))
        shade *= (1 - 0.25 * np.exp(-np.clip(up, 0, None) / 25)) * (1.0, 0.86, 0.93, 0.80)[i]
        picture[hit] = _sample(wall, place * room.density) * shade[hit][:, None]
    return np.clip(picture, 0, 1)


def _sample(texture: ndarray, places: ndarray) -> ndarray:
    """Bilinear texture colours (..., 3) at texture pixels (..., 2), clamped at the edges."""
    h, w = texture.shape[:2]
    flat = places.reshape(-1, 2).astype(np.float32) - 0.5
    fold = np.pad(flat, ((0, -len(flat) % 1024), (0, 0))).reshape(-1, 1024, 2)  # cv2.remap accepts sides below 32768
    if not len(fold):
        return np.zeros(places.shape[:-1] + (3,), np.float32)
    x, y = fold[..., 0].clip(0, w - 1), fold[..., 1].clip(0, h - 1)
    colours = cv2.remap(texture, x, y, cv2.INTER_LINEAR).reshape(-1, 3)[: len(flat)]
    return colours.reshape(*places.shape[:-1], 3)
