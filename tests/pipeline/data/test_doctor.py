"""`das doctor data`: its counts agree with what the source reads, and every report ends with a command that works."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from pipeline import cli
from pipeline.data.catalog import CATALOG
from pipeline.data.doctor import (
    COMPLETE,
    NOTHING,
    PARTIAL,
    DoctorConfig,
    doctor,
    examine,
    nearby,
    recognised,
)
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import plan_conversion
from pipeline.data.prepare.shard_task import read_frames
from pipeline.data.record import Record
from pipeline.data.sources import mupots, panoptic
from pipeline.data.sources.base import DroppedFrame
from pipeline.data.sources.panoptic import SPLITS as PANOPTIC
from pipeline.infra.flags import choose_command, parse
from tests.pipeline.data.binary_layouts import write_mpi_arrays, write_mpi_original, write_mupots_mats
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


def report_on(capsys, root, **options) -> tuple[int, str]:
    """Exit status and report."""
    status = doctor(DoctorConfig(str(root), **options))
    return status, capsys.readouterr().out


def next_command(report: str) -> list[str]:
    """The words after the last `next:`, split as a shell does."""
    line = [line for line in report.splitlines() if line.startswith("next: ")][-1]
    return shlex.split(line.removeprefix("next: "), comments=True)


def parsed(report: str) -> ConvertConfig | DoctorConfig:
    """The next command, parsed by `das`; a `das prepare` must also find chunks to convert."""
    das, command, *words = next_command(report)
    assert das == "das"
    if command == "doctor":
        return choose_command("das doctor", {"data": DoctorConfig}, words)
    assert command == "prepare"
    config = parse("das prepare", ConvertConfig, words)
    plan = plan_conversion(config)
    chunks = [chunk for task in plan.tasks for chunk in task.chunks]
    assert chunks and {chunk.sequence for chunk in chunks} <= {part.sequence for part in plan.splits.parts}
    return config


def readable(source: str, root: Path) -> int:
    """How many records the source reads from it."""
    reader = CATALOG[source].source
    chunks = [chunk for split in ("train", "val", "test") for chunk in reader.chunks(root, split)]
    return sum(isinstance(item, Record) for chunk in chunks for item in reader.records(chunk))


def write_all_of_panoptic(root: Path) -> Path:
    for part in PANOPTIC.parts:
        write_panoptic(root, part.sequence, range(2))
    return root


def write_all_of(source: str, root: Path) -> Path:
    """A complete data set, as its split manifest wants it."""
    if source == "panoptic":
        return write_all_of_panoptic(root)
    if source == "muco":
        return write_muco(root, [f"{s}augmented_set/{i}.jpg" for s in ("un", "") for i in range(50)])
    if source == "mupots":
        return write_mupots(root, [f"TS{i}/img_000000.jpg" for i in range(1, 21)])
    return write_coco(root)


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


@pytest.mark.parametrize("source", ["panoptic", "muco", "mupots", "coco"])
def test_a_complete_set_is_recognised_and_its_next_command_converts_it(source, tmp_path, capsys):
    root = write_all_of(source, tmp_path / "with space")
    assert recognised(root) == [source]
    status, report = report_on(capsys, root, out=str(tmp_path / "out"))
    assert status == COMPLETE and "\ncomplete: " in report and "missing\n" not in report
    command = next_command(report)
    assert parsed(report).root == str(root)
    assert command == ["das", "prepare", "--source", source, "--root", str(root), "--out", f"{tmp_path}/out/{source}"]
    found = examine(source, DoctorConfig(str(root))).inventory
    assert found.ready == found.wanted == readable(source, root) > 0


def half_of(source: str, root: Path) -> Path:
    """A data set with one complete sequence and a fault in another."""
    if source == "panoptic":
        write_panoptic(root, "160224_mafia1", range(2))
        shutil.rmtree(write_panoptic(root, "160906_pizza1", range(2)) / "160906_pizza1" / "hdPose3d_stage1_coco19")
    elif source == "muco":
        write_muco(root, ["unaugmented_set/0.jpg", "unaugmented_set/1.jpg"])
        (root / "unaugmented_set" / "0.jpg").unlink()
    elif source == "mupots":
        write_mupots(root, ["TS1/img_000000.jpg", "TS2/img_000000.jpg"])
        write_mupots_mats(root, "TS3")
        (root / "MultiPersonTestSet" / "TS3" / "annot.mat").write_bytes(b"half")
    elif source == "coco":
        shutil.rmtree(write_coco(root) / "val2017")
    elif source == "mpi_inf_3dhp":
        write_mpi_original(write_mpi_original(root, "S1/Seq1"), "S2/Seq1")
        (root / "S2" / "Seq1" / "annot.mat").write_bytes(b"half")
    elif source == "custom":
        write_custom(root, 3)
        (root / "1.jpg").unlink()
    elif source == "synthetic":
        write_panoptic(root, "studio_train_haggling1", range(2))
    return root


@pytest.mark.parametrize("source", CATALOG)
def test_the_next_command_is_accepted_by_the_parser(source, tmp_path, capsys):
    empty, half = tmp_path / "no data", half_of(source, tmp_path / "half a 'download")
    empty.mkdir()
    out = str(tmp_path / "out here")
    for name in (source, None):
        status, report = report_on(capsys, empty, source=name, out=out)
        assert status == NOTHING and parsed(report).root == str(empty)
    status, report = report_on(capsys, half, out=out)
    config = parsed(report)
    assert status == PARTIAL and "   # takes what is ready; docs/" in report
    assert config.source == source and config.root == str(half) and config.out == f"{out}/{source}"
    inside = next((path for path in sorted(half.iterdir()) if path.is_dir()), half / "inside")
    inside.mkdir(exist_ok=True)
    status, report = report_on(capsys, inside, source=source, out=out)
    assert status == NOTHING and parsed(report).root == str(half)


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


def test_a_folder_without_data_lists_all_data_sets(tmp_path, capsys):
    empty = tmp_path / "a" / "b" / "c" / "d" / "empty"
    empty.mkdir(parents=True)
    for folder in (empty, empty / "absent"):
        status, report = report_on(capsys, folder)
        assert status == NOTHING and "missing: everything" in report
        for name, entry in CATALOG.items():
            assert f"  {name}" in report and entry.inventory.PAGE in report
        assert f"das doctor data {folder}" in report and "das render --out" in report


@pytest.mark.parametrize("source", ["panoptic", "muco", "mupots", "coco"])
def test_a_folder_near_a_data_set_names_its_root(source, tmp_path, capsys):
    root = write_all_of(source, tmp_path / "x" / "data")
    inside = next(path for path in sorted(root.rglob("*")) if path.is_dir() and any(path.glob("*.jpg")))
    for wrong in (tmp_path, tmp_path / "x", inside):
        status, report = report_on(capsys, wrong)
        assert status == NOTHING, wrong
        assert next_command(report) == ["das", "doctor", "data", str(root)], wrong
    assert (root, [source]) in nearby(inside)


def test_a_folder_of_annotations_alone_names_the_folder_that_also_has_the_images(tmp_path, capsys):
    root = write_mupots(tmp_path / "data", ["TS1/img_000000.jpg"])
    (root / "annotations").mkdir()
    (root / "MuPoTS-3D.json").rename(root / "annotations" / "MuPoTS-3D.json")
    status, report = report_on(capsys, root / "annotations")
    assert status == NOTHING and "all 1 images of TS1" in report
    assert next_command(report) == ["das", "doctor", "data", str(root)]


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
    assert next_command(report)[-1] == "--allow-missing"
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


def test_too_little_free_space_is_reported(tmp_path, capsys, monkeypatch):
    root = write_coco(tmp_path)
    monkeypatch.setattr("pipeline.data.doctor.shutil.disk_usage", lambda place: type("Usage", (), {"free": 100}))
    status, report = report_on(capsys, root)
    assert status == PARTIAL and "not enough room: " in report


def test_the_exit_status_is_that_of_the_report(tmp_path, capsys):
    for root, status in ((write_coco(tmp_path / "coco"), COMPLETE), (tmp_path, NOTHING)):
        with pytest.raises(SystemExit) as ended:
            cli.main(["doctor", "data", str(root)])
        assert ended.value.code == status


def test_reports_on_the_real_samples(das_data, capsys):
    status, report = report_on(capsys, das_data / "mupots_small")
    assert status == PARTIAL and "partial: 102 of 102" in report and "TS2 (test)" in report
    status, report = report_on(capsys, das_data / "coco")
    assert status == PARTIAL and "partial: 28 of 28" in report and "person_keypoints_val2017.json (val)" in report
    status, report = report_on(capsys, das_data / "mpi_inf_3dhp")
    assert status == PARTIAL and "partial: 4 of 4" in report and "S4_Seq2 0 train" in report
    status, report = report_on(capsys, das_data / "mupots")
    assert status == NOTHING and "3,690" in report and "TS11 (test)" in report
    status, report = report_on(capsys, das_data / "panoptic")
    assert status == NOTHING and "160906_band1: 20 pose files" in report
    status, report = report_on(capsys, das_data)
    assert status == NOTHING and f"das doctor data {das_data.resolve() / 'coco'}" in report


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


@pytest.mark.parametrize("deep", ["hdPose3d_stage1_coco19", "hdImgs/00_16", "hdImgs"])
def test_folders_unpacked_too_deep_are_named_and_the_next_command_is_another(deep, tmp_path, capsys):
    sequence = write_panoptic(tmp_path, "160906_pizza1", range(2)) / "160906_pizza1"
    folder = sequence / deep
    folder.rename(sequence / "away")
    folder.mkdir()
    (sequence / "away").rename(folder / folder.name)
    only = {"splits": ("test",), "sequences": ("160906_pizza1",)}
    _, report = report_on(capsys, tmp_path, **only)
    inner = f"160906_pizza1/{deep}/{folder.name}"
    assert f"unpacked too deep: they are in {inner}" in report
    assert not str(parsed(report).root).startswith(str(sequence))
    _, report = report_on(capsys, sequence)
    assert parsed(report).root == str(tmp_path), "the folder of all sequences"


def test_a_sequence_outside_the_split_manifest_can_be_converted_by_what_the_report_says(tmp_path, capsys, monkeypatch):
    root = write_panoptic(tmp_path / "with space", "171204_pose1_sample", [1])
    monkeypatch.chdir(tmp_path)
    status, report = report_on(capsys, root)
    assert status == NOTHING and "not in the split manifest" in report
    (line,) = [line for line in report.splitlines() if "printf" in line]
    subprocess.run(line, shell=True, check=True)
    again = parsed(report)
    assert again.split_manifest == "171204_pose1_sample.json" and doctor(again) == COMPLETE
    tasks = plan_conversion(parsed(capsys.readouterr().out)).tasks
    assert sum(task.frames for task in tasks) == 2


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


def test_no_folder_outside_the_root_is_listed(tmp_path, capsys, monkeypatch):
    root = write_muco(tmp_path / "muco", [f"unaugmented_set/{i}.jpg" for i in range(2)])
    write_custom(tmp_path / "beside", 1)
    content = json.loads((root / "MuCo-3DHP.json").read_text())
    content["images"][1]["file_name"] = "unaugmented_set/../../beside/0.jpg"
    (root / "MuCo-3DHP.json").write_text(json.dumps(content))
    listed = []
    scan = os.scandir
    monkeypatch.setattr("pipeline.data.check.listing.os.scandir", lambda path: listed.append(Path(path)) or scan(path))
    status, report = report_on(capsys, root)
    assert status == PARTIAL and "1 of 2 images" in report
    report_on(capsys, root / "unaugmented_set")
    report_on(capsys, tmp_path / "absent")
    assert listed and all(path.is_relative_to(root) and ".." not in path.parts for path in listed)
