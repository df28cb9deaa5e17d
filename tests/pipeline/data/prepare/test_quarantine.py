"""Planted faults: each is a named and counted entry in quarantine, or refuses the whole conversion."""

import errno
import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest

from das.skeleton import MPI15
from pipeline.data.manifest import QUARANTINE, load_manifest
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import convert
from pipeline.data.shards import list_shards, read_records
from pipeline.data.sources import panoptic
from pipeline.data.sources.base import DroppedFrame
from pipeline.data.sources.panoptic import SPLITS as PANOPTIC
from pipeline.evaluation.annotations import read_annotations
from pipeline.infra.columns import read_columns
from tests.pipeline.data.original_layouts import (
    COCO_PERSON,
    HEIGHT,
    WIDTH,
    body,
    jpeg,
    write_custom,
    write_muco,
    write_mupots,
    write_panoptic,
)
from tests.pipeline.data.videos import write_video

GOOD_JPEG = jpeg(HEIGHT, WIDTH)
SEQUENCE = "160224_mafia1"
POSES = f"{SEQUENCE}/hdPose3d_stage1_coco19"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A sequence of 8 frames seen by two cameras; every second one is converted."""
    return write_panoptic(tmp_path_factory.mktemp("whole"), SEQUENCE, frames=range(8))


@pytest.fixture
def raw(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "raw"))


def pose(raw: Path, frame: int) -> Path:
    return raw / POSES / f"body3DScene_{frame:08d}.json"


def image(raw: Path, frame: int, camera: str = "00_16") -> Path:
    return raw / SEQUENCE / "hdImgs" / camera / f"{camera}_{frame:08d}.jpg"


def edit_pose(raw: Path, frame: int, bodies) -> None:
    pose(raw, frame).write_text(json.dumps({"version": 0.7, "bodies": bodies}))


def with_nan(raw):
    person = body(0)
    person["joints19"][5] = float("nan")
    edit_pose(raw, 2, [person])


def without_images(raw):
    shutil.rmtree(raw / SEQUENCE / "hdImgs" / "00_30")


def in_metres(raw):
    person = body(0)
    person["joints19"] = [x / 100 if i % 4 < 3 else x for i, x in enumerate(person["joints19"])]
    edit_pose(raw, 2, [person])


def replace_by(path, make):
    path.unlink()
    make(path)


def video_for_images(raw, frames, camera="00_16") -> Path:
    shutil.rmtree(raw / SEQUENCE / "hdImgs" / camera)
    return write_video(raw / SEQUENCE / "hdVideos" / f"hd_{camera}.mp4", frames)


# Fault -> how it is planted, and the expected counts of the quarantine. Frame 2 is seen by two cameras.
PLANTED = {
    "truncated JPEG": (lambda raw: image(raw, 2).write_bytes(image(raw, 2).read_bytes()[:900]), {"image damaged": 1}),
    "empty JPEG": (lambda raw: image(raw, 2).write_bytes(b""), {"image damaged": 1}),
    "no JPEG at all": (lambda raw: image(raw, 2).write_bytes(b"<html>404"), {"image damaged": 1}),
    "JPEG without its image": (lambda raw: image(raw, 2).write_bytes(b"\xff\xd8\xff\xd9"), {"image damaged": 1}),
    "image of another size": (
        lambda raw: image(raw, 2).write_bytes(jpeg(90, 160)),
        {"image size differs from annotation": 1},
    ),
    "image missing": (lambda raw: image(raw, 2).unlink(), {"image missing": 1}),
    "link to nothing": (
        lambda raw: replace_by(image(raw, 2), lambda path: path.symlink_to("nothing")),
        {"image missing": 1},
    ),
    "link in a circle": (
        lambda raw: replace_by(image(raw, 2), lambda path: path.symlink_to(path)),
        {"image unreadable": 1},
    ),
    "folder for an image": (lambda raw: replace_by(image(raw, 2), Path.mkdir), {"image unreadable": 1}),
    "folder for a pose file": (lambda raw: replace_by(pose(raw, 2), Path.mkdir), {"annotation unreadable": 2}),
    "pose file that links to nothing": (
        lambda raw: replace_by(pose(raw, 2), lambda path: path.symlink_to("nothing")),
        {"annotation unreadable": 2},
    ),
    "camera without images": (without_images, {"image missing": 4}),
    "video that ends before its poses": (lambda raw: video_for_images(raw, 5), {"image missing": 1}),
    "video that is cut off": (lambda raw: os.truncate(video_for_images(raw, 8), 900), {"image damaged": 4}),
    "zero-byte JSON": (lambda raw: pose(raw, 2).write_bytes(b""), {"annotation unreadable": 2}),
    "cut JSON": (lambda raw: pose(raw, 2).write_bytes(pose(raw, 2).read_bytes()[:99]), {"annotation unreadable": 2}),
    "bytes that are no text": (lambda raw: pose(raw, 2).write_bytes(b"\xff\xfe\x00{"), {"annotation unreadable": 2}),
    "endless nesting": (lambda raw: pose(raw, 2).write_bytes(b"[" * 200_000), {"annotation unreadable": 2}),
    "NaN joint": (with_nan, {"annotation unreadable": 2}),
    "foreign joint count": (
        lambda raw: edit_pose(raw, 2, [{"id": 0, "joints19": body(0, skeleton=MPI15)["joints15"]}]),
        {"annotation unreadable": 2},
    ),
    "joints of another set": (lambda raw: edit_pose(raw, 2, [body(0, skeleton=MPI15)]), {"annotation unreadable": 2}),
    "endless person id": (lambda raw: edit_pose(raw, 2, [{**body(0), "id": 1e999}]), {"annotation unreadable": 2}),
    "metres for centimetres": (in_metres, {"joints_cam refused": 2}),
    "two faulty frames": (
        lambda raw: (pose(raw, 2).write_bytes(b""), pose(raw, 4).write_bytes(b"[]")),
        {"annotation unreadable": 4},
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_a_counted_entry_and_fails_the_conversion(raw, tmp_path, inline, fault):
    plant, counted = PLANTED[fault]
    plant(raw)
    out = tmp_path / "out"
    n = sum(counted.values())
    (reason,) = counted
    with pytest.raises(ValueError, match=f"panoptic: {n} frames in quarantine: {n} x {reason}") as caught:
        convert(ConvertConfig("panoptic", str(raw), str(out)))
    message = str(caught.value)
    assert "\n" not in message and str(out / QUARANTINE) in message and "--allow-missing" in message
    assert all(message.count(key) <= 1 for key in read_columns(out / QUARANTINE)["key"]), message
    assert not (out / "manifest.json").exists()
    before = read_columns(out / QUARANTINE)
    assert len(before["key"]) == n and set(before["reason"]) == {reason}
    assert all(key.startswith(f"panoptic/{SEQUENCE}/00_") for key in before["key"])
    if reason.startswith("image"):
        assert all(
            (raw / file).relative_to(raw / SEQUENCE).parts[0] in ("hdImgs", "hdVideos") for file in before["file"]
        )
    else:
        assert all(before["detail"]) and not any(str(raw) in detail for detail in before["detail"])
    if reason == "annotation unreadable":
        assert all((raw / file).parent == raw / POSES for file in before["file"])

    manifest = convert(ConvertConfig("panoptic", str(raw), str(out), allow_missing=True))
    assert manifest.quarantine == counted and manifest.splits["train"].images == 8 - n
    assert read_columns(out / QUARANTINE) == before and manifest == load_manifest(str(out))
    kept = [r.key for shard in list_shards(out, "train") for r in read_records(shard)]
    assert len(kept) == 8 - n and not set(kept) & set(before["key"])
    assert f"in quarantine {n}: {reason}" in manifest.summary()
    # Without the flag, an incomplete folder must not pass for a complete one.
    with pytest.raises(ValueError, match="was converted with --allow-missing and lacks frames"):
        convert(ConvertConfig("panoptic", str(raw), str(out)))


def test_an_image_without_its_pose_file_is_an_entry_unless_it_is_before_or_after_all_poses(raw, tmp_path, inline):
    for frame in (0, 5, 7):  # poses begin after the cameras do, and end before them
        pose(raw, frame).unlink()
    out = tmp_path / "out"
    with pytest.raises(
        ValueError, match="2 frames in quarantine: 2 x image without annotation, such as .*_00000005.jpg: no"
    ):
        convert(ConvertConfig("panoptic", str(raw), str(out)))
    manifest = convert(ConvertConfig("panoptic", str(raw), str(out), allow_missing=True))
    assert manifest.quarantine == {"image without annotation": 2}
    entries = read_columns(out / QUARANTINE)
    assert entries["key"] == [f"panoptic/{SEQUENCE}/{camera}/00000005" for camera in ("00_16", "00_30")]
    assert [raw / file for file in entries["file"]] == [image(raw, 5, camera) for camera in ("00_16", "00_30")]
    assert entries["split"] == ["train"] * 2 and "body3DScene_00000005.json" in entries["detail"][0]


def test_a_missing_pose_file_is_an_entry_for_a_video_too(raw, tmp_path, inline):
    video = video_for_images(raw, 8)
    for frame in (0, 5, 7):
        pose(raw, frame).unlink()
    manifest = convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "out"), allow_missing=True))
    assert manifest.quarantine == {"image without annotation": 2}
    entries = read_columns(tmp_path / "out" / QUARANTINE)
    assert entries["key"] == [f"panoptic/{SEQUENCE}/{camera}/00000005" for camera in ("00_16", "00_30")]
    assert [raw / file for file in entries["file"]] == [video, image(raw, 5, "00_30")]


def test_images_are_read_in_place_of_a_video_and_that_is_printed(raw, tmp_path, inline, capsys):
    without = convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "without")))
    assert "video" not in capsys.readouterr().out
    write_video(raw / SEQUENCE / "hdVideos" / "hd_00_16.mp4", 8)
    both = convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "both")))
    assert f"panoptic: {SEQUENCE}: images of camera 00_16 are read, its video is not\n" in capsys.readouterr().out
    assert both.fingerprint == without.fingerprint


def test_a_mended_fault_leaves_no_trace_in_the_prepared_folder(raw, whole, tmp_path, inline):
    image(raw, 2).write_bytes(b"")
    with pytest.raises(ValueError, match="1 frames in quarantine"):
        convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "out")))
    shutil.copy(image(whole, 2), image(raw, 2))
    convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "out")))
    convert(ConvertConfig("panoptic", str(whole), str(tmp_path / "never")))
    found, wanted = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
                     for f in (tmp_path / "out", tmp_path / "never"))  # fmt: skip
    assert found == wanted


REFUSED = {
    "missing calibration": (
        lambda raw: (raw / SEQUENCE / f"calibration_{SEQUENCE}.json").unlink(),
        f"panoptic: calibration of {SEQUENCE}: no file .*calibration_",
    ),
    "zero-byte calibration": (
        lambda raw: (raw / SEQUENCE / f"calibration_{SEQUENCE}.json").write_bytes(b""),
        f"calibration_{SEQUENCE}.json: not JSON",
    ),
    "calibration without the camera": (
        lambda raw: (raw / SEQUENCE / f"calibration_{SEQUENCE}.json").write_text('{"cameras": []}'),
        f"calibration_{SEQUENCE}.json: no camera '00_16'",
    ),
    "no pose files": (
        lambda raw: [p.unlink() for p in (raw / POSES).iterdir()],
        "panoptic: no body3DScene_.*json in .*coco19",
    ),
    "folder for a calibration": (
        lambda raw: replace_by(raw / SEQUENCE / f"calibration_{SEQUENCE}.json", Path.mkdir),
        f"panoptic: calibration of {SEQUENCE}: no file .*calibration_",
    ),
    "file for the pose files": (
        lambda raw: (shutil.rmtree(raw / POSES), (raw / POSES).write_text("")),
        f"panoptic: no pose folder .* in .*{SEQUENCE}",
    ),
    "terms that link to nothing": (
        lambda raw: (raw / "terms.txt").symlink_to("nothing"),
        "terms.txt: No such file or directory, wanted the terms of these data",
    ),
    "no images at all": (lambda raw: shutil.rmtree(raw / SEQUENCE / "hdImgs"), "gives no image: 8 x image missing"),
}


@pytest.mark.parametrize("mistake", REFUSED)
@pytest.mark.parametrize("allow_missing", [False, True])
def test_a_fault_of_the_whole_source_is_refused_and_leaves_no_file(raw, tmp_path, inline, mistake, allow_missing):
    plant, reason = REFUSED[mistake]
    plant(raw)
    with pytest.raises(ValueError, match=reason) as caught:
        convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "out"), allow_missing=allow_missing))
    assert "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_files_that_cannot_be_read_or_are_deleted_meanwhile_are_entries(raw, tmp_path, inline, monkeypatch):
    opened = Path.open

    def refused(path, *arguments, **named):
        if path == image(raw, 2):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        if path == image(raw, 4, "00_30"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        if path == pose(raw, 0):
            path.unlink(missing_ok=True)
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refused)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="4 frames in quarantine: 2 x annotation unreadable"):
        convert(ConvertConfig("panoptic", str(raw), str(out)))
    found = read_columns(out / QUARANTINE)
    assert list(zip(found["file"], found["reason"], found["detail"], strict=True)) == [
        (str(pose(raw, 0).relative_to(raw)), "annotation unreadable", "no such file"),
        (str(image(raw, 2).relative_to(raw)), "image unreadable", "Permission denied"),
        (str(pose(raw, 0).relative_to(raw)), "annotation unreadable", "no such file"),
        (str(image(raw, 4, "00_30").relative_to(raw)), "image unreadable", "Input/output error"),
    ]


def test_a_folder_that_cannot_be_listed_is_refused_in_one_line(raw, tmp_path, inline, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(ValueError, match=f"panoptic: .*{POSES}: Permission denied") as caught:
        convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "out")))
    assert "\n" not in str(caught.value)


def test_faults_in_coco_like_files_are_entries_of_the_image_concerned(tmp_path, inline):
    names = [f"unaugmented_set/{i}.jpg" for i in range(100)]  # the last two are val
    far = [[0.0, 0.0, -3000.0]] * 21
    faults = {3: {"keypoints_cam": far}, 5: {"keypoints_img": [[0, 0]] * 17}, 7: {"bbox": [0, 0, None, 5]}}
    root = write_muco(tmp_path / "muco", names, faults)
    (root / names[9]).unlink()
    manifest = convert(ConvertConfig("muco", str(root), str(tmp_path / "out"), allow_missing=True))
    assert manifest.quarantine == {"annotation unreadable": 2, "image missing": 1, "joints_cam refused": 1}
    entries = read_columns(tmp_path / "out" / QUARANTINE)
    found = {key[-3:]: detail for key, detail in zip(entries["key"], entries["detail"], strict=True)}
    assert "depth -3000" in found["003"] and "entry 5: keypoints_img" in found["005"] and "bbox" in found["007"]


# Faults in one entry of Moon's file: the list that holds the entry, its changed fields, and the detail in quarantine.
WRONG_FIELDS = [
    ("annotations", {"keypoints_cam": None}, "keypoints_cam: found size 1, wanted numbers of shape"),
    ("annotations", {"keypoints_cam": ...}, "keypoints_cam: found nothing, wanted numbers of shape"),
    ("annotations", {"keypoints_cam": [[0, 0, "3000"]] * 17}, "keypoints_cam: found values that are no numbers"),
    ("annotations", {"keypoints_cam": [[0.0, 0.0, 3000.0]] * 16}, "keypoints_cam: found size 48"),
    ("annotations", {"keypoints_cam": [[0.0] * 17] * 3}, r"keypoints_cam: found shape \(3, 17\)"),
    ("annotations", {"keypoints_cam": [[0.0, 3000.0]] + [[0.0] * 3] * 16}, "keypoints_cam: found lists of different"),
    ("annotations", {"keypoints_img": [[float("inf"), 0.0]] * 17}, "keypoints_img: found NaN or infinity"),
    ("annotations", {"keypoints_vis": ["true"] * 17}, "keypoints_vis: found values that are no numbers"),
    ("annotations", {"bbox": [1, 2, 3]}, "bbox: found size 3"),
    ("annotations", {"is_valid": "yes"}, "is_valid: found 'yes', wanted 0 or 1"),
    ("images", {"width": ...}, "width: found nothing, wanted a whole number"),
    ("images", {"height": "180"}, "height: found '180', wanted a whole number"),
    ("images", {"intrinsic": [300, 300, 160]}, "intrinsic: found size 3"),
]


def changed(path: Path, entries: str, place: int, change: dict) -> None:
    """Rewrites a COCO-like file with fields of one entry changed, or removed where the value is ``...``."""
    content = json.loads(path.read_text())
    entry = {**content[entries][place], **change}
    content[entries][place] = {name: value for name, value in entry.items() if value is not ...}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("entries", "change", "found"), WRONG_FIELDS, ids=[found[:30] for _, _, found in WRONG_FIELDS])
def test_a_wrong_field_of_moons_file_is_an_entry_that_names_file_record_and_field(
    tmp_path, inline, entries, change, found
):
    root = write_mupots(tmp_path / "raw", [f"TS1/img_{i:06d}.jpg" for i in range(3)])
    place = 2 if entries == "annotations" else 1
    changed(root / "MuPoTS-3D.json", entries, place, change)
    manifest = convert(ConvertConfig("mupots", str(root), str(tmp_path / "out"), allow_missing=True))
    assert manifest.quarantine == {"annotation unreadable": 1} and manifest.splits["test"].images == 2
    entry = read_columns(tmp_path / "out" / QUARANTINE)
    assert (entry["key"], entry["file"]) == (["mupots/TS1/0/00000001"], ["MuPoTS-3D.json"])
    assert re.match(f"entry {place}: {found}", entry["detail"][0])


COCO_FIELDS = [
    ({"keypoints": [9, 9, 2] * 16}, "keypoints: found size 48"),
    ({"keypoints": [9, 9, 3] * 17}, r"keypoints: found v = \[3.0\], wanted 0, 1 or 2"),
    ({"keypoints": [9, 9, None] * 17}, "keypoints: found values that are no numbers"),
    ({"bbox": ...}, "bbox: found nothing"),
    ({"iscrowd": 2}, "iscrowd: found 2, wanted 0 or 1"),
]


def write_coco(root: Path) -> Path:
    """Three photos of one person each, in COCO's layout; the annotation file."""
    photos = [{"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(3)]
    kept = {"category_id": 1, "iscrowd": 0, "bbox": [1, 2, 30, 40], "keypoints": [9, 9, 2] * 17}
    people = [{"id": 10 + i, "image_id": i, **kept} for i in range(3)]
    for folder in ("annotations", "train2017"):
        (root / folder).mkdir(parents=True)
    for photo in photos:
        (root / "train2017" / photo["file_name"]).write_bytes(GOOD_JPEG)
    path = root / "annotations" / "person_keypoints_train2017.json"
    path.write_text(json.dumps({"images": photos, "annotations": people, "categories": [COCO_PERSON]}))
    return path


@pytest.mark.parametrize(("change", "found"), COCO_FIELDS, ids=[found[:30] for _, found in COCO_FIELDS])
def test_a_wrong_field_of_cocos_file_is_an_entry_that_names_file_record_and_field(tmp_path, inline, change, found):
    path = write_coco(tmp_path / "raw")
    changed(path, "annotations", 1, change)
    manifest = convert(ConvertConfig("coco", str(tmp_path / "raw"), str(tmp_path / "out"), allow_missing=True))
    assert manifest.quarantine == {"annotation unreadable": 1} and manifest.splits["train"].images == 2
    entry = read_columns(tmp_path / "out" / QUARANTINE)
    assert entry["key"] == ["coco/train2017/unknown/00000001"] and entry["file"] == [f"annotations/{path.name}"]
    assert re.match(f"entry 11: {found}", entry["detail"][0])


def test_a_size_that_differs_from_the_image_is_an_entry_with_both_sizes(tmp_path, inline):
    path = write_coco(tmp_path / "raw")
    changed(path, "images", 1, {"width": HEIGHT, "height": WIDTH})
    manifest = convert(ConvertConfig("coco", str(tmp_path / "raw"), str(tmp_path / "out"), allow_missing=True))
    assert manifest.quarantine == {"image size differs from annotation": 1}
    entry = read_columns(tmp_path / "out" / QUARANTINE)
    assert entry["file"] == ["train2017/000000000001.jpg"]
    assert entry["detail"] == [f"found {WIDTH}x{HEIGHT} pixels, wanted {HEIGHT}x{WIDTH}"]


@pytest.mark.parametrize(
    ("entries", "change", "found"),
    [
        ("annotations", {"image_id": 99}, "entry 11: image_id: found 99, wanted the id of one of the images"),
        ("annotations", {"image_id": ...}, "entry 11: image_id: found nothing, wanted a whole number"),
        ("annotations", {"category_id": "1"}, "entry 11: category_id: found '1', wanted a whole number"),
        ("annotations", {"id": ...}, r"annotations\[1\]: id: found nothing, wanted a whole number from 0"),
        ("annotations", {"id": 12}, "3 annotations share 2 ids, wanted one for each"),
        ("images", {"id": "1"}, r"images\[1\]: id: found '1', wanted a whole number from 0"),
        ("images", {"id": 2}, "3 images share 2 ids and 3 file names"),
        ("images", {"file_name": ...}, "entry 1: file_name: found nothing, wanted the name of a file"),
        ("categories", {"name": "dog"}, "categories: found 0 with an id and the name person, wanted one"),
        ("categories", {"keypoints": ...}, "categories: keypoints of person: found None, wanted nose, "),
    ],
)
def test_an_entry_that_belongs_to_no_image_refuses_the_file_naming_entry_and_field(
    tmp_path, inline, entries, change, found
):
    path = write_coco(tmp_path / "raw")
    changed(path, entries, 0 if entries == "categories" else 1, change)
    with pytest.raises(ValueError, match=f"{path}: {found}"):
        convert(ConvertConfig("coco", str(tmp_path / "raw"), str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_an_image_named_twice_and_a_broken_annotation_file_are_refused(tmp_path, inline):
    root = write_mupots(tmp_path / "twice", ["TS1/img_000000.jpg", "TS1/img_000000.jpg"])
    with pytest.raises(ValueError, match="MuPoTS-3D.json: 2 images share 2 ids and 1 file names"):
        convert(ConvertConfig("mupots", str(root), str(tmp_path / "out")))
    (root / "MuPoTS-3D.json").write_bytes(b"")
    with pytest.raises(ValueError, match="MuPoTS-3D.json: not JSON"):
        convert(ConvertConfig("mupots", str(root), str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_some_sequences_are_prepared_under_the_id_of_the_whole_split_when_others_are_broken(raw, tmp_path, inline):
    (raw / "160224_haggling1").mkdir()
    with pytest.raises(ValueError, match="calibration of 160224_haggling1: no file"):
        convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "all")))
    some = convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "some"), sequences=(SEQUENCE,)))
    assert some.split_manifest == PANOPTIC.id and some.splits["train"].sequences == {SEQUENCE: 8}
    (raw / "160224_haggling1").rmdir()
    every = convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "all")))
    assert every == some, "a sequence that is absent must count like one that is not selected"


