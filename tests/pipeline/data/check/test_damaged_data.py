"""Any bytes in place of a file of any source: its error names the file, and `das doctor data` still reports."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import example, given, settings

from das.skeleton import read_skeleton
from pipeline.data.catalog import CATALOG
from pipeline.data.doctor import DoctorConfig, examine
from pipeline.data.prepare.frames import read_frames, validated_frames
from pipeline.data.record import Record
from pipeline.data.sources.base import DroppedFrame
from tests.pipeline.data.binary_layouts import write_mpi_arrays, write_mpi_original, write_mupots_mats
from tests.pipeline.data.original_layouts import write_coco, write_custom, write_muco, write_mupots, write_panoptic
from tests.pipeline.data.sources.test_any_bytes import damaged

FEW = settings(max_examples=30, deadline=None, derandomize=True)
DEEP = b"[" * 100_000
HARD = (b"", DEEP, b'{"images": ' + DEEP, b"9" * 5000, b"NaN", "{}".encode("utf-16"), b"\xef\xbb\xbf{}", b"{\xff}")


def arrays(root: Path) -> None:
    root.mkdir()
    write_mpi_arrays(root, ["S1_Seq1_Cam0_000001.jpg", "S1_Seq1_Cam0_000002.jpg"])


# What to write, and the files of it that get damaged.
FILES = {
    "panoptic": (
        lambda root: write_panoptic(root, "160906_pizza1", range(2)),
        (
            "160906_pizza1/calibration_160906_pizza1.json",
            "160906_pizza1/hdPose3d_stage1_coco19/body3DScene_00000001.json",
            "160906_pizza1/hdImgs/00_16/00_16_00000001.jpg",
        ),
    ),
    "synthetic": (
        lambda root: write_panoptic(root, "studio_train_haggling1", range(2)),
        ("studio_train_haggling1/calibration_studio_train_haggling1.json", "studio.json"),
    ),
    "muco": (
        lambda root: write_muco(root, [f"unaugmented_set/{i}.jpg" for i in range(2)]),
        ("MuCo-3DHP.json", "unaugmented_set/1.jpg"),
    ),
    "mupots": (
        lambda root: write_mupots(root, [f"TS1/img_{i:06d}.jpg" for i in range(2)]),
        ("MuPoTS-3D.json", "TS1/img_000001.jpg"),
    ),
    "coco": (write_coco, ("annotations/person_keypoints_train2017.json", "train2017/000000000001.jpg")),
    "custom": (lambda root: write_custom(root, 3), ("skeleton.json", "train.jsonl", "1.jpg")),
}
# Binary formats, read by other libraries.
BINARY = {
    "mupots": (
        lambda root: write_mupots_mats(root, "TS3"),
        ("MultiPersonTestSet/TS3/annot.mat", "MultiPersonTestSet/TS3/occlusion.mat", "intrinsics.json"),
    ),
    "mpi_inf_3dhp": (arrays, ("mpi_inf_3dhp_train.npz", "cameras_train.pkl", "images/S1_Seq1_Cam0_000001.jpg")),
    "mpi_inf_3dhp original": (
        lambda root: write_mpi_original(root, "S1/Seq1", frames=2),
        ("S1/Seq1/annot.mat", "S1/Seq1/camera.calibration"),
    ),
}
CASES = [(name, write, file) for table in (FILES, BINARY) for name, (write, files) in table.items() for file in files]


def check_reports(source: str, root: Path, file: str) -> None:
    """Runs the doctor and the source on a folder; any error that does not name the file fails the test."""
    module = CATALOG[source].source
    report = examine(source, DoctorConfig(str(root))).text()
    assert "\nnext: das " in report
    try:
        chunks = [chunk for split in ("train", "val", "test") for chunk in module.chunks(root, split)]
        found = [item for chunk in chunks for item in validated_frames(read_frames(chunk, module.records), None)]
    except ValueError as error:
        assert Path(file).name in str(error) or f"{source}/t" in str(error), error
        return
    assert [item.key for item in found] == list(dict.fromkeys(item.key for item in found))
    assert all(isinstance(item, Record) or (isinstance(item, DroppedFrame) and item.reason) for item in found)


@pytest.mark.parametrize("name, write, file", CASES, ids=[f"{name}-{file}" for name, _, file in CASES])
def test_a_damaged_file_is_named_and_nothing_crashes(name, write, file, tmp_path):
    source, root = name.split()[0], tmp_path / "root"
    write(root)
    path = root / file
    good = path.read_bytes() if path.exists() else b'{"config": {"train_sequences": 1}}'

    @FEW
    @given(damaged(good))
    def check(content):
        path.write_bytes(content)
        check_reports(source, root, file)

    for content in HARD:
        path.write_bytes(content)
        check_reports(source, root, file)
    check()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(damaged(b'{"name": "toy", "joints": ["hip", "head"], "bones": [["hip", "head"]], "root": ["hip"]}'))
@example(DEEP)
@example(b'{"name": ' + DEEP)
@example(b'{"name": ' + b"9" * 5000 + b"}")
@example("{}".encode("utf-16"))
@example(b"\xef\xbb\xbf{}")
def test_any_skeleton_file_is_read_or_named_in_the_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("skeleton") / "skeleton.json"  # beside other tests it would make them a data set
    path.write_bytes(content)
    try:
        read_skeleton(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")


WRONG = {
    "another variable": {"other": np.zeros(3)},
    "no cells": {"annotations": np.zeros((2, 17)), "annot2": 3.0, "annot3": "text"},
    "cells of another shape": {"annotations": np.array([[np.zeros(3)]], object)},
    "cells of text": {"annotations": np.array([["x", "y"]], object), "annot2": np.array([["x"]], object)},
    "no frames": {"annotations": np.empty((0, 0), object), "annot2": np.empty((0, 0), object)},
}


@pytest.mark.parametrize("name, write, file", [case for case in CASES if case[2].endswith("annot.mat")])
@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_mat_file_with_other_variables_is_named(name, write, file, content, tmp_path):
    source, root = name.split()[0], tmp_path / "root"
    write(root)
    scipy.io.savemat(root / file, content)
    check_reports(source, root, file)
    with pytest.raises(ValueError, match=r"(annot|occlusion)\.mat: "):
        chunks = [chunk for split in ("train", "val", "test") for chunk in CATALOG[source].source.chunks(root, split)]
        [item for chunk in chunks for item in CATALOG[source].source.records(chunk)]


def test_the_doctor_counts_a_too_deeply_nested_line_as_damaged(tmp_path):
    root = tmp_path / "root"
    lines = write_custom(root, 2)
    (root / "train.jsonl").write_bytes(lines[0].encode() + b"\n" + DEEP)
    report = examine("custom", DoctorConfig(str(root))).text()
    assert "train.jsonl: image 2: not an image and its people (RecursionError" in report
    assert "1 of 2 wanted images are ready" in report


def test_one_bad_row_loses_only_its_image(tmp_path):
    root = tmp_path / "root"
    arrays(root)
    with np.load(root / "mpi_inf_3dhp_train.npz") as file:
        content = dict(file)
    content["S"][0, 3, 1] = np.nan
    np.savez(root / "mpi_inf_3dhp_train.npz", **content)
    module = CATALOG["mpi_inf_3dhp"].source
    (chunk,) = module.chunks(root, "train")
    bad, good = read_frames(chunk, module.records)
    assert isinstance(good, Record) and isinstance(bad, DroppedFrame) and bad.file == "mpi_inf_3dhp_train.npz"
    assert bad.detail == "S1_Seq1_Cam0_000001.jpg: found NaN or infinity, wanted numbers"


@pytest.mark.parametrize("entry, value, wanted", [("iscrowd", None, "0 or 1"), ("height", 1.5, "a whole number")])
def test_a_field_of_another_type_is_named_with_its_entry(entry, value, wanted, tmp_path):
    root, file = write_coco(tmp_path / "root"), "annotations/person_keypoints_train2017.json"
    content = json.loads((root / file).read_text())
    content["images" if entry == "height" else "annotations"][1][entry] = value
    (root / file).write_text(json.dumps(content))
    module = CATALOG["coco"].source
    (chunk,) = module.chunks(root, "train")
    good, bad = read_frames(chunk, module.records)
    assert isinstance(good, Record) and isinstance(bad, DroppedFrame) and (bad.file, bad.key[-1]) == (file, "2")
    assert bad.detail.endswith(f"{entry}: found {value!r}, wanted {wanted}")
