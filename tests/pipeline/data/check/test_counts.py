"""What `das doctor data` counts as ready, missing and damaged agrees with the records that the source reads."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from pipeline.data.doctor import COMPLETE, NOTHING, PARTIAL, DoctorConfig, examine, recognised
from pipeline.data.prepare.frames import read_frames
from pipeline.data.record import Record
from pipeline.data.sources import mupots, panoptic
from pipeline.data.sources.base import DroppedFrame
from tests.pipeline.data.binary_layouts import write_mpi_arrays, write_mpi_original, write_mupots_mats
from tests.pipeline.data.doctor_cases import next_command, parsed, readable, report_on
from tests.pipeline.data.original_layouts import (
    HEIGHT,
    WIDTH,
    jpeg,
    write_coco,
    write_custom,
    write_muco,
    write_mupots,
    write_panoptic,
)
from tests.pipeline.data.test_encoded_image import tagged
from tests.pipeline.data.videos import write_video


@pytest.fixture
def partial(tmp_path) -> Path:
    """Some sequences of Panoptic, most of them with a fault."""
    names = ("160224_haggling1", "160224_mafia1", "160224_ultimatum1", "160224_mafia2", "160906_pizza1")
    for name in names:
        write_panoptic(tmp_path, name, range(6))
    write_panoptic(tmp_path, "171204_pose1", range(2))

    def image(sequence, frame, camera="00_16"):
        return tmp_path / sequence / "hdImgs" / camera / f"{camera}_{frame:08d}.jpg"

    image("160224_haggling1", 0).unlink()
    image("160224_haggling1", 2).write_bytes(b"")
    image("160224_haggling1", 4).write_bytes(jpeg(HEIGHT, WIDTH)[:-200])
    image("160224_haggling1", 1).unlink()  # every second frame is taken: this one is not reported
    image("160224_mafia1", 0).write_bytes(jpeg(HEIGHT // 2, WIDTH // 2))
    (tmp_path / "160224_ultimatum1" / "calibration_160224_ultimatum1.json").unlink()
    (tmp_path / "160224_mafia2" / "hdPose3d_stage1_coco19" / "body3DScene_00000002.json").write_bytes(b"")
    (tmp_path / "160906_pizza1" / "hdPose3d_stage1_coco19" / "body3DScene_00000005.json").unlink()
    (tmp_path / "160906_pizza1" / "hdVideos.tar").write_bytes(b"half")
    return tmp_path


def test_the_counts_of_a_partial_download_agree_with_the_records_that_are_read(partial, capsys):
    status, report = report_on(capsys, partial, names=9)
    assert status == PARTIAL
    for line in (
        "160226_mafia2 (train): no folder",
        "1 of 3 images of 160224_haggling1 00_16 train: 160224_haggling1/hdImgs/00_16/00_16_00000000.jpg",
        "00_16_00000002.jpg: no bytes",
        "00_16_00000004.jpg: a JPEG that is cut short",
        f"00_16_00000000.jpg: {WIDTH // 2}x{HEIGHT // 2} pixels, its annotation says {WIDTH}x{HEIGHT}",
        "calibration_160224_ultimatum1.json: ",
        "all of 160224_ultimatum1 00_16: no calibration",
        "body3DScene_00000002.json: empty file",
        "171204_pose1: 2 pose files, images of 2 cameras; not in the split manifest",
        "160906_pizza1/hdVideos.tar is not unpacked",
    ):
        assert line in report, line
    command = next_command(report)
    good = ["160224_haggling1", "160224_mafia1", "160224_mafia2", "160906_pizza1"]
    assert command[command.index("--sequences") + 1 :] == [*good, "--allow-missing"]

    found = examine("panoptic", DoctorConfig(str(partial))).inventory
    lines = {(line.sequence, line.camera): line for line in found.cameras}
    assert lines["160224_haggling1", "00_16"].ready == 0 and lines["160224_haggling1", "00_30"].ready == 3
    assert lines["160906_pizza1", "00_16"].unannotated == 1 and not lines["160906_pizza1", "00_16"].missing
    # Remove what refuses a conversion: the report did not count it, and the rest must agree.
    (partial / "160224_ultimatum1").rename(partial / "away")
    bad = partial / "160224_mafia2" / "hdPose3d_stage1_coco19" / "body3DScene_00000002.json"
    bad.write_text(json.dumps({"bodies": []}))
    for camera in ("00_16", "00_30"):
        (partial / "160224_mafia2" / "hdImgs" / camera / f"{camera}_00000002.jpg").write_bytes(b"")
    assert found.ready == readable("panoptic", partial)


def test_an_image_among_annotated_frames_has_lost_its_annotation(tmp_path, capsys):
    root = write_panoptic(tmp_path, "160906_pizza1", range(6))
    only = {"splits": ("test",), "sequences": ("160906_pizza1",)}
    poses = root / "160906_pizza1" / "hdPose3d_stage1_coco19"
    (poses / "body3DScene_00000000.json").unlink()  # cameras may start before the annotations do
    assert report_on(capsys, root, **only)[0] == COMPLETE
    (poses / "body3DScene_00000003.json").unlink()
    status, report = report_on(capsys, root, **only)
    assert status == PARTIAL and next_command(report)[-1] == "--allow-missing"
    path = "160906_pizza1/hdImgs/00_16/00_16_00000003.jpg"
    assert f"1 annotations of 160906_pizza1 00_16 test, whose images are there: {path}" in report
    drops = list(panoptic.unannotated_images(root, "test"))
    found = examine("panoptic", DoctorConfig(str(root), **only)).inventory
    assert [drop.file for drop in drops] == [path for line in found.cameras for path in line.lost_annotations]


def test_a_camera_without_images_is_reported_although_another_has_them(tmp_path, capsys):
    root = write_panoptic(tmp_path, "160906_pizza1", range(2))
    for image in (root / "160906_pizza1" / "hdImgs" / "00_16").iterdir():
        image.unlink()
    status, report = report_on(capsys, root, splits=("test",), sequences=("160906_pizza1",))
    assert status == PARTIAL and "all 2 images of 160906_pizza1 00_16 test" in report
    assert next_command(report)[-3:] == ["--sequences", "160906_pizza1", "--allow-missing"]


def test_only_files_of_the_configured_splits_and_sequences_are_reported_missing(partial, capsys):
    status, report = report_on(capsys, partial, splits=("test",), sequences=("160906_pizza1",))
    assert status == COMPLETE and "160224_haggling1" not in report
    command = next_command(report)
    assert command[-4:] == ["--splits", "test", "--sequences", "160906_pizza1"]
    with pytest.raises(ValueError, match="sequences: found nothing_like_it, wanted some of 160224"):
        report_on(capsys, partial, sequences=("nothing_like_it",))
    _, report = report_on(capsys, partial, sequences=("160906_pizza1",), cameras=("00_03",))
    assert "no camera '00_03'; it has 2, such as 00_16, 00_30" in report


def test_images_without_annotations_and_annotations_without_images_are_reported(tmp_path, capsys):
    root = write_coco(tmp_path)
    (root / "train2017" / "000000000001.jpg").unlink()
    (root / "val2017" / "stray.jpg").write_bytes(jpeg(HEIGHT, WIDTH))
    found = examine("coco", DoctorConfig(str(root))).inventory
    train, val = found.cameras
    assert train.missing == ["train2017/000000000001.jpg"] and train.unannotated == 1 and val.unannotated == 1
    (root / "annotations" / "person_keypoints_val2017.json").write_text("{")
    status, report = report_on(capsys, root)
    assert status == PARTIAL and "annotations/person_keypoints_val2017.json: not JSON" in report


def test_frames_of_videos_count_where_no_images_were_extracted(tmp_path, capsys):
    sequence = write_panoptic(tmp_path, "160906_pizza1", range(6)) / "160906_pizza1"
    images = sequence / "hdImgs"
    for file in [*(images / "00_16").iterdir(), *(images / "00_30").iterdir()]:
        file.unlink()
    for camera, length in (("00_16", 6), ("00_30", 4)):
        (images / camera).rmdir()
        write_video(sequence / "hdVideos" / f"hd_{camera}.mp4", length)
    found = examine("panoptic", DoctorConfig(str(tmp_path), splits=("test",))).inventory
    assert [line.ready for line in found.cameras] == [6, 4] and found.ready == readable("panoptic", tmp_path)
    status, report = report_on(capsys, tmp_path)
    assert status == PARTIAL and "hd_00_30.mp4 (frame 4), 160906_pizza1/hdVideos/hd_00_30.mp4 (frame 5)" in report
    assert "hd_00_30.mp4 has 4 frames, its annotations go to frame 5" in report
    assert next_command(report)[:3] == ["das", "doctor", "data"] and "--allow-missing" not in report
    (sequence / "hdVideos" / "hd_00_30.mp4").write_bytes(b"half a video")
    _, report = report_on(capsys, tmp_path)
    assert "all of 160906_pizza1 00_30: 160906_pizza1/hdVideos/hd_00_30.mp4 cannot be decoded" in report


def test_the_owners_mat_files_are_enough(tmp_path):
    write_mupots_mats(tmp_path, "TS3", frames=3)
    assert recognised(tmp_path) == ["mupots"]
    found = examine("mupots", DoctorConfig(str(tmp_path))).inventory
    (line,) = found.cameras
    assert (line.sequence, line.annotated, line.ready) == ("TS3", 3, readable("mupots", tmp_path))


@pytest.mark.parametrize("content", [b"", b"half", b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", None])
def test_a_sequence_whose_mat_files_cannot_be_read_is_left_out(content, tmp_path, capsys):
    """The source reads them, not the JSON beside them."""
    write_mupots(tmp_path, ["TS2/img_000000.jpg", "TS3/img_000000.jpg", "TS4/img_000000.jpg"])
    for name, torn in (("TS2", "occlusion.mat"), ("TS3", "annot.mat")):
        write_mupots_mats(tmp_path, name)
        file = tmp_path / "MultiPersonTestSet" / name / torn
        file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    _, report = report_on(capsys, tmp_path)
    for path in ("TS2/occlusion.mat", "TS3/annot.mat"):
        assert f"MultiPersonTestSet/{path}: wanted a .mat file with " in report
        with pytest.raises(ValueError, match=path):
            mupots.chunks(tmp_path, "test")
        (tmp_path / "MultiPersonTestSet" / path).with_name("annot.mat").rename(tmp_path / "away")
    assert parsed(report).sequences == ("TS4",)


def test_a_malformed_entry_of_a_mat_file_loses_only_its_frame(tmp_path, capsys):
    write_mupots_mats(tmp_path, "TS3", frames=3)
    folder = tmp_path / "MultiPersonTestSet" / "TS3"
    table = scipy.io.loadmat(folder / "annot.mat")["annotations"]
    table[1, 1]["annot3"][0, 0] = np.zeros((3, 14))
    scipy.io.savemat(folder / "annot.mat", {"annotations": table})
    status, report = report_on(capsys, tmp_path)
    assert status == PARTIAL and next_command(report)[-1] == "--allow-missing"
    assert "TS3/annot.mat: entry frame 1, person 1: annot3: found size 42" in report and "2 of 3 wanted" in report
    (shard,) = mupots.chunks(tmp_path, "test")
    first, fault, last = read_frames(shard, mupots.records)
    assert isinstance(first, Record) and isinstance(last, Record) and isinstance(fault, DroppedFrame)
    assert (fault.key, fault.file) == ("mupots/TS3/0/00000001", "MultiPersonTestSet/TS3/annot.mat")


def test_both_forms_of_mpi_inf_3dhp_are_counted(tmp_path, capsys):
    arrays, original = tmp_path / "a" / "arrays", tmp_path / "b" / "original"
    arrays.mkdir(parents=True)
    names = [f"S1_Seq2_Cam{camera}_{frame:06d}.jpg" for camera in (0, 7) for frame in (4, 9)]
    write_mpi_arrays(arrays, names)
    (arrays / "images" / names[3]).unlink()
    write_mpi_original(original, "S1/Seq2")
    for root in (arrays, original):
        assert recognised(root) == ["mpi_inf_3dhp"], root
        found = examine("mpi_inf_3dhp", DoctorConfig(str(root))).inventory
        # The owners' form: the video of camera 0 is there, of 6 frames.
        assert found.ready == (readable("mpi_inf_3dhp", root) if root == arrays else 6) > 0
        assert {line.sequence for line in found.cameras} == {"S1_Seq2"}
    status, report = report_on(capsys, arrays)
    assert status == PARTIAL and f"1 of 2 images of S1_Seq2 7 train: images/{names[3]}" in report
    (arrays / "cameras_train.pkl").unlink()
    status, report = report_on(capsys, arrays)
    assert status == NOTHING and "cameras_train.pkl: no such file" in report


def test_your_own_data_are_complete_without_val_and_test(tmp_path, capsys):
    lines = write_custom(tmp_path, 3)
    status, report = report_on(capsys, tmp_path)
    assert status == COMPLETE and "custom: data of your own" in report and "no val.jsonl" in report
    assert readable("custom", tmp_path) == 3
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "train.jsonl").write_text("\n".join([lines[0], lines[1], "{"]))
    status, report = report_on(capsys, tmp_path)
    assert status == PARTIAL and "train.jsonl: image 3: not an image" in report and "1 of 3 images" in report


def test_another_split_manifest_wants_other_sequences(partial, capsys):
    _, report = report_on(capsys, partial, split_manifest="panoptic-smap")
    assert "160226_ultimatum1 (test): no folder" in report and "160224_mafia2 00_16 train" in report
    command = next_command(report)
    assert command[command.index("--split-manifest") + 1] == "panoptic-smap"
    with pytest.raises(ValueError, match="split manifest 'none' is unknown"):
        report_on(capsys, partial, split_manifest="none")


@pytest.mark.parametrize("folder", ["zero\0byte", "x" * 300, "a file/1.jpg"])
def test_a_file_name_that_no_disk_can_have_is_a_missing_image(folder, tmp_path, capsys):
    root = write_muco(tmp_path, [f"unaugmented_set/{i}.jpg" for i in range(2)])
    content = json.loads((root / "MuCo-3DHP.json").read_text())
    content["images"][1]["file_name"] = f"unaugmented_set/{folder}/1.jpg"
    (root / "MuCo-3DHP.json").write_text(json.dumps(content))
    status, report = report_on(capsys, root)
    assert status == PARTIAL and "1 of 2 images of unaugmented_set" in report


def test_damage_within_a_file_is_found_by_decoding_alone(tmp_path):
    root = write_coco(tmp_path)
    whole = jpeg(HEIGHT, WIDTH, 1)
    table = whole.index(b"\xff\xc4")
    (root / "train2017" / "000000000001.jpg").write_bytes(whole[:table] + b"\xff\xc4\x00\x03\xff" + whole[table:])
    quick = examine("coco", DoctorConfig(str(root), decode=0))
    assert quick.decoded == 0 and quick.inventory.ready == 3
    close = examine("coco", DoctorConfig(str(root), decode_all=True))
    assert close.decoded == 3 and close.inventory.ready == 2


def test_headers_of_many_images_are_sampled_and_empty_ones_found_in_any_case(tmp_path):
    root = write_muco(tmp_path, [f"unaugmented_set/{i}.jpg" for i in range(50)])
    (root / "unaugmented_set" / "33.jpg").write_bytes(b"")
    finding = examine("muco", DoctorConfig(str(root), headers=10, decode=0))
    assert finding.headers < 20
    assert [t.path for line in finding.inventory.cameras for t in line.damaged] == ["unaugmented_set/33.jpg"]


def test_a_rendered_set_is_complete_when_rendering_has_finished(prepared, tmp_path, capsys):
    root = tmp_path / "raw"
    root.symlink_to(prepared.parent / "raw")
    assert recognised(root) == ["synthetic"]
    status, report = report_on(capsys, root)
    assert status == PARTIAL and "studio.json: missing: rendering has not finished" in report
    copy = tmp_path / "copy"
    shutil.copytree(prepared.parent / "raw", copy)
    names = {
        "train": ["studio_train_haggling1", "studio_train_mafia1"],
        "val": ["studio_val_mafia1"],
        "test": ["studio_test_pizza1"],
    }
    config = {f"{split}_sequences": sequences for split, sequences in names.items()}
    (copy / "studio.json").write_text(json.dumps({"config": config, "pictures": 42}))
    status, report = report_on(capsys, copy)
    assert status == COMPLETE and "complete: 42 of 42" in report
    shutil.rmtree(copy / "studio_val_mafia1")
    status, report = report_on(capsys, copy)
    assert status == PARTIAL and "studio_val_mafia1 (val): no folder" in report


def test_rows_that_the_conversion_refuses_are_reported(tmp_path, capsys):
    lines = [json.loads(line) for line in write_custom(tmp_path, 3)]
    K = [300, 300, WIDTH / 2, HEIGHT / 2]
    cam = [[0, 0, 3000], [0, -500, 3000]]
    uv = [[160, 90], [160, 40]]
    lines[0].update(K=K, people=[{"joints_uv": uv, "joints_cam": cam, "state": [2, 2]}])
    lines[1].update(K=[1500, 1500, 960, 540], people=lines[0]["people"])
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    status, report = report_on(capsys, tmp_path)
    assert status == PARTIAL and "partial: 2 of 3" in report and "3 rows" in report
    assert (
        "custom/train/0/00000001: column joints_uv: found " in report and "px from its projected joints_cam" in report
    )
    assert next_command(report)[-1] == "--allow-missing"


def test_coco_of_other_tools_is_counted_as_it_is_read(tmp_path, capsys):
    root = write_coco(tmp_path)
    file = root / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(file.read_text())
    content["categories"][0]["id"] = 0
    for annotation in content["annotations"]:
        annotation["category_id"] = 0
        del annotation["iscrowd"]
    file.write_text(json.dumps(content))
    status, report = report_on(capsys, root)
    assert status == COMPLETE and "complete: 3 of 3" in report and readable("coco", root) == 3
    content["annotations"][0]["keypoints"] = [1] * 50
    file.write_text(json.dumps(content))
    status, report = report_on(capsys, root)
    assert status == PARTIAL and "entry 1: keypoints: found size 50" in report and "partial: 2 of 3" in report


def test_orientation_tags_are_counted_and_named(tmp_path, capsys):
    root = write_coco(tmp_path / "coco")
    upright = root / "train2017" / "000000000001.jpg"
    upright.write_bytes(tagged(jpeg(WIDTH, HEIGHT), 6))
    status, report = report_on(capsys, root)
    assert status == COMPLETE
    assert "train2017/000000000001.jpg with an EXIF orientation tag: turned by it" in report
    own = tmp_path / "own"
    write_custom(own, 2)
    (own / "1.jpg").write_bytes(tagged(jpeg(HEIGHT, WIDTH), 3))
    status, report = report_on(capsys, own)
    assert status == COMPLETE and "1.jpg with an EXIF orientation tag: not turned" in report


def test_png_frames_are_counted_and_other_names_refused(tmp_path, capsys):
    root = write_panoptic(tmp_path, "160906_pizza1", range(2))
    first, second = (root / "160906_pizza1" / "hdImgs" / camera for camera in ("00_16", "00_30"))
    for file in [*first.iterdir()]:
        cv2.imwrite(str(file.with_suffix(".png")), cv2.imread(str(file)))
        file.unlink()
    only = {"splits": ("test",), "sequences": ("160906_pizza1",)}
    status, report = report_on(capsys, root, **only)
    assert status == COMPLETE and "complete: 4 of 4" in report and readable("panoptic", root) == 4
    for file in [*second.iterdir()]:
        file.rename(file.with_suffix(".webp"))
    status, report = report_on(capsys, root, **only)
    assert status == PARTIAL and "00_30_00000000.webp: wanted 00_30_00000000.jpg or .png" in report


def test_cut_videos_are_counted_to_their_last_good_frame_on_demand(tmp_path, capsys):
    sequence = write_panoptic(tmp_path, "160906_pizza1", range(20, 36)) / "160906_pizza1"
    shutil.rmtree(sequence / "hdImgs")
    for camera in ("00_16", "00_30"):
        write_video(sequence / "hdVideos" / f"hd_{camera}.mp4", 60)
    video = sequence / "hdVideos" / "hd_00_16.mp4"
    data = bytearray(video.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    video.write_bytes(data)
    only = {"splits": ("test",), "sequences": ("160906_pizza1",)}
    assert report_on(capsys, tmp_path, **only)[0] == COMPLETE
    status, report = report_on(capsys, tmp_path, decode_all=True, **only)
    found = examine("panoptic", DoctorConfig(str(tmp_path), decode_all=True, **only)).inventory
    assert status == PARTIAL and found.ready == readable("panoptic", tmp_path) < 32
    assert "hd_00_16.mp4: " in report and "of 60 can be decoded" in report
    assert next_command(report)[-1] == "--allow-missing"
