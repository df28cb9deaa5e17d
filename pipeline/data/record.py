"""One image and its N people in NumPy: the content of a stored row, and what training and evaluation make of it.

``to_sample`` selects the people that can be learnt or scored. ``validate`` (validate_record.py) checks a record,
schema.py converts it to and from Parquet.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, fields

import numpy as np

from das.camera import intrinsics_from_fov
from das.sample import Sample
from das.skeleton import skeleton_named
from das.transforms import inside
from pipeline.data.encoded_image import decode_rgb

# Field of view taken for images whose camera is unknown (COCO). Their people have no depth, so it decides
# nothing that is supervised.
ASSUMED_FOV_DEGREES = 60.0

UNLABELLED, OCCLUDED, VISIBLE = 0, 1, 2


@dataclass
class Record:
    """One image and its N people; the columns of the row as NumPy arrays.

    Attributes:
        key: ``source/sequence/camera/frame``, see ``key_of``.
        split: train, val or test. activity: what a benchmark scores together, or "".
        split_manifest: identity of the table that put it there (``SplitManifest.id``); "" in rows of schema version 1.
        skeleton: name of the joint set (das.skeleton) of the J joints.
        image: encoded JPEG or PNG bytes; empty when read without images. image_sha256: their hash.
        K: (3, 3) float64 pixels, distortion: (5,), R: (3, 3) and t_mm: (3,) of ``X_cam = R X_world + t``; or
        None.
        person_id: (N,) int64.
        joints_uv: (N, J, 2) float32 pixels of the stored (distorted) image; anything finite where state is 0.
        joints_cam: (N, J, 3) float32 mm, camera frame, or None; anything finite where state is 0.
        joints_cam_univ: the same of the MuPoTS universal skeleton, or None.
        confidence: (N, J) float32, the source's own, or None.
        state: (N, J) uint8, 0 unlabelled, 1 occluded, 2 visible; being inside the image is derived, not
        stored.
        bbox: (N, 4) float32 pixels, x0 y0 x1 y1.
        ignore: (N,) bool, crowd or person without joints. valid: (N,) bool, MuPoTS isValidFrame and its like.
    """

    key: str
    source: str
    sequence: str
    camera: str
    frame: int
    split: str
    activity: str
    skeleton: str
    image: bytes
    image_sha256: str
    height: int
    width: int
    K: np.ndarray | None
    distortion: np.ndarray | None
    R: np.ndarray | None
    t_mm: np.ndarray | None
    person_id: np.ndarray
    joints_uv: np.ndarray
    joints_cam: np.ndarray | None
    joints_cam_univ: np.ndarray | None
    confidence: np.ndarray | None
    state: np.ndarray
    bbox: np.ndarray
    ignore: np.ndarray
    valid: np.ndarray
    split_manifest: str = ""

    def __len__(self) -> int:
        return len(self.person_id)

    def content_hash(self) -> str:
        """Hash of every field; the image enters by its own hash. Equal for equal records on any machine."""
        parts: list[bytes] = []
        for name in _HASHED:
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                # Little-endian bytes of the schema's own type: the same on every platform.
                parts += f"{name}{value.shape}=".encode(), value.astype(_LITTLE[name], copy=False).tobytes()
            else:
                parts.append(f"{name}={value}\n".encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()


def key_of(source: str, sequence: str, camera: str, frame: int) -> str:
    """The identity of an image: never a file's basename, which different sequences share."""
    return f"{source}/{sequence}/{camera}/{frame:08d}"


# Array columns: NumPy type and shape by letters; N and J are the record's own.
ARRAYS: dict[str, tuple[type[np.generic], tuple[str | int, ...]]] = {
    "K": (np.float64, (3, 3)),
    "distortion": (np.float64, (5,)),
    "R": (np.float64, (3, 3)),
    "t_mm": (np.float64, (3,)),
    "person_id": (np.int64, ("N",)),
    "joints_uv": (np.float32, ("N", "J", 2)),
    "joints_cam": (np.float32, ("N", "J", 3)),
    "joints_cam_univ": (np.float32, ("N", "J", 3)),
    "confidence": (np.float32, ("N", "J")),
    "state": (np.uint8, ("N", "J")),
    "bbox": (np.float32, ("N", 4)),
    "ignore": (np.bool_, ("N",)),
    "valid": (np.bool_, ("N",)),
}
_LITTLE = {name: np.dtype(dtype).newbyteorder("<") for name, (dtype, _) in ARRAYS.items()}
COLUMN_TYPES = {f.name: str(f.type) for f in fields(Record)}
_HASHED = tuple(name for name in COLUMN_TYPES if name != "image")


def decode_image(record: Record) -> np.ndarray:
    """The record's image as (H, W, 3) uint8 RGB.

    Raises:
        ValueError: naming the key, when it cannot be decoded or its size differs from the record's.
    """
    try:
        return decode_rgb(record.image, (record.height, record.width))
    except ValueError as error:
        raise ValueError(f"{record.key}: {error}") from error


def left_out(record: Record) -> np.ndarray:
    """Why each of the N people can neither be learnt nor scored, "" for those who can: (N,) str.

    Ignore areas, people whose annotation the source does not stand behind, and people who miss a part of their
    root (COCO: one of the hips).
    """
    labelled = record.state > UNLABELLED
    root = list(skeleton_named(record.skeleton).root_indices)
    return np.select(
        [record.ignore, ~record.valid, ~labelled[:, root].all(axis=1)],
        ["ignored", "invalid", "root unlabelled"],
        "",
    )


def to_sample(record: Record, image: np.ndarray | None = None) -> tuple[Sample, Counter[str]]:
    """The decoded image with the people that can be learnt or scored, in the record's own joint set.

    A joint is visible when it is labelled (occluded ones included) and inside the image. People are left out,
    and counted by reason, as ``left_out`` says. The root is the mean of the skeleton's root joints. A person has
    depth when the record is 3D.

    Args:
        record: the stored row.
        image: (H, W, 3) uint8 RGB to take instead of decoding the record's own.

    Returns:
        the sample, and how many people were left out for which reason.

    Raises:
        ValueError: from ``decode_image``.
    """
    if image is None:
        image = decode_image(record)
    skeleton = skeleton_named(record.skeleton)
    labelled = record.state > UNLABELLED
    root = list(skeleton.root_indices)
    reasons = left_out(record)
    keep = reasons == ""
    uv = record.joints_uv[keep].astype(np.float64)
    cam, K = record.joints_cam, record.K
    if K is None:
        K = intrinsics_from_fov(record.width, record.height, ASSUMED_FOV_DEGREES)
    depth = np.zeros(uv.shape[:2]) if cam is None else cam[keep, :, 2].astype(np.float64)
    sample = Sample(
        key=record.key,
        skeleton=skeleton,
        image=image,
        K=K,
        distortion=np.zeros(5) if record.distortion is None else record.distortion,
        joints_uv=uv,
        joints_depth=depth,
        visible=labelled[keep] & inside(uv, record.height, record.width),
        root_uv=uv[:, root].mean(axis=1),
        root_depth=depth[:, root].mean(axis=1),
        has_depth=np.full(len(uv), cam is not None),
    )
    return sample, Counter(reasons[~keep].tolist())
