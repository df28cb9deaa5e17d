"""Rendering shards: the whole studio from a config to files, one process or many."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipeline.studio.annotate import annotate
from pipeline.studio.body import dress
from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.config import SPLITS, StudioConfig, StudioShard, plan
from pipeline.studio.layout import bodies_json, bodies_path, calibration_json, calibration_path, image_path, write_whole
from pipeline.studio.render import Solid, View, box_solid, draw_look, floor_shadow, join, shade
from pipeline.studio.room import ROOMS, Room, make_room
from pipeline.studio.stage import plan_take


def write_calibration(config: StudioConfig, sequence: str, root: Path) -> Path:
    """Writes the sequence's calibration file and returns its path."""
    path = calibration_path(root, sequence)
    write_whole(path, calibration_json(sequence, sequence_cameras(config, sequence)).encode())
    return path


def sequence_room(config: StudioConfig, sequence: str) -> Room:
    """The room of a sequence: sequences take turns, each split from room 0 on."""
    for split in SPLITS:
        if sequence in config.sequences(split):
            number = config.sequences(split).index(sequence) % ROOMS
            return make_room(number, max(0.5, 2.4 * config.width * config.supersampling / 3840))
    raise ValueError(f"sequence {sequence!r} is not among the config's sequences")


def mesh_fineness(config: StudioConfig) -> tuple[int, int]:
    """(sides, detail) of the meshes: faces of a few pixels at any picture size."""
    if config.width <= 480:
        return 12, 1
    return (20, 2) if config.width <= 960 else (48, 5)


def render_shard(config: StudioConfig, shard: StudioShard, root: Path) -> int:
    """Renders the shard's frames with both cameras into the Panoptic layout under ``root``.

    The calibration is written by every shard, with the same content: a shard alone is a readable data set.

    Returns:
        Number of pictures written.

    Raises:
        ValueError: if the shard does not start at a take or its sequence is not in the config.
    """
    if shard.first % config.take_frames:
        raise ValueError(f"shard of {shard.sequence}: first must be a multiple of take_frames {config.take_frames}, "
                         f"found {shard.first}")  # fmt: skip
    sequence = shard.sequence
    room = sequence_room(config, sequence)
    views = [
        View(config, room, camera, config.rng(sequence, 1 << 21, i))
        for i, camera in enumerate(sequence_cameras(config, sequence))
    ]
    write_calibration(config, sequence, root)
    for first in range(shard.first, shard.first + shard.count, config.take_frames):
        moments = min(config.take_frames, shard.first + shard.count - first)
        _render_take(config, sequence, first // config.take_frames, moments, room, views, root)
    return shard.count * len(views)


def _render_take(
    config: StudioConfig, sequence: str, number: int, moments: int, room: Room, views: list[View], root: Path
) -> None:
    take = plan_take(config, sequence, number)
    t = np.arange(config.take_frames) * config.frame_seconds
    people = annotate(take.actors, t, config.rng(sequence, number, 1))
    rng = config.rng(sequence, number, 2)
    meshes = [dress(actor.person, actor.outfit, *mesh_fineness(config)) for actor in take.actors]
    furniture = [box_solid(box, 9.0 / mesh_fineness(config)[1] ** 0.5) for box in take.boxes]
    looks = [draw_look(rng) for _ in views]
    for moment in range(moments):
        frame = number * config.take_frames + moment
        bodies = [
            Solid(mesh.pose(actor.pose, moment), mesh.faces, mesh.colours) for mesh, actor in zip(meshes, take.actors)
        ]
        solid = join(bodies + furniture)
        lit = shade(solid, room.light)
        shadow = floor_shadow(take.actors, take.boxes, moment, room.light)
        for i, (view, look) in enumerate(zip(views, looks)):
            grain = config.rng(sequence, number, 3, moment, i)
            picture = view.picture(solid, lit, shadow, look, grain)
            _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality])
            write_whole(image_path(root, sequence, view.camera.name, frame), jpeg.tobytes())
        joints = [person[moment] for person in people]
        milliseconds = 1000.0 * frame * config.frame_seconds
        write_whole(bodies_path(root, sequence, frame), bodies_json(milliseconds, joints).encode())


def render(config: StudioConfig, root: Path, workers: int = 2, splits: tuple[str, ...] = SPLITS) -> int:
    """Renders all shards of the splits with ``workers`` processes; returns the number of pictures."""
    shards = plan(config, splits)
    if workers <= 1:
        return sum(render_shard(config, shard, root) for shard in shards)
    # A forked child would wait for ever for threads of OpenCV that the parent has used and that it does not have.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return sum(pool.imap_unordered(partial(_render_one, config, root), shards))


def _render_one(config: StudioConfig, root: Path, shard: StudioShard) -> int:
    return render_shard(config, shard, root)
