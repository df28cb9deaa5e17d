"""Links out of the root, pipes and files without an end, in place of any file of any source, and folders in a circle.

`das doctor data` still reports, and the conversion reads nothing of them.
"""

import os
import shutil

import cv2
import numpy as np
import pytest

from pipeline.data.catalog import CATALOG
from pipeline.data.check.listing import Tree
from pipeline.data.doctor import DoctorConfig, examine
from pipeline.data.prepare.frames import read_frames, validated_frames
from pipeline.data.record import Record
from tests.pipeline.data.check.test_damaged_data import CASES
from tests.pipeline.data.original_layouts import write_coco, write_panoptic
from tests.pipeline.data.videos import write_video


def link_out(path):
    root = next(folder for folder in path.parents if folder.name == "root")
    outside = root.with_name(f"outside{path.suffix}")
    shutil.move(path, outside)
    path.symlink_to(outside)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def endless(path):
    os.truncate(path, 1 << 40)


THERE = [case for case in CASES if case[2] not in ("studio.json", "intrinsics.json")]


@pytest.mark.parametrize("make", [link_out, pipe, device, endless])
@pytest.mark.parametrize("name, write, file", THERE, ids=[f"{name}-{file}" for name, _, file in THERE])
def test_a_file_that_must_not_be_opened_gives_no_row(name, write, file, make, tmp_path):
    source, root = name.split()[0], tmp_path / "root"
    write(root)
    make(root / file)
    finding = examine(source, DoctorConfig(str(root), decode_all=True))
    text = finding.text()
    assert not finding.inventory.complete and "\nnext: das " in text
    module = CATALOG[source].source
    said = ""
    found = []
    try:
        chunks = [chunk for split in ("train", "val", "test") for chunk in module.chunks(root, split)]
        found = [item for chunk in chunks for item in validated_frames(read_frames(chunk, module.records), None)]
    except (ValueError, OSError) as error:
        said = str(error)
    rows = [item for item in found if isinstance(item, Record)]
    said += " ".join(f"{item.file} {item.detail}" for item in found if not isinstance(item, Record))
    # Other images of the same data have their rows, unless a link leads out: that is refused while listing.
    one_frame = file.endswith(".jpg") or "body3D" in file
    assert bool(rows) == (
        one_frame and make in (pipe, endless) or "train2017/" not in file and "train2017" in file and make is pipe
    ), said
    wanted = {
        link_out: ("leads out of",),
        pipe: ("a pipe or device", "no file", "no such file", "no frame"),
        device: ("a pipe or device", "no file", "no such file", "leads out of"),
        endless: ("bytes, wanted at most", "a line of more than"),
    }
    assert not said or any(part in said for part in wanted[make]), said


def test_folders_that_lead_out_or_round_are_not_followed(tmp_path):
    root = write_coco(tmp_path / "root")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.jpg").write_bytes(b"x")
    photos = root / "train2017"
    (photos / "out").symlink_to(tmp_path / "other")
    for folder in ("a", "b", "c"):
        (photos / folder).mkdir()
        for other in ("a", "b", "c"):
            (photos / folder / f"to-{other}").symlink_to(photos / other)
    tree = Tree(root)
    assert tree.names("train2017/out") == [] and tree.links == ["train2017/out"]
    assert tree.folders("train2017/a/to-b") == ["to-a", "to-b", "to-c"] and tree.folders("train2017/a/to-b/to-a") == []
    report = examine("coco", DoctorConfig(str(root))).text()
    assert "train2017/out: a link out of the folder" in report and "secret" not in report


def test_a_link_to_the_root_itself_is_the_root(tmp_path):
    write_panoptic(tmp_path / "real", "160906_pizza1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    finding = examine("panoptic", DoctorConfig(str(tmp_path / "link"), sequences=("160906_pizza1",)))
    assert finding.inventory.ready == finding.inventory.wanted > 0


def test_videos_of_another_rate_are_refused_by_both_readers(tmp_path):
    root = write_panoptic(tmp_path / "root", "160906_pizza1", range(4))
    shutil.rmtree(root / "160906_pizza1" / "hdImgs")
    for camera in ("00_16", "00_30"):
        video = root / "160906_pizza1" / "hdVideos" / f"hd_{camera}.mp4"
        write_video(video, 3)
    config = DoctorConfig(str(root), sequences=("160906_pizza1",))
    finding = examine("panoptic", config)
    assert "hd_00_30.mp4 has 3 frames, its annotations go to frame 3: if only its end was cut" in finding.text()
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 180))
    for _ in range(4):
        writer.write(np.zeros((180, 320, 3), np.uint8))
    writer.release()
    finding = examine("panoptic", config)
    said = "hd_00_30.mp4: found 25 frames per second, wanted 29.97"
    assert said in finding.text() and [line.ready for line in finding.inventory.cameras] == [3, 0]
    with pytest.raises(ValueError, match=said):
        CATALOG["panoptic"].source.chunks(root, "test")
