"""One image and its N people in NumPy: what a stored row holds, checked, and what training and evaluation see of it.

``validate`` runs wherever a record is written or read (schema.py), so a wrong unit is met where it enters and not as a
bad loss. ``to_sample`` is what training and evaluation see.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from das.camera import ASSUMED_FOV_DEGREES, intrinsics_from_fov
from das.sample import Sample
from das.skeleton import skeleton_named
from das.transforms import inside

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
_TYPES = {f.name: str(f.type) for f in fields(Record)}
_HASHED = tuple(name for name in _TYPES if name != "image")
_NULLABLE = {name for name, kind in _TYPES.items() if kind.endswith("| None")}
_TEXTS = tuple(name for name, kind in _TYPES.items() if kind == "str")


class RowError(ValueError):
    """A row that cannot be what it says; ``column`` is where."""

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column


def fault(where: str, key: object, column: str, found: str, wanted: str) -> RowError:
    """The error of a column of a row: file, key, column, what was found and what is wanted."""
    return RowError(f"{where or 'record'}: {key}: column {column}: found {found}, wanted {wanted}", column)


def joint_count(skeleton: str, where: str, key: str) -> int:
    """J of a joint set by its name or text; ``fault`` if there is none."""
    try:
        return len(skeleton_named(skeleton))
    except ValueError as error:
        raise fault(where, key, "skeleton", str(error), "a joint set of das.skeleton") from error


def validate(record: Record, where: str = "", with_image: bool = True) -> None:
    """Refuses a record that cannot be what it says: types, shapes, ranges of units, identity, image bytes.

    Ranges are wide enough for every camera and person and still tell millimetres from centimetres and metres:
    the longest bone in an image lies between 100 mm and 10 m, its farthest joint between 0.5 and 200 m.

    Args:
        record: what to check.
        where: file name for the message.
        with_image: False for records read without their image column.

    Raises:
        ValueError: ``file: key: column: found, wanted``.
    """

    def refuse(column: str, found: object, wanted: str) -> None:
        raise fault(where, record.key, column, str(found), wanted)

    for name in _TEXTS:
        if not isinstance(getattr(record, name), str):
            refuse(name, type(getattr(record, name)).__name__, "a string")
    for name in ("frame", "height", "width"):
        if type(getattr(record, name)) is not int:
            refuse(name, type(getattr(record, name)).__name__, "an int")
    key = key_of(record.source, record.sequence, record.camera, record.frame)
    if record.key != key:
        refuse("key", repr(record.key), repr(key))
    if record.split not in ("train", "val", "test"):
        refuse("split", repr(record.split), "train, val or test")
    if not 0 <= record.frame < 2**63:
        refuse("frame", record.frame, "0 to 2^63 - 1")
    if record.height < 1 or record.width < 1:
        refuse("height", f"{record.width}x{record.height}", "an image size above 0")

    joints = joint_count(record.skeleton, where, record.key)
    for name, (dtype, letters) in ARRAYS.items():
        value = getattr(record, name)
        if value is None:
            if name not in _NULLABLE:
                refuse(name, "null", "a value")
            continue
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            refuse(name, getattr(value, "dtype", type(value).__name__), np.dtype(dtype).name)
        sizes = {"N": len(record.person_id), "J": joints}
        shape = tuple(sizes[x] if isinstance(x, str) else x for x in letters)
        if value.shape != shape:
            refuse(name, f"shape {value.shape}", f"{shape}, J = {joints} joints of {record.skeleton}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            refuse(name, "NaN or infinity", "finite numbers (absence is state 0 or null)")

    _validate_camera(record, refuse)
    _validate_people(record, refuse)
    if with_image:
        _validate_image(record, refuse)


def _validate_camera(record: Record, refuse: Any) -> None:
    if record.K is not None:
        K, longest = record.K, max(record.height, record.width)
        if not np.array_equal(K[2], (0, 0, 1)):
            refuse("K", f"last row {K[2].tolist()}", "0 0 1")
        focals = K[0, 0], K[1, 1]
        if not (0.05 * longest <= min(focals) and max(focals) <= 100 * longest):
            wanted = f"{0.05 * longest:g} to {100 * longest} px for an image {longest} px long"
            refuse("K", f"focal lengths {focals[0]:g} and {focals[1]:g}", wanted)
    elif record.joints_cam is not None:
        refuse("K", "null beside joints_cam", "the camera of joints in 3D")
    if (record.R is None) != (record.t_mm is None):
        refuse("R", "only one of R and t_mm", "both or none")
    if record.R is not None:
        off = _off_a_rotation(record.R.tobytes())
        if off > 1e-3:  # calibrations are written with about 10 digits
            refuse("R", f"a matrix {off:.2g} off a rotation", "a rotation from world to camera")


@lru_cache(maxsize=64)  # all frames of a camera have the same
def _off_a_rotation(R: bytes) -> float:
    """How far a matrix (3, 3) float64 is off a rotation: largest entry of R R^T - 1, or infinity for a mirror."""
    matrix = np.frombuffer(R).reshape(3, 3)
    return float(np.abs(matrix @ matrix.T - np.eye(3)).max()) if np.linalg.det(matrix) > 0 else math.inf


def _validate_people(record: Record, refuse: Any) -> None:
    if (record.state > VISIBLE).any():
        refuse("state", int(record.state.max()), "0 unlabelled, 1 occluded or 2 visible")
    box = record.bbox
    if (box[:, :2] > box[:, 2:]).any():
        worst = box[(box[:, :2] > box[:, 2:]).any(axis=1)][0].tolist()
        refuse("bbox", worst, "x0 <= x1 and y0 <= y1")
    labelled = record.state > UNLABELLED
    for name in ("joints_cam", "joints_cam_univ"):
        joints = getattr(record, name)
        if joints is None or not labelled.any():
            continue
        depth = joints[..., 2][labelled]
        if depth.min() <= 0:
            refuse(name, f"a labelled joint at depth {depth.min():g}", "depth above 0 mm, z forward")
        if not 500 <= depth.max() <= 200_000:
            refuse(name, f"a farthest joint at depth {depth.max():g}", "500 to 200000 mm")
        longest = _longest_bone(record.skeleton, joints, labelled)
        if longest is not None and not 100 <= longest <= 10_000:
            refuse(name, f"a longest bone of {longest:g}", "100 to 10000 mm")


@lru_cache(maxsize=64)
def _bones(skeleton: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the two ends of every bone."""
    a, b = np.array(skeleton_named(skeleton).bone_indices).T
    return a, b