def test_a_source_of_refused_rows_alone_says_of_each_reason_what_is_wrong(tmp_path, inline):
    root = tmp_path / "custom"
    lines = [json.loads(line) for line in write_custom(root, 3)]
    person = {"joints_uv": [[160, 90], [160, 40]], "joints_cam": [[0, 0, 3000], [0, -500, 3000]], "state": [2, 2]}
    for line in lines:
        line.update(K=[1500, 1500, 960, 540], people=[person])  # of a picture six times as wide
    (root / lines[2]["image"]).unlink()
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match="gives no image: ") as caught:
        convert(ConvertConfig("custom", str(root), str(tmp_path / "out")))
    message = str(caught.value)
    off = math.hypot(960 - 160, 540 - 90)  # of the hip; the head is 800 and 250 px off
    assert "2 x joints_uv refused, such as custom/train/0/00000000: " in message and f" {off:.1f} px" in message
    assert f"1 x image missing, such as {lines[2]['image']}" in message and "\n" not in message


def test_a_split_without_any_usable_frame_is_counted(raw, tmp_path, inline):
    write_panoptic(raw, "160224_mafia2", frames=range(2))
    shutil.rmtree(raw / "160224_mafia2" / "hdImgs")
    out = tmp_path / "out"
    manifest = convert(ConvertConfig("panoptic", str(raw), str(out), allow_missing=True))
    assert manifest.quarantine == {"image missing": 2} and manifest == load_manifest(str(out))
    val = manifest.splits["val"]
    assert (val.images, val.shards, val.quarantine) == (0, (), {"image missing": 2}) and list_shards(out, "val") == []
    with pytest.raises(ValueError, match="split 'val' holds no images"):
        read_annotations([str(out)], "val")


def test_frames_that_a_recipe_leaves_out_are_not_faults(raw, tmp_path, inline, monkeypatch):
    read = panoptic.records

    def fewer(chunk):
        for item in read(chunk):
            yield DroppedFrame(item.key, "one person", recipe=True) if item.frame == 4 else item

    monkeypatch.setattr(panoptic, "records", fewer)
    manifest = convert(ConvertConfig("panoptic", str(raw), str(tmp_path / "out")))
    info = manifest.splits["train"]
    assert (info.images, info.drops, info.quarantine) == (6, {"one person": 2}, {})
    assert not (tmp_path / "out" / QUARANTINE).exists() and "left out 2: one person" in manifest.summary()
