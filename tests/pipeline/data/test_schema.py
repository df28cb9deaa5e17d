"""The row: round trips, and every fault named by file, key and column."""

import hashlib
import io
import re
from dataclasses import fields, replace

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das.skeleton import COCO17, COCO19, MUPOTS17, SKELETONS, skeleton_named
from pipeline.data import schema
from pipeline.data.encoded_image import image_size
from pipeline.data.record import Record, decode_image, key_of, to_sample
from pipeline.data.schema import COLUMNS, SCHEMA, check_schema, from_row, to_row, to_table
from pipeline.data.validate_record import validate

HEIGHT, WIDTH = 48, 64


def encoded(height: int = HEIGHT, width: int = WIDTH, suffix: str = ".jpg") -> bytes:
    pixels = np.random.default_rng(height * width).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def record(skeleton=MUPOTS17, people: int = 2, seed: int = 0, in_3d: bool = True, extras: bool = True) -> Record:
    """A record of plausible people; extras fills the columns that few sources have."""
    rng = np.random.default_rng(seed)
    n, j = people, len(skeleton)
    image = encoded()
    cam = (rng.normal(0, 400, (n, j, 3)) + (0, 0, 4000)).astype(np.float32)
    corner = rng.uniform(0, 30, (n, 2)).astype(np.float32)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return Record(
        key=key_of("source", "sequence", "00_16", 7),
        source="source",
        sequence="sequence",
        camera="00_16",
        frame=7,
        split="train",
        activity="haggling",
        skeleton=skeleton.name,
        image=image,
        image_sha256=hashlib.sha256(image).hexdigest(),
        height=HEIGHT,
        width=WIDTH,
        K=np.array([[70.0, 0, 32], [0, 71, 24], [0, 0, 1]]) if in_3d else None,
        distortion=rng.normal(0, 0.1, 5) if extras else None,
        R=turn * np.sign(np.linalg.det(turn)) if extras else None,
        t_mm=rng.normal(0, 1000, 3) if extras else None,
        person_id=rng.integers(0, 2**40, n),
        joints_uv=rng.uniform(0, 40, (n, j, 2)).astype(np.float32),
        joints_cam=cam if in_3d else None,
        joints_cam_univ=(cam * 1.1).astype(np.float32) if in_3d and extras else None,
        confidence=rng.uniform(-1, 1, (n, j)).astype(np.float32) if extras else None,
        state=rng.integers(0, 3, (n, j)).astype(np.uint8),
        bbox=np.concatenate([corner, corner + 9], axis=1),
        ignore=rng.random(n) < 0.3,
        valid=rng.random(n) < 0.7,
    )


def assert_equal(a: Record, b: Record) -> None:
    for field in fields(Record):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y), field.name
        else:
            assert type(x) is type(y) and x == y, field.name


