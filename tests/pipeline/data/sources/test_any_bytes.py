"""Any bytes in place of a pose file, an image or annotations give records, or dropped frames or errors that name it."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.prepare.frames import read_frames, validated_frames
from pipeline.data.record import Record, decode_image
from pipeline.data.sources import coco, muco, mupots, panoptic
from pipeline.data.sources.base import DroppedFrame
from tests.pipeline.data.original_layouts import HEIGHT, WIDTH, body, write_muco, write_mupots, write_panoptic
from tests.pipeline.data.prepare.test_quarantine import GOOD_JPEG, SEQUENCE, image, pose, write_coco

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(
        ("bodies", "id", "joints19", "images", "annotations", "image_id", "file_name", "height", "width", "f", "c",
         "intrinsic", "keypoints", "keypoints_cam", "keypoints_img", "keypoints_vis", "bbox", "iscrowd", "category_id",
         "categories", "name")), inner, max_size=6),
    max_leaves=20,
)  # fmt: skip


@st.composite
def damaged(draw, good: bytes) -> bytes:
    """Any bytes, any JSON, or good bytes that are truncated, overwritten or shifted."""
    kind = draw(st.sampled_from(("bytes", "json", "cut", "flip", "insert", "value")))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "json":
        return json.dumps(draw(JSON)).encode()
    at = draw(st.integers(0, len(good) - 1))
    if kind == "cut":
        return good[:at]
    some = draw(st.binary(min_size=1, max_size=8))
    if kind == "value":  # a number becomes another value
        text = good.decode("latin1")
        at = text.find(" ", at)
        end = min((i for i in (text.find(c, at + 1) for c in ",]}") if i > 0), default=len(text))
        value = draw(
            st.sampled_from(("1e999", "NaN", "-1", '"x"', "null", "[]", "{}", "1e300", "true", "99999999999999999999"))
        )
        return (text[: at + 1] + value + text[end:]).encode("latin1") if at > 0 else good
    return good[:at] + some + good[at + (len(some) if kind == "flip" else 0) :]


# The time to draw an example depends on the load of the machine.
SLOW_ALLOWED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
MANY = settings(max_examples=100, deadline=None, suppress_health_check=SLOW_ALLOWED)
GOOD_POSE = json.dumps({"version": 0.7, "bodies": [body(0), body(3, 60, 40)]}).encode()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A sequence of 8 frames seen by two cameras; every second one is taken."""
    return write_panoptic(tmp_path_factory.mktemp("whole"), SEQUENCE, frames=range(8))


def all_frames(chunks, records) -> list[Record | DroppedFrame]:
    """Every frame of a source as the converter sees it."""
    return [item for chunk in chunks for item in validated_frames(read_frames(chunk, records), None)]


@MANY
@given(damaged(GOOD_POSE))
def test_any_pose_file_gives_records_or_dropped_frames(whole, tmp_path_factory, content):
    root = Path(shutil.copytree(whole, tmp_path_factory.mktemp("fuzz") / "raw", copy_function=hard_link))
    pose(root, 2).unlink()
    pose(root, 2).write_bytes(content)
    found = all_frames(panoptic.chunks(root, "train")[:1], panoptic.records)
    shutil.rmtree(root)
    assert len(found) == 4
    for item in found:
        assert isinstance(item, Record) or item.reason.endswith((" unreadable", " refused"))
        assert isinstance(item, Record) or item.key.endswith("/00000002")


def hard_link(source, target):
    Path(target).hardlink_to(source)


@MANY
@given(damaged(GOOD_JPEG))
def test_any_image_file_gives_a_record_that_decodes_or_a_reason(whole, tmp_path_factory, content):
    root = Path(shutil.copytree(whole, tmp_path_factory.mktemp("fuzz") / "raw", copy_function=hard_link))
    image(root, 2).unlink()
    image(root, 2).write_bytes(content)
    found = all_frames(panoptic.chunks(root, "train")[:1], panoptic.records)
    shutil.rmtree(root)
    (item,) = (item for item in found if item.key.endswith("00000002"))
    if isinstance(item, DroppedFrame):
        assert item.reason in ("image damaged", "image size differs from annotation") and item.file and item.detail
        return
    assert item.image == content
    try:
        assert decode_image(item).shape == (HEIGHT, WIDTH, 3)
    except ValueError as error:
        assert item.key in str(error)


@pytest.mark.parametrize("name", ["muco", "mupots", "coco"])
def test_any_annotation_file_is_refused_or_read(name, tmp_path_factory):
    root = tmp_path_factory.mktemp(name)
    if name == "muco":
        write_muco(root, [f"unaugmented_set/{i}.jpg" for i in range(3)])
        module, path = muco, root / "MuCo-3DHP.json"
    elif name == "mupots":
        write_mupots(root, [f"TS1/img_{i:06d}.jpg" for i in range(3)])
        module, path = mupots, root / "MuPoTS-3D.json"
    else:
        path = write_coco(root)
        module = coco
    good = path.read_bytes()

    @MANY
    @given(damaged(good))
    def check(content):
        path.write_bytes(content)
        try:
            chunks = [s for split in ("train", "test") for s in module.chunks(root, split)]
            found = all_frames(chunks, module.records)
        except ValueError as error:
            assert path.name in str(error) or f"{name}/t" in str(error), error
        else:
            assert len(found) == sum(len(s.frames) for s in chunks)
            assert all(isinstance(item, Record) or item.reason for item in found)

    check()
