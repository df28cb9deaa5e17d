"""Checks a record before it is written and after it is read, so a wrong unit is found at the file that has it.

``validate`` checks types, shapes, ranges of units, the key and the image bytes. Its errors name file, key and column.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Any

import numpy as np

from das.camera import lens_radius, project
from das.camera_check import intrinsics_fault
from das.skeleton import skeleton_named
from pipeline.data.encoded_image import image_size
from pipeline.data.record import ARRAYS, COLUMN_TYPES, LONG_LENS, UNLABELLED, VISIBLE, Record, key_of

_NULLABLE = {name for name, kind in COLUMN_TYPES.items() if kind.endswith("| None")}
# How far a labelled joint's position in the image may be from the projection of its position in 3D, in lengths of the
# image's longer side. Corrected labels of MuPoTS are up to half of it away (sources/mupots.py).
MAX_MISFIT = 0.02
_TEXTS = tuple(name for name, kind in COLUMN_TYPES.items() if kind == "str")


class RowError(ValueError):
    """A row with an impossible value: ``place`` (file and key), ``column``, and ``fault``, what is wrong there."""

    def __init__(self, place: str, column: str, fault: str) -> None:
        super().__init__(place, column, fault)
        self.place, self.column, self.fault = place, column, fault

    def __str__(self) -> str:
        return f"{self.place}: column {self.column}: {self.fault}"


def fault(where: str, key: object, column: str, found: str, wanted: str) -> RowError:
    """The error for one column of a row, with file, key, column, the value found and the value wanted."""
    return RowError(f"{where or 'record'}: {key}", column, f"found {found}, wanted {wanted}")


def joint_count(skeleton: str, where: str, key: str) -> int:
    """Number of joints J of a joint set, given its name or its text.

    Raises:
        RowError: no such joint set.
    """
    try:
        return len(skeleton_named(skeleton))
    except ValueError as error:
        raise fault(where, key, "skeleton", str(error), "a joint set of das.skeleton") from error


def validate(record: Record, where: str = "", with_image: bool = True) -> None:
    """Checks types, shapes, ranges of values, the key and the image bytes of a record.

    The ranges are wide enough for every camera and person, and narrow enough to find centimetres or metres in place of
    millimetres: the longest bone in an image has 100 mm to 10 m, the farthest joint a depth of 0.5 to 200 m. Where a
    row has both, labelled joints in 3D must be projected to within 2 % of the image's longer side of joints_uv.

    Args:
        record: what to check.
        where: file name for the message.
        with_image: False for records read without their image column.

    Raises:
        RowError: ``FILE: KEY: column COLUMN: found VALUE, wanted VALUE``.
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
        if name == "distortion" and value.shape == (LONG_LENS,):
            shape = value.shape
        if value.shape != shape:
            refuse(name, f"shape {value.shape}", f"{shape}, J = {joints} joints of {record.skeleton}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            refuse(name, "NaN or infinity", "finite numbers (absence is state 0 or null)")

    _validate_camera(record, refuse)
    _validate_people(record, refuse)
    _validate_projection(record, refuse)
    if with_image:
        validate_image(record, where)


def _validate_camera(record: Record, refuse: Any) -> None:
    """Checks K, R and t_mm."""
    if record.K is not None:
        if (fault := intrinsics_fault(record.K, (record.height, record.width))) is not None:
            refuse("K", *fault)
    elif record.joints_cam is not None:
        refuse("K", "null beside joints_cam", "the camera of joints in 3D")
    if (record.R is None) != (record.t_mm is None):
        refuse("R", "only one of R and t_mm", "both or none")
    if record.R is not None:
        off = _off_a_rotation(record.R.tobytes())
        if off > 1e-3:  # far above the rounding of calibrations, which have about 10 digits
            refuse("R", f"a matrix {off:.2g} off a rotation", "a rotation from world to camera")


@lru_cache(maxsize=64)  # all frames of a camera have the same R
def _off_a_rotation(R: bytes) -> float:
    """Distance of a matrix, (3, 3) float64 as bytes, from a rotation: max |R R^T - 1|, infinity when det R <= 0."""
    matrix = np.frombuffer(R).reshape(3, 3)
    return float(np.abs(matrix @ matrix.T - np.eye(3)).max()) if np.linalg.det(matrix) > 0 else math.inf


def _validate_people(record: Record, refuse: Any) -> None:
    """Checks joint states, boxes and 3D joints."""
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


def _validate_projection(record: Record, refuse: Any) -> None:
    """Checks that joints_uv are where the camera images joints_cam.

    Ignore areas are left out, and joints outside the lens, where its model has no meaning.
    """
    cam, K = record.joints_cam, record.K
    if cam is None or K is None or not len(record):
        return
    lens = np.zeros(5) if record.distortion is None else record.distortion
    depth = cam[..., 2]
    compared = (record.state > UNLABELLED) & ~record.ignore[:, None] & (depth > 0)
    x, y = (cam[..., i] / np.where(compared, depth, 1) for i in (0, 1))
    compared &= np.hypot(x, y) < _lens_radius(lens.tobytes())
    if not compared.any():
        return
    person, joint = np.nonzero(compared)
    points, uv = cam[compared].astype(np.float64), record.joints_uv[compared]
    misfit = _distances(points, uv, K, lens)
    worst, longest = int(misfit.argmax()), max(record.height, record.width)
    if misfit[worst] <= MAX_MISFIT * longest:
        return
    name = skeleton_named(record.skeleton).joints[joint[worst]]
    found = f"{name} of person {record.person_id[person[worst]]} {misfit[worst]:.1f} px from its projected joints_cam"
    up = _distances(points * (1, -1, 1), uv, K, lens).max() <= MAX_MISFIT * longest
    hint = "joints_cam has y up, wanted y down" if up else "do K and joints_cam belong to this image?"
    wanted = f"at most {MAX_MISFIT * longest:.1f} px, 2 % of {longest}: {hint}"
    refuse("joints_uv", found, wanted)


def _distances(points: np.ndarray, uv: np.ndarray, K: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Distances (M,) in pixels of uv (M, 2) from the projections of camera-space points (M, 3) mm."""
    return np.linalg.norm(project(points, K, lens) - uv, axis=-1)


@lru_cache(maxsize=64)  # all frames of a camera have the same lens
def _lens_radius(lens: bytes) -> float:
    """``das.camera.lens_radius`` of coefficients (5,) or (12,) float64 as bytes."""
    return float(lens_radius(np.frombuffer(lens)))


@lru_cache(maxsize=64)
def _bones(skeleton: str) -> tuple[np.ndarray, np.ndarray]:
    """Joint indices of the two ends of every bone, (bones,) each."""
    a, b = np.array(skeleton_named(skeleton).bone_indices).T
    return a, b


def _longest_bone(skeleton: str, joints: np.ndarray, labelled: np.ndarray) -> float | None:
    """Length in mm of the longest bone among people with at least half of their joints; None without such people.

    People with fewer joints do not count: a face alone has bones so short that correct millimetres would be refused.
    """
    a, b = _bones(skeleton)
    whole = 2 * labelled.sum(axis=1) >= labelled.shape[1]
    known = labelled[:, a] & labelled[:, b] & whole[:, None]
    if not known.any():
        return None
    bones = joints[:, a] - joints[:, b]
    return float(np.sqrt(np.einsum("nbi,nbi->nb", bones, bones)[known].max()))


def validate_image(record: Record, where: str = "") -> None:
    """Checks that the image is complete, and its size and hash.

    Raises:
        RowError: as ``validate``.
    """

    def refuse(column: str, found: object, wanted: str) -> None:
        raise fault(where, record.key, column, str(found), wanted)

    if not isinstance(record.image, bytes):
        refuse("image", type(record.image).__name__, "bytes")
    try:
        size = image_size(record.image)
    except ValueError as error:
        refuse("image", str(error), "a whole JPEG or PNG")
    if size != (record.height, record.width):
        refuse("image", f"{size[1]}x{size[0]} pixels", f"{record.width}x{record.height}, width and height of the row")
    if record.image_sha256 != hashlib.sha256(record.image).hexdigest():
        refuse("image_sha256", record.image_sha256, "the SHA-256 of the image bytes")
