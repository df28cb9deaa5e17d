"""The original CMU Panoptic layout: calibration, body files and HD images of a sequence, in centimetres.

```
<root>/<sequence>/calibration_<sequence>.json
<root>/<sequence>/hdPose3d_stage1_coco19/body3DScene_%08d.json
<root>/<sequence>/hdImgs/<camera>/<camera>_%08d.jpg
```
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy import ndarray

from pipeline.infra.files import write_bytes
from pipeline.studio.annotate import annotate
from pipeline.studio.cameras import StudioCamera, sequence_cameras
from pipeline.studio.config import MOST_PEOPLE, StudioChunk, StudioConfig
from pipeline.studio.rasterize import View
from pipeline.studio.room import Room, sequence_room
from pipeline.studio.shots import shots_of_take, write_picture
from pipeline.studio.stage import plan_take


def calibration_path(root: Path, sequence: str) -> Path:
    """Path of the sequence's calibration."""
    return root / sequence / f"calibration_{sequence}.json"


def bodies_path(root: Path, sequence: str, frame: int) -> Path:
    """Path of the frame's body file."""
    return root / sequence / "hdPose3d_stage1_coco19" / f"body3DScene_{frame:08d}.json"


def image_path(root: Path, sequence: str, camera: str, frame: int) -> Path:
    """Path of one camera's picture of the frame."""
    return root / sequence / "hdImgs" / camera / f"{camera}_{frame:08d}.jpg"


def calibration_json(sequence: str, cameras: list[StudioCamera]) -> str:
    """Content of a calibration file: X_cam = R X + t, t in cm, world y down."""
    entries = [
        {
            "name": camera.name,
            "type": "hd",
            "resolution": [camera.width, camera.height],
            "panel": int(camera.name[:2]),
            "node": int(camera.name[3:]),
            "K": camera.K.tolist(),
            "distCoef": camera.distortion.tolist(),
            "R": camera.R.tolist(),
            "t": camera.t[:, None].tolist(),
        }
        for camera in cameras
    ]
    return json.dumps({"calibDataSource": f"{sequence}_rendered", "cameras": entries}, indent="\t")


def bodies_json(milliseconds: float, people: list[ndarray], first: int) -> str:
    """Content of a body file.

    Args:
        milliseconds: time of the frame.
        people: per person (19, 4): x, y, z in world cm, and confidence.
        first: id of the first person; the others follow.
    """
    bodies = ",\n".join(
        f'{{ "id": {i},\n"joints19": [{", ".join(f"{value:.6g}" for value in joints.ravel())}]\n}}'
        for i, joints in enumerate(people, start=first)
    )
    return (
        f'{{ "version": 0.7, \n"univTime" :{milliseconds:.3f},\n"fpsType" :"hd_29_97",\n"bodies" :\n[\n{bodies}\n] }}'
    )


def write_calibration(config: StudioConfig, sequence: str, root: Path) -> Path:
    """Writes the sequence's calibration and returns its path."""
    path = calibration_path(root, sequence)
    write_bytes(path, calibration_json(sequence, sequence_cameras(config, sequence)).encode())
    return path


def render_panoptic_chunk(config: StudioConfig, chunk: StudioChunk, root: Path) -> int:
    """Renders the chunk's frames with both cameras into the Panoptic layout under ``root``.

    Every chunk writes the calibration, with the same content, so that one chunk alone is a readable data set.

    Returns:
        Number of pictures written.

    Raises:
        ValueError: the chunk does not start with a take, or its sequence is not in the config.
    """
    if chunk.first % config.take_frames:
        raise ValueError(f"chunk of {chunk.sequence}: first must be a multiple of take_frames {config.take_frames}, "
                         f"found {chunk.first}")  # fmt: skip
    sequence = chunk.sequence
    room = sequence_room(config, sequence)
    views = [
        View(config, room, camera, config.rng(sequence, 1 << 21, i))
        for i, camera in enumerate(sequence_cameras(config, sequence))
    ]
    write_calibration(config, sequence, root)
    for first in range(chunk.first, chunk.first + chunk.count, config.take_frames):
        moments = min(config.take_frames, chunk.first + chunk.count - first)
        _write_take(config, sequence, first // config.take_frames, moments, room, views, root)
    return chunk.count * len(views)


def _write_take(
    config: StudioConfig, sequence: str, number: int, moments: int, room: Room, views: list[View], root: Path
) -> None:
    take = plan_take(config, sequence, number)
    t = np.arange(config.take_frames) * config.frame_seconds
    people = annotate(take.actors, t, config.rng(sequence, number, 1))
    for shot in shots_of_take(config, sequence, number, moments, take, room, views):
        write_picture(config, image_path(root, sequence, shot.camera.name, shot.frame), shot)
        if shot.view == len(views) - 1:
            joints = [person[shot.moment] for person in people]
            milliseconds = 1000.0 * shot.frame * config.frame_seconds
            # Every take has other people, so ids must differ between the takes of a sequence.
            content = bodies_json(milliseconds, joints, number * MOST_PEOPLE)
            write_bytes(bodies_path(root, sequence, shot.frame), content.encode())
