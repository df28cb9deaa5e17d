"""Shots: one picture of one moment by one camera, with masks, boxes and joint visibility.

All layouts are written from shots. Which person a pixel shows, and at which distance, is computed from the same quads
and camera as the picture, so masks, boxes and visibility agree with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from das.camera import project, transform
from das.skeleton import Skeleton
from pipeline.infra.files import write_bytes
from pipeline.studio.body import body_mesh
from pipeline.studio.cameras import StudioCamera
from pipeline.studio.config import StudioConfig
from pipeline.studio.geometry import to_world
from pipeline.studio.joints import joint_depths, joint_points
from pipeline.studio.rasterize import Solid, View, box_solid, face_index_map, floor_shadow, join, sample_effects, shade
from pipeline.studio.room import Room
from pipeline.studio.stage import Take

OUTSIDE, HIDDEN, SEEN = 0, 1, 2
"""State of a joint: outside the picture; inside but hidden; inside and visible. The values are COCO's v flags."""


@dataclass(frozen=True)
class Figure:
    """One person in one picture.

    Attributes:
        actor: index in the take.
        uv: (J, 2) pixels.
        cam: (J, 3) mm, camera frame.
        state: (J,) OUTSIDE, HIDDEN or SEEN.
        mask: (H, W) bool, the pixels that show the person.
        bbox: (4,) x0 y0 x1 y1 pixel edges of the whole body, hidden parts included, cut by the picture; zeros if it is
            outside.
        distance: mean distance of the joints from the camera, mm.
    """

    actor: int
    uv: ndarray
    cam: ndarray
    state: ndarray
    mask: ndarray
    bbox: ndarray
    distance: float


@dataclass(frozen=True)
class Shot:
    """One picture.

    Attributes:
        frame: number within the sequence.
        take: the take.
        moment: index of the moment in the take.
        view: index of the view.
        camera: the view's camera.
        picture: (H, W, 3) uint8 BGR.
        bodies: the actors' solids, in the order of ``take.actors``.
        solid: the bodies, then the furniture, as one solid.
    """

    frame: int
    take: Take
    moment: int
    view: int
    camera: StudioCamera
    picture: ndarray
    bodies: list[Solid]
    solid: Solid

    @cached_property
    def _seen(self) -> tuple[ndarray, ndarray]:
        """Index of the person that each pixel shows (-1 for none) and the surface's distance, cm (inf for the room)."""
        faces = face_index_map(self.camera, self.solid)
        owners = np.full(len(self.solid.faces) + 1, -1)  # the last entry is for index -1, no face
        first = 0
        for i, body in enumerate(self.bodies):
            owners[first : first + len(body.faces)] = i
            first += len(body.faces)
        position = to_world(self.camera.centre)  # stage frame
        middles = self.solid.vertices[self.solid.faces].mean(1)
        distances = np.append(np.linalg.norm(middles - position, axis=-1), np.inf)
        return owners[faces], distances[faces]

    def figures(self, skeleton: Skeleton) -> list[Figure]:
        """All actors of the take, visible or not, with the joints of ``skeleton``."""
        return [self._figure(i, skeleton) for i in range(len(self.bodies))]

    def _figure(self, i: int, skeleton: Skeleton) -> Figure:
        actor, camera = self.take.actors[i], self.camera
        owners, distances = self._seen
        points = joint_points(actor.person, actor.pose, skeleton)[self.moment]
        cam = transform(to_world(points), camera.R, camera.t)
        uv = project(cam, camera.K, camera.distortion)
        far = np.linalg.norm(cam, axis=-1)
        size = np.array([camera.width, camera.height])
        inside = (cam[:, 2] > 0) & ((uv > -0.5) & (uv < size - 0.5)).all(-1)
        state = np.where(inside, HIDDEN, OUTSIDE)
        deepest = far - joint_depths(actor.person, skeleton)
        for k in np.flatnonzero(inside):
            x, y = np.round(uv[k]).astype(int)
            if distances[y, x] < deepest[k]:
                continue  # another surface is in front
            # A joint near the outline may be rounded to a pixel next to the person: accept a neighbouring pixel.
            if (owners[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] == i).any():
                state[k] = SEEN
        outline = transform(to_world(self.bodies[i].vertices), camera.R, camera.t)
        edges = project(outline, camera.K, camera.distortion) + 0.5
        low, high = np.clip(edges.min(0), 0, size), np.clip(edges.max(0), 0, size)
        bbox = np.concatenate([low, high]) if (low < high).all() else np.zeros(4)
        # cm to mm.
        return Figure(i, uv, 10.0 * cam, state, owners == i, bbox, 10.0 * float(far.mean()))


def mesh_fineness(config: StudioConfig) -> tuple[int, int]:
    """(sides, detail) of the meshes, so that faces have a few pixels at any picture size."""
    if config.width <= 480:
        return 12, 1
    return (20, 2) if config.width <= 960 else (48, 5)


def shots_of_take(
    config: StudioConfig, sequence: str, number: int, moments: int, take: Take, room: Room, views: Sequence[View]
) -> Iterator[Shot]:
    """Yields the shots of a take: moment by moment, all views of each.

    Args:
        config: the studio's configuration.
        sequence: name of the sequence.
        number: number of the take in the sequence.
        moments: renders this many of the take's moments.
        take: the planned take.
        room: for the light.
        views: one per camera, made with the same room.
    """
    rng = config.rng(sequence, number, 2)
    meshes = [body_mesh(actor.person, actor.outfit, *mesh_fineness(config)) for actor in take.actors]
    furniture = [box_solid(box, 9.0 / mesh_fineness(config)[1] ** 0.5) for box in take.boxes]
    effects = [sample_effects(rng) for _ in views]
    for moment in range(moments):
        frame = number * config.take_frames + moment
        bodies = [
            Solid(mesh.pose(actor.pose, moment), mesh.faces, mesh.colours) for mesh, actor in zip(meshes, take.actors)
        ]
        solid = join(bodies + furniture)
        lit = shade(solid, room.light)
        shadow = floor_shadow(take.actors, take.boxes, moment, room.light)
        for i, (view, effect) in enumerate(zip(views, effects)):
            noise_rng = config.rng(sequence, number, 3, moment, i)
            picture = view.picture(solid, lit, shadow, effect, noise_rng)
            yield Shot(frame, take, moment, i, view.camera, picture, bodies, solid)


def write_picture(config: StudioConfig, path: Path, shot: Shot) -> None:
    """Writes the shot as a JPEG file of the config's quality."""
    _, jpeg = cv2.imencode(".jpg", shot.picture, [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality])
    write_bytes(path, jpeg.tobytes())
