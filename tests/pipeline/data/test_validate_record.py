"""Checks of a record: every fault is named by file, key and column."""

from dataclasses import replace

import numpy as np
import pytest

from das.camera import project
from das.skeleton import COCO19
from pipeline.data.record import Record
from pipeline.data.schema import to_table
from pipeline.data.validate_record import RowError, validate
from tests.pipeline.data.records import encoded, record


def changed(name: str, change) -> Record:
    a = replace(record(seed=3), state=np.full((2, 17), 2, np.uint8))
    return replace(a, **{name: change(getattr(a, name))})


def with_nan(x):
    x = x.copy()
    x.flat[0] = np.nan
    return x


FAULTS = {
    "depth and all in metres": ("joints_cam", lambda x: x / 1000, "500 to 200000 mm"),
    "all in centimetres": ("joints_cam", lambda x: x / 10, "500 to 200000 mm"),
    "a small person, far away, in centimetres": ("joints_cam", lambda x: (x - x.mean()) / 40 + 600, "longest bone"),
    "behind the camera": ("joints_cam", lambda x: -x, "depth above 0"),
    "NaN joint": ("joints_cam", with_nan, "NaN"),
    "universal joints in metres": ("joints_cam_univ", lambda x: x / 1000, "500 to 200000 mm"),
    "NaN pixel": ("joints_uv", with_nan, "NaN"),
    "double precision": ("joints_uv", lambda x: x.astype(np.float64), "wanted float32"),
    "another joint count": ("joints_uv", lambda x: x[:, :16], "J = 17 joints of mupots17"),
    "another number of people": ("valid", lambda x: x[:1], r"wanted \(2,\)"),
    "normalised intrinsics": ("K", lambda x: x / (64, 48, 1), "focal lengths 1.09375"),
    "negative focal length": ("K", lambda x: x * (-1, 1, 1), "focal lengths -70"),
    "projective intrinsics": ("K", lambda x: x + 1, "last row"),
    "3D joints without a camera": ("K", lambda x: None, "null beside joints_cam"),
    "a scaled rotation": ("R", lambda x: 1.1 * x, "off a rotation"),
    "a mirroring": ("R", lambda x: -x, "off a rotation"),
    "half of the extrinsics": ("t_mm", lambda x: None, "both or none"),
    "box of x, y, width, height": ("bbox", lambda x: x[:, [2, 3, 0, 1]], "x0 <= x1"),
    "unknown joint state": ("state", lambda x: x + 1, "found 3"),
    "no state": ("state", lambda x: None, "found null"),
    "unknown joint set": ("skeleton", lambda x: "mpii16", "mpii16"),
    "another key": ("key", lambda x: "img_000007", "source/sequence/00_16/00000007"),
    "unknown split": ("split", lambda x: "trainval", "train, val or test"),
    "a float as frame number": ("frame", lambda x: 7.0, "an int"),
    "an empty image": ("image", lambda x: b"", "no bytes"),
    "no image at all": ("image", lambda x: b"<html>404</html>", "a whole JPEG or PNG"),
    "a cut JPEG": ("image", lambda x: x[: len(x) // 2], "cut short"),
    "an image of another size": ("image", lambda x: encoded(40, 64), "64x40 pixels, wanted 64x48"),
    "another image": ("image_sha256", lambda x: "0" * 64, "SHA-256"),
    "no height": ("height", lambda x: 0, "above 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_naming_file_key_and_column(name):
    column, change, reason = FAULTS[name]
    bad = changed(column, change)
    with pytest.raises(ValueError, match=reason) as caught:
        to_table([bad], "shard-00000.parquet")
    message = str(caught.value)
    assert message.startswith(f"shard-00000.parquet: {bad.key}: column ")
    assert "found" in message and "wanted" in message and "\n" not in message
    # R and t_mm are checked together: the message names R when t_mm is missing.
    assert f"column {column}:" in message or name == "half of the extrinsics"


def test_unlabelled_joints_may_have_any_position():
    a = replace(record(seed=3), state=np.zeros((2, 17), np.uint8))
    validate(replace(a, joints_cam=-a.joints_cam))


def test_a_face_alone_is_not_taken_for_centimetres():
    state = np.zeros((1, 19), np.uint8)
    state[0, [COCO19.index(j) for j in ("nose", "l_eye", "r_eye", "l_ear", "r_ear")]] = 2
    cam = np.full((1, 19, 3), 2000, np.float32) + np.arange(19, dtype=np.float32)[None, :, None]
    a = record(COCO19, people=1, extras=False)
    uv = project(cam.astype(np.float64), a.K).astype(np.float32)
    validate(replace(a, state=state, joints_cam=cam, joints_uv=uv))


@pytest.mark.parametrize("count", [9, 8])
def test_bones_are_measured_of_people_with_at_least_half_of_their_joints(count):
    state = np.where(np.arange(17) < count, 2, 0).astype(np.uint8)[None].repeat(2, axis=0)
    a = record(seed=3)
    cam = ((a.joints_cam - a.joints_cam.mean()) / 40 + 600).astype(np.float32)  # bones of a few centimetres
    uv = project(cam.astype(np.float64), a.K, a.distortion).astype(np.float32)
    tiny = replace(a, state=state, joints_cam=cam, joints_cam_univ=None, joints_uv=uv)
    if count == 8:
        validate(tiny)
        return
    with pytest.raises(RowError, match="joints_cam: found a longest bone"):
        validate(tiny)


def labelled(**changes) -> Record:
    """A record with every joint labelled and no ignore area."""
    whole = {"state": np.full((2, 17), 2, np.uint8), "ignore": np.zeros(2, bool)}
    return replace(record(seed=3), **{**whole, **changes})


@pytest.mark.parametrize("lens", [None, np.array([-0.3, 0.1, 0, 0, -0.02])])
def test_2d_joints_are_compared_with_the_projection_of_3d_joints(lens):
    a = labelled(distortion=lens)
    uv = project(a.joints_cam.astype(np.float64), a.K, lens).astype(np.float32)
    uv[1, 4] += (0, 1.2)  # 2 % of 64 px are 1.28 px
    validate(replace(a, joints_uv=uv))
    uv[1, 4] += (0, 0.2)
    with pytest.raises(
        RowError, match=r"joints_uv: found .* 1\.4 px from .* wanted at most 1\.3 px, 2 % of 64"
    ) as caught:
        validate(replace(a, joints_uv=uv))
    assert f"of person {a.person_id[1]} " in str(caught.value) and caught.value.column == "joints_uv"
    for unused in ({"ignore": np.array([False, True])}, {"state": np.where(np.arange(17) == 4, 0, a.state)}):
        validate(replace(a, joints_uv=uv, **{k: v.astype(getattr(a, k).dtype) for k, v in unused.items()}))


def test_a_wrong_camera_and_y_up_are_told_apart():
    a = labelled()
    with pytest.raises(ValueError, match="joints_uv: found .* do K and joints_cam belong to this image"):
        validate(replace(a, K=a.K * 2 - np.diag([0, 0, 1])))
    up = a.joints_cam * np.array([1, -1, 1], np.float32)
    with pytest.raises(ValueError, match="joints_cam has y up, wanted y down"):
        validate(replace(a, joints_cam=up))


def test_joints_outside_the_lens_are_not_compared():
    lens = np.array([-0.3, 0.0, 0, 0, 0])  # folds over at a radius of 1.05
    a = labelled(distortion=lens)
    uv = project(a.joints_cam.astype(np.float64), a.K, lens).astype(np.float32)
    cam = a.joints_cam.copy()
    cam[0, 9] = (5000, 0, 4000)
    validate(replace(a, joints_cam=cam, joints_uv=uv))
    cam[0, 9] = (2000, 0, 4000)
    with pytest.raises(ValueError, match="joints_uv"):
        validate(replace(a, joints_cam=cam, joints_uv=uv))
