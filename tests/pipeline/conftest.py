"""A local Ray, and small original data sets that tests write themselves."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import ray

from das.skeleton import COCO19, MPI15
from pipeline.cluster import ClusterConfig, connect


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of two CPUs for the tests of one module, gone afterwards so that others can start their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        connect(ClusterConfig(address="local", num_cpus=2, object_store_mb=100))
        yield
        ray.shutdown()


def jpeg(height: int, width: int, seed: int = 0) -> bytes:
    """A JPEG of coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    image = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", image)[1].tobytes()


# A person as tall as people are, standing at the world's origin: centimetres, y down, floor at 0.
STANDING = {
    "neck": (0, -145, 0), "nose": (0, -160, 12), "head_top": (0, -178, 0), "mid_hip": (0, -95, 0),
    "l_shoulder": (18, -143, 0), "l_elbow": (26, -115, 0), "l_wrist": (28, -90, 5),
    "r_shoulder": (-18, -143, 0), "r_elbow": (-26, -115, 0), "r_wrist": (-28, -90, 5),
    "l_hip": (10, -94, 0), "l_knee": (11, -50, 2), "l_ankle": (12, -8, 0),
    "r_hip": (-10, -94, 0), "r_knee": (-11, -50, 2), "r_ankle": (-12, -8, 0),
    "l_eye": (3, -164, 10), "l_ear": (7, -162, 0), "r_eye": (-3, -164, 10), "r_ear": (-7, -162, 0),
}  # fmt: skip


def body(id_: int, x_cm: float = 0.0, z_cm: float = 0.0, skeleton=COCO19) -> dict:
    """A body entry of a pose file: the standing person moved over the floor, every joint at confidence 0.6."""
    joints = np.array([STANDING[j] for j in skeleton.joints], float) + (x_cm, 0, z_cm)
    values = np.column_stack([joints, np.full(len(joints), 0.6)])
    return {"id": id_, f"joints{len(skeleton)}": values.ravel().tolist()}


def camera(name: str, width: int = 320, height: int = 180, yaw: float = 0.0) -> dict:
    """A calibration entry: a distorted camera 4 m from the origin, at head height, looking at its middle."""
    c, s = np.cos(yaw), np.sin(yaw)
    return {
        "name": name, "type": "hd", "resolution": [width, height],
        "K": [[0.75 * width, 0, width / 2 + 3], [0, 0.75 * width, height / 2 - 2], [0, 0, 1]],
        "distCoef": [-0.28, 0.19, -0.0004, 0.0005, -0.05],
        "R": [[c, 0, s], [0, 1, 0], [-s, 0, c]], "t": [[0], [100], [400]],
    }  # fmt: skip


@pytest.fixture
def panoptic_tree(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sequence in Panoptic's layout; every frame has two people unless ``bodies`` says otherwise."""

    def write(
        sequence: str, frames=range(4), kind: str = "coco19", bodies=None, images: bool = True, root: str = "raw"
    ) -> Path:
        folder = tmp_path / root / sequence
        skeleton = COCO19 if kind == "coco19" else MPI15
        poses = folder / ("hdPose3d_stage1_coco19" if kind == "coco19" else "hdPose3d_stage1")
        poses.mkdir(parents=True, exist_ok=True)
        cameras = [camera("00_16"), camera("00_30", yaw=0.6)]
        (folder / f"calibration_{sequence}.json").write_text(json.dumps({"cameras": cameras}))
        for frame in frames:
            people = [body(0, frame, 0, skeleton), body(3, 60, 40 + frame, skeleton)]
            content = {"version": 0.7, "bodies": people if bodies is None else bodies}
            (poses / f"body3DScene_{frame:08d}.json").write_text(json.dumps(content))
            for i, name in enumerate(("00_16", "00_30")):
                image = folder / "hdImgs" / name / f"{name}_{frame:08d}.jpg"
                image.parent.mkdir(parents=True, exist_ok=True)
                if images:
                    image.write_bytes(jpeg(180, 320, seed=2 * frame + i))
        return folder.parent

    return write
