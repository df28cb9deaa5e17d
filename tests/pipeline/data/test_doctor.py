"""`das doctor data`: which data set a folder is, and a command at the end of every report that works."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.data.catalog import CATALOG
from pipeline.data.doctor import COMPLETE, NOTHING, PARTIAL, DoctorConfig, doctor, examine, nearby, recognised
from pipeline.data.prepare.convert import plan_conversion
from pipeline.data.sources.panoptic import SPLITS as PANOPTIC
from tests.pipeline.data.binary_layouts import write_mpi_original, write_mupots_mats
from tests.pipeline.data.doctor_cases import next_command, parsed, readable, report_on
from tests.pipeline.data.original_layouts import write_coco, write_custom, write_muco, write_mupots, write_panoptic


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
