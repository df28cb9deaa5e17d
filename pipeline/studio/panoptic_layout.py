"""Rendering shards into the Panoptic layout: from a config to calibration, body files and pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipeline.studio.annotate import annotate
from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.config import MOST_PEOPLE, SPLITS, StudioChunk, StudioConfig
from pipeline.studio.layout import bodies_json, bodies_path, calibration_json, calibration_path, image_path, write_whole
from pipeline.studio.render import View
from pipeline.studio.room import ROOMS, Room, make_room
from pipeline.studio.shots import Shot, shots
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
            return make_room(number, room_density(config))
    raise ValueError(f"sequence {sequence!r} is not among the config's sequences")


def room_density(config: StudioConfig) -> float:
    """Pixels per cm of the room's textures: as fine as the pictures show."""
    return max(0.5, 2.4 * config.width * config.supersampling / 3840)


def render_chunk(config: StudioConfig, shard: StudioChunk, root: Path) -> int:
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
    for shot in shots(config, sequence, number, moments, take, room, views):
        write_picture(config, image_path(root, sequence, shot.camera.name, shot.frame), shot)
        if shot.view == len(views) - 1:
            joints = [person[shot.moment] for person in people]
            milliseconds = 1000.0 * shot.frame * config.frame_seconds
            # Within a sequence nobody has the number of somebody else: a take is other people.
            content = bodies_json(milliseconds, joints, number * MOST_PEOPLE)
            write_whole(bodies_path(root, sequence, shot.frame), content.encode())


def write_picture(config: StudioConfig, path: Path, shot: Shot) -> None:
    """The shot as a JPEG file of the config's quality."""
    _, jpeg = cv2.imencode(".jpg", shot.picture, [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality])
    write_whole(path, jpeg.tobytes())
