"""Writers of small original data sets in their owners' layouts: JSON and images; binary_layouts.py has the others."""

import json
from pathlib import Path

import cv2
import numpy as np

from das.skeleton import COCO17, COCO19, MPI15, MUCO21, MUPOTS17
from pipeline.data.record import Record
from pipeline.data.splits import Part, SplitManifest
from pipeline.data.validate_record import validate

CAMERAS = ("00_16", "00_30")
HEIGHT, WIDTH = 180, 320


def jpeg(height: int, width: int, seed: int = 0) -> bytes:
    """A JPEG of coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    image = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", image)[1].tobytes()


# The category of COCO's keypoint files.
COCO_PERSON = {
    "id": 1, "name": "person",
    "keypoints": ["nose", "left_eye", "right_eye", "left_ear", "right_ear",
                  *(f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
                    for side in ("left", "right"))],
}  # fmt: skip

# An upright person of 178 cm at the world's origin: centimetres, y down, floor at 0.
STANDING = {
    "neck": (0, -145, 0), "nose": (0, -160, 12), "head_top": (0, -178, 0), "mid_hip": (0, -95, 0),
    "l_shoulder": (18, -143, 0), "l_elbow": (26, -115, 0), "l_wrist": (28, -90, 5),
    "r_shoulder": (-18, -143, 0), "r_elbow": (-26, -115, 0), "r_wrist": (-28, -90, 5),
    "l_hip": (10, -94, 0), "l_knee": (11, -50, 2), "l_ankle": (12, -8, 0),
    "r_hip": (-10, -94, 0), "r_knee": (-11, -50, 2), "r_ankle": (-12, -8, 0),
    "l_eye": (3, -164, 10), "l_ear": (7, -162, 0), "r_eye": (-3, -164, 10), "r_ear": (-7, -162, 0),
}  # fmt: skip


def body(id_: int, x_cm: float = 0.0, z_cm: float = 0.0, skeleton=COCO19) -> dict:
    """A body entry of a pose file: the person ``STANDING`` moved over the floor, every joint at confidence 0.6."""
    joints = np.array([STANDING[j] for j in skeleton.joints], float) + (x_cm, 0, z_cm)
    values = np.column_stack([joints, np.full(len(joints), 0.6)])
    return {"id": id_, f"joints{len(skeleton)}": values.ravel().tolist()}


def camera(name: str, width: int = WIDTH, height: int = HEIGHT, yaw: float = 0.0) -> dict:
    """A calibration entry: a distorted camera 4 m from the origin, at head height, looking at its middle."""
    c, s = np.cos(yaw), np.sin(yaw)
    return {
        "name": name, "type": "hd", "resolution": [width, height],
        "K": [[0.75 * width, 0, width / 2 + 3], [0, 0.75 * width, height / 2 - 2], [0, 0, 1]],
        "distCoef": [-0.28, 0.19, -0.0004, 0.0005, -0.05],
        "R": [[c, 0, s], [0, 1, 0], [-s, 0, c]], "t": [[0], [100], [400]],
    }  # fmt: skip


def write_panoptic(
    root: Path, sequence: str, frames=range(4), kind: str = "coco19", bodies=None, seed: int = 0
) -> Path:
    """A sequence of Panoptic, seen by two cameras, two people a frame unless ``bodies`` says otherwise.

    Sequences have the same pictures unless ``seed``, in steps of 100, differs.
    """
    folder = root / sequence
    skeleton, name = {"coco19": (COCO19, "hdPose3d_stage1_coco19"), "mpi15": (MPI15, "hdPose3d_stage1")}[kind]
    poses = folder / name
    poses.mkdir(parents=True)
    cameras = [camera(CAMERAS[0]), camera(CAMERAS[1], yaw=0.4)]
    (folder / f"calibration_{sequence}.json").write_text(json.dumps({"cameras": cameras}))
    for frame in frames:
        people = [body(0, frame, 0, skeleton), body(3, 60, 40 + frame, skeleton)]
        content = {"version": 0.7, "bodies": people if bodies is None else bodies}
        (poses / f"body3DScene_{frame:08d}.json").write_text(json.dumps(content))
        for i, name in enumerate(CAMERAS):
            image = folder / "hdImgs" / name / f"{name}_{frame:08d}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(jpeg(HEIGHT, WIDTH, seed=seed + 2 * frame + i))
    return root


def coco_like_person(id_: int, image_id: int, joints: int, changes: dict | None = None) -> dict:
    """An annotation as Moon et al. write it: a person 3 m away whose projection fits the camera below."""
    rng = np.random.default_rng(id_)
    cam = rng.normal(0, 300, (joints, 3)) + (0, 0, 3000)
    uv = cam[:, :2] / cam[:, 2:] * 300 + (160, 90)
    low, high = uv.min(axis=0), uv.max(axis=0)
    annotation = {
        "id": id_, "image_id": image_id, "category_id": 1, "iscrowd": 0, "bbox": [*low, *(high - low)],
        "keypoints_cam": cam.tolist(), "keypoints_img": uv.tolist(), "keypoints_vis": [[1]] * joints,
    }  # fmt: skip
    return {**annotation, **(changes or {})}


def write_mupots(root: Path, file_names, changes=None, images_in: str = ".") -> Path:
    """MuPoTS-3D in Moon's form, two people an image; ``changes`` by annotation id."""
    people = len(MUPOTS17)
    content = {"images": [], "annotations": []}
    for i, name in enumerate(file_names):
        image = {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT, "intrinsic": [300, 300, 160, 90]}
        content["images"].append(image)
        for id_ in (2 * i, 2 * i + 1):
            change = {"is_valid": 1, **(changes or {}).get(id_, {})}
            content["annotations"].append(coco_like_person(id_, i, people, change))
        path = root / images_in / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(HEIGHT, WIDTH, seed=i))
    (root / "MuPoTS-3D.json").write_text(json.dumps(content))
    return root