records = st.builds(
    record,
    st.sampled_from(list(SKELETONS.values())),
    st.integers(0, 4),
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(records)
def test_a_record_survives_parquet_bit_by_bit(original):
    file = io.BytesIO()
    pq.write_table(to_table([original, original]), file)
    table = pq.read_table(file)
    assert table.schema.equals(SCHEMA) and table.schema.metadata == SCHEMA.metadata
    for row in table.to_pylist():
        assert_equal(original, from_row(row))


@settings(max_examples=40, deadline=None)
@given(records)
def test_a_record_survives_rows_of_numpy_values(original):
    # What Ray Data hands over: scalars and nested arrays of NumPy, ragged ones as objects.
    row = {}
    for name, value in to_row(original).items():
        if isinstance(value, list):
            value = np.array([np.array(v) if isinstance(v, list) else v for v in value])
        row[name] = np.int64(value) if isinstance(value, int) else value
    assert_equal(original, from_row(row))


def test_a_row_without_its_image_is_read_with_empty_bytes():
    row = to_row(record())
    del row["image"]
    assert from_row(row).image == b""
    row["image"] = b""
    with pytest.raises(ValueError, match="column image"):
        from_row(row)


def test_the_schema_is_the_record():
    assert SCHEMA.names == [f.name for f in fields(Record)]
    assert SCHEMA.metadata[b"schema_version"] == b"2"
    assert not any(isinstance(field.type, pa.ExtensionType) for field in SCHEMA)


def test_describe_prints_every_column_with_its_unit():
    text = schema.describe()
    for column in COLUMNS:
        (line,) = [line for line in text.splitlines() if line.startswith(column.name + " ")]
        assert column.unit in line and column.meaning in line and ("null" in line) == column.nullable


def test_the_content_hash_sees_every_field_but_not_where_it_was_computed():
    a = record()
    assert a.content_hash() == record().content_hash()
    changes = {
        "split": "val", "frame": 8, "K": a.K * 1.000001, "joints_cam": None, "state": a.state ^ 1,
        "image_sha256": "0" * 64, "valid": ~a.valid, "person_id": a.person_id + 1,
    }  # fmt: skip
    hashes = {replace(a, **{name: value}).content_hash() for name, value in changes.items()}
    assert len(hashes | {a.content_hash()}) == len(changes) + 1


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
def test_a_fault_is_refused_by_file_key_and_column(name):
    column, change, reason = FAULTS[name]
    bad = changed(column, change)
    with pytest.raises(ValueError, match=reason) as caught:
        to_table([bad], "shard-00000.parquet")
    message = str(caught.value)
    assert message.startswith(f"shard-00000.parquet: {bad.key}: column ")
    assert "found" in message and "wanted" in message and "\n" not in message
    # Extrinsics are one fault of two columns, as are 3D joints and their camera; sizes are judged together.
    assert f"column {column}:" in message or name == "half of the extrinsics"


ROW_FAULTS = {
    "no such column": lambda row: row.pop("bbox"),
    "text for numbers": lambda row: row.update(bbox=[["a", "b", "c", "d"]] * 2),
    "a number for a list": lambda row: row.update(bbox=3.0),
    "a short list": lambda row: row.update(bbox=[[1.0, 2.0, 3.0]] * 2),
    "a person too few": lambda row: row.update(bbox=row["bbox"][:1]),
    "fractions for states": lambda row: row.update(state=[[0.5] * 17] * 2),
    "numbers for flags": lambda row: row.update(valid=[2, 3]),
    "a null person": lambda row: row.update(bbox=[None, None]),
}


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_a_row_of_wrong_types_is_refused_by_its_column(name):
    row = to_row(record())
    before = dict(row)
    ROW_FAULTS[name](row)
    (column,) = [c for c in SCHEMA.names if c not in row or row[c] is not before[c]]
    with pytest.raises(ValueError, match=re.escape(f"f.parquet: {before['key']}: column {column}: found ")):
        from_row(row, "f.parquet")


def test_joints_without_label_may_lie_anywhere():
    a = replace(record(seed=3), state=np.zeros((2, 17), np.uint8))
    validate(replace(a, joints_cam=-a.joints_cam))


def test_a_face_alone_does_not_look_like_centimetres():
    state = np.zeros((1, 19), np.uint8)
    state[0, [COCO19.index(j) for j in ("nose", "l_eye", "r_eye", "l_ear", "r_ear")]] = 2
    cam = np.full((1, 19, 3), 2000, np.float32) + np.arange(19, dtype=np.float32)[None, :, None]
    validate(replace(record(COCO19, people=1, extras=False), state=state, joints_cam=cam))


def other_version(s):
    return s.with_metadata({**s.metadata, b"schema_version": b"9"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_version, "f.parquet: schema version 9, wanted 1 or 2"),
        (lambda s: s.remove_metadata(), "f.parquet: schema version none, wanted 1 or 2"),
        (lambda s: s.remove(s.get_field_index("state")), "f.parquet: column state is missing"),
        (
            lambda s: s.set(s.get_field_index("frame"), pa.field("frame", pa.int32())),
            "f.parquet: column frame has type int32, wanted int64",
        ),
    ],
)
def test_a_file_of_another_schema_is_refused(change, reason):
    check_schema(SCHEMA, "f.parquet")
    with pytest.raises(ValueError, match=reason):
        check_schema(change(SCHEMA), "f.parquet")


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([".jpg", ".png"]), st.booleans())
def test_the_header_gives_the_size_that_decoding_gives(height, width, suffix, progressive):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)] if suffix == ".jpg" else []
    data = cv2.imencode(suffix, pixels, options)[1].tobytes()
    assert image_size(data) == (height, width)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_have_a_size_or_are_refused(data, start):
    try:
        height, width = image_size(start + data)
    except ValueError:
        return
    assert height >= 0 and width >= 0