def _longest_bone(skeleton: str, joints: np.ndarray, labelled: np.ndarray) -> float | None:
    """Longest bone among people with at least half of their joints; None without such people.

    Joints of a face alone are too close together to tell centimetres from millimetres.
    """
    a, b = _bones(skeleton)
    whole = 2 * labelled.sum(axis=1) >= labelled.shape[1]
    known = labelled[:, a] & labelled[:, b] & whole[:, None]
    if not known.any():
        return None
    bones = joints[:, a] - joints[:, b]
    return float(np.sqrt(np.einsum("nbi,nbi->nb", bones, bones)[known].max()))


def _validate_image(record: Record, refuse: Any) -> None:
    if not isinstance(record.image, bytes):
        refuse("image", type(record.image).__name__, "bytes")
    try:
        size = image_size(record.image)
    except ValueError as error:
        refuse("image", str(error), "a whole JPEG or PNG")
    if size != (record.height, record.width):
        refuse("image", f"{size[1]}x{size[0]} pixels", f"{record.width}x{record.height} as the row says")
    if record.image_sha256 != hashlib.sha256(record.image).hexdigest():
        refuse("image_sha256", record.image_sha256, "the SHA-256 of the image bytes")


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) of an encoded JPEG or PNG, from its header alone; also sees whether its end is there.

    Raises:
        ValueError: the bytes are empty, no JPEG or PNG, or cut short.
    """
    if not data:
        raise ValueError("no bytes")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        if len(data) < 24 or b"IEND" not in data[-64:]:
            raise ValueError("a PNG that is cut short")
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if not data.startswith(b"\xff\xd8"):
        raise ValueError(f"bytes {data[:4].hex()} at the start")
    # Decoders fill the missing part of a cut JPEG with grey and succeed, so look for the end marker; some
    # writers append a few bytes of their own after it.
    if b"\xff\xd9" not in data[-4096:]:
        raise ValueError("a JPEG that is cut short")
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without frame header")


def decode_image(record: Record) -> np.ndarray:
    """The record's image as (H, W, 3) uint8 RGB.

    Raises:
        ValueError: naming the key, when it cannot be decoded or has another size than the row says.
    """
    # Annotations refer to the stored pixels, whatever an orientation tag says.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    wanted = (record.height, record.width)
    try:
        size = image_size(record.image)
        # A header that says more than the row does would have memory for it all taken.
        image = cv2.imdecode(np.frombuffer(record.image, np.uint8), flags) if size == wanted else None
    except (ValueError, cv2.error) as error:
        raise ValueError(f"{record.key}: image cannot be decoded: found {error}") from error
    if image is not None:
        size = image.shape[:2]
    if image is None or size != wanted:
        found = "no image" if size == wanted else f"{size[1]}x{size[0]} pixels"
        raise ValueError(f"{record.key}: image decodes to {found}, wanted {record.width}x{record.height}")
    return image


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
        # An unknown camera (COCO): its people have no depth, so the guess decides nothing that is supervised.
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
