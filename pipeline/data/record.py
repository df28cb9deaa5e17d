"""One image and its N people in NumPy: the content of a stored row, and its conversion to a training sample.

``to_sample`` selects the people that can be learnt or scored and derives visibility and roots. validate_record.py
checks a record; schema.py converts it to and from Parquet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields

import numpy as np

from das.skeleton import skeleton_named
from pipeline.data.encoded_image import decode_rgb

UNLABELLED, OCCLUDED, VISIBLE = 0, 1, 2
"""Values of ``state``."""


@dataclass
class Record:
    """One image and its N people; the columns of the row as NumPy arrays.

    Attributes:
        key: ``source/sequence/camera/frame``, see ``key_of``.
        split: train, val or test. activity: group of sequences that a benchmark scores together, or "".
        split_manifest: ``SplitManifest.id`` of the table that chose the split; "" in rows of schema version 1.
        skeleton: name of the joint set (das.skeleton) of the J joints.
        image: encoded JPEG or PNG bytes; empty when read without images. image_sha256: their SHA-256, in hex.
        height, width: of the image, pixels.
        K: (3, 3) float64 intrinsics, pixels. distortion: (5,) float64 k1 k2 p1 p2 k3, or (12,) with
            the rational and thin-prism terms k4 k5 k6 s1 s2 s3 s4. R: (3, 3) and t_mm: (3,) float64
            extrinsics, ``X_cam = R X_world + t``. Each may be None.
        person_id: (N,) int64.
        joints_uv: (N, J, 2) float32 pixels of the stored (distorted) image; any finite values where state is 0.
        joints_cam: (N, J, 3) float32 mm, camera frame, or None; any finite values where state is 0.
        joints_cam_univ: the same for the MuPoTS universal skeleton, or None.
        confidence: (N, J) float32 as given by the source, or None.
        state: (N, J) uint8, 0 unlabelled, 1 occluded, 2 visible. Whether a joint is inside the image is derived
            (``to_sample``), not stored.
        bbox: (N, 4) float32 pixels, x0 y0 x1 y1.
        ignore: (N,) bool, crowd or person without joints. valid: (N,) bool, the source marks the annotation as usable
            (MuPoTS: isValidFrame).
        changes: what differs between the image and the original file, in a few constant texts; not stored.
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
    changes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.person_id)

    def content_hash(self) -> str:
        """SHA-256 in hex of every field, with the image represented by its own hash; the same on every machine."""
        parts: list[bytes] = []
        for name in _HASHED:
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                # Little-endian bytes in the schema's type, so that the platform's byte order does not matter.
                parts += f"{name}{value.shape}=".encode(), value.astype(_LITTLE[name], copy=False).tobytes()
            else:
                parts.append(f"{name}={value}\n".encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()


def key_of(source: str, sequence: str, camera: str, frame: int) -> str:
    """The identity of an image. The basename of its file is not enough: different sequences use the same names."""
    return f"{source}/{sequence}/{camera}/{frame:08d}"


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
"""NumPy type and shape of every array column, with N people and J joints."""
LONG_LENS = 12
"""Values of ``distortion`` where a lens has more terms than the usual five."""
_LITTLE = {name: np.dtype(dtype).newbyteorder("<") for name, (dtype, _) in ARRAYS.items()}
COLUMN_TYPES = {f.name: str(f.type) for f in fields(Record) if f.name != "changes"}
"""Annotation of every stored field of ``Record`` as text, for example ``np.ndarray | None``."""
_HASHED = tuple(name for name in COLUMN_TYPES if name != "image")


def decode_image(record: Record, half: bool = False) -> np.ndarray:
    """The record's image as (H, W, 3) uint8 RGB; ``half`` as in ``decode_rgb``.

    Raises:
        ValueError: naming the key, when it cannot be decoded or its size differs from the record's.
    """
    try:
        return decode_rgb(record.image, (record.height, record.width), half)
    except ValueError as error:
        raise ValueError(f"{record.key}: {error}") from error


def left_out(record: Record) -> np.ndarray:
    """The reason why each person can be neither learnt nor scored, "" for people that can: (N,) str.

    Left out are ignore areas ("ignored"), people whose annotation the source marks as unusable ("invalid"), and people
    of whom a root joint is not labelled ("root unlabelled"; in COCO one of the hips).
    """
    labelled = record.state > UNLABELLED
    root = list(skeleton_named(record.skeleton).root_indices)
    return np.select(
        [record.ignore, ~record.valid, ~labelled[:, root].all(axis=1)],
        ["ignored", "invalid", "root unlabelled"],
        "",
    )
