"""The original CMU Panoptic layout: calibration, body files and HD images of a sequence, in centimetres.

```
<root>/<sequence>/calibration_<sequence>.json
<root>/<sequence>/hdPose3d_stage1_coco19/body3DScene_%08d.json
<root>/<sequence>/hdImgs/<camera>/<camera>_%08d.jpg
```
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from numpy import ndarray

from pipeline.studio.cameras import StudioCamera


def calibration_path(root: Path, sequence: str) -> Path:
    """Where the sequence's calibration is written."""
    return root / sequence / f"calibration_{sequence}.json"


def bodies_path(root: Path, sequence: str, frame: int) -> Path:
    """Where the frame's people are written."""
    return root / sequence / "hdPose3d_stage1_coco19" / f"body3DScene_{frame:08d}.json"


def image_path(root: Path, sequence: str, camera: str, frame: int) -> Path:
    """Where one camera's picture of the frame is written."""
    return root / sequence / "hdImgs" / camera / f"{camera}_{frame:08d}.jpg"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a run stopped half-way, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)


def calibration_json(sequence: str, cameras: list[StudioCamera]) -> str:
    """The calibration file of a sequence; t in cm, x_cam = R X + t, world Y down."""
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
    """A body file: ``people`` are (19, 4) arrays of x, y, z in cm and confidence, ids in order from ``first`` on."""
    bodies = ",\n".join(
        f'{{ "id": {i},\n"joints19": [{", ".join(f"{value:.6g}" for value in joints.ravel())}]\n}}'
        for i, joints in enumerate(people, start=first)
    )
    return (
        f'{{ "version": 0.7, \n"univTime" :{milliseconds:.3f},\n"fpsType" :"hd_29_97",\n"bodies" :\n[\n{bodies}\n] }}'
    )