def test_to_sample_decodes_rgb_as_stored_whatever_the_orientation_tag_says():
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 2] = 250  # red, in OpenCV's order
    data = cv2.imencode(".jpg", pixels)[1].tobytes()
    # EXIF with one tag: orientation 6, "turn by 90 degrees".
    tag = b"\x00\x01" + b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00" + b"\x00" * 4
    exif = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08" + tag
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (WIDTH, HEIGHT)
    a = replace(record(), image=turned, image_sha256=hashlib.sha256(turned).hexdigest())
    validate(a)
    image = to_sample(a)[0].image
    assert image.shape == (HEIGHT, WIDTH, 3) and image[..., 0].min() > 240 and image[..., 1:].max() < 10


def test_to_sample_leaves_out_who_cannot_be_used_and_counts_the_reasons():
    state = np.full((5, 17), 2, np.uint8)
    state[3, MUPOTS17.index("pelvis")] = 0
    a = replace(
        record(people=5),
        state=state,
        ignore=np.array([True, False, False, False, False]),
        valid=np.array([True, False, True, True, True]),
    )
    sample, left_out = to_sample(a)
    assert left_out == {"ignored": 1, "invalid": 1, "root unlabelled": 1}
    assert np.array_equal(sample.joints_uv, a.joints_uv[[2, 4]])
    assert np.array_equal(sample.joints_depth, a.joints_cam[[2, 4], :, 2])
    assert np.array_equal(sample.root_uv, a.joints_uv[[2, 4], 14])
    assert np.array_equal(sample.root_depth, a.joints_cam[[2, 4], 14, 2])
    assert sample.has_depth.all() and sample.key == a.key and np.array_equal(sample.K, a.K)


def test_a_joint_is_visible_when_it_is_labelled_and_inside_the_image():
    uv = np.full((1, 17, 2), 20, np.float32)
    uv[0, :6] = [(-0.6, 20), (-0.4, 20), (WIDTH - 0.6, 20), (WIDTH - 0.4, 20), (20, HEIGHT - 0.4), (20, -3)]
    state = np.full((1, 17), 1, np.uint8)  # occluded ones are labelled
    state[0, 8] = 0
    a = replace(record(people=1), joints_uv=uv, state=state, ignore=np.zeros(1, bool), valid=np.ones(1, bool))
    visible = to_sample(a)[0].visible[0]
    assert np.flatnonzero(~visible).tolist() == [0, 3, 4, 5, 8]


def test_a_photo_without_camera_has_an_assumed_one_and_no_depth():
    state = np.full((2, 17), 2, np.uint8)
    state[1, COCO17.index("r_hip")] = 0
    a = replace(
        record(COCO17, in_3d=False, extras=False),
        state=state,
        ignore=np.zeros(2, bool),
        valid=np.ones(2, bool),
    )
    sample, left_out = to_sample(a)
    assert left_out == {"root unlabelled": 1}
    assert not sample.has_depth.any() and (sample.root_depth == 0).all()
    hips = [COCO17.index("l_hip"), COCO17.index("r_hip")]
    assert np.allclose(sample.root_uv[0], a.joints_uv[0, hips].mean(axis=0))
    assert sample.K[0, 0] == pytest.approx(WIDTH / 2 / np.tan(np.radians(30)))


def test_an_image_without_people_is_a_sample():
    sample, left_out = to_sample(record(skeleton_named("muco21"), people=0))
    assert sample.visible.shape == (0, 21) and not left_out


def test_a_damaged_image_is_refused_by_its_key():
    whole = record()
    for image in (whole.image[:200], b"", whole.image[:60] + b"\xff\xd9", encoded(40, 64)):
        with pytest.raises(ValueError, match=f"^{whole.key}: image"):
            decode_image(replace(whole, image=image))


def test_a_record_has_the_columns_of_the_schema_in_their_order_and_the_same_may_be_absent():
    assert [f.name for f in fields(Record)] == [c.name for c in COLUMNS]
    assert {f.name for f in fields(Record) if "None" in str(f.type)} == {c.name for c in COLUMNS if c.nullable}


def test_an_image_whose_header_says_another_size_than_the_row_is_refused_before_memory_is_taken_for_it(monkeypatch):
    large = replace(record(), image=encoded(2 * HEIGHT, WIDTH))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=f"image decodes to {WIDTH}x{2 * HEIGHT} pixels, wanted {WIDTH}x{HEIGHT}"):
        decode_image(large)