def write_muco(root: Path, file_names, changes=None) -> Path:
    """MuCo-3DHP in Moon's form, one person an image; ``changes`` by annotation id."""
    content = {"images": [], "annotations": []}
    for i, name in enumerate(file_names):
        image = {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT, "f": [300, 301], "c": [160, 90]}
        content["images"].append(image)
        content["annotations"].append(coco_like_person(i, i, len(MUCO21), (changes or {}).get(i)))
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(HEIGHT, WIDTH, seed=i))
    (root / "MuCo-3DHP.json").write_text(json.dumps(content))
    return root


def write_coco(root: Path) -> Path:
    """Three photos of train2017, two with people, and one of val2017."""
    for photos, ids in (("train2017", (1, 2, 3)), ("val2017", (4,))):
        content = {"categories": [COCO_PERSON], "images": [], "annotations": []}
        (root / photos).mkdir(parents=True)
        for i in ids:
            name = f"{i:012d}.jpg"
            content["images"].append({"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH})
            (root / photos / name).write_bytes(jpeg(HEIGHT, WIDTH, i))
            if i != 3:
                keypoints = [50, 60, 2] * len(COCO17)
                person = {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "keypoints": keypoints}
                content["annotations"].append({**person, "bbox": [40, 50, 20, 20]})
        file = root / "annotations" / f"person_keypoints_{photos}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return root


def write_custom(root: Path, count: int) -> list[str]:
    """Your own data: a skeleton of two joints, ``count`` images and train.jsonl, whose lines are returned."""
    root.mkdir(exist_ok=True)
    names = ("hip", "head")
    skeleton = {"name": "stick2", "joints": names, "bones": [names], "root": names[:1]}
    (root / "skeleton.json").write_text(json.dumps(skeleton))
    person = {"joints_uv": [[50, 60], [50, 30]], "joints_cam": None, "state": [2, 2]}
    lines = [json.dumps({"image": f"{i}.jpg", "K": None, "people": [person]}) for i in range(count)]
    (root / "train.jsonl").write_text("\n".join([*lines, ""]))
    for i in range(count):
        (root / f"{i}.jpg").write_bytes(jpeg(HEIGHT, WIDTH, i))
    return lines


BAND = SplitManifest("band", (Part("160906_band1", "test", "band"),), cameras=CAMERAS)


def read(source, root, split, **kwargs):
    """All records and drops of a split; records pass the schema's own checks."""
    items = [item for chunk in source.chunks(root, split, **kwargs) for item in source.records(chunk)]
    for item in items:
        if isinstance(item, Record):
            validate(item)
    return items
