"""What is refused is refused in one line before torch, Ray and MLflow are imported, which takes seconds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.checkpoints import write_checkpoint
from tests.pipeline.data.binary_layouts import write_mpi_arrays, write_mpi_original
from tests.pipeline.data.original_layouts import write_coco, write_custom, write_muco, write_mupots, write_panoptic

PROJECT = Path(__file__).resolve().parents[1]

# Runs commands one after the other in one process. Says after each what it printed, its status and what is imported.
RUN = """
import contextlib, io, json, sys
from pipeline.cli import main
for words in json.load(sys.stdin):
    error, status = io.StringIO(), 0
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(error):
        try:
            main(words)
        except SystemExit as ended:
            status = ended.code
    print(json.dumps([status, error.getvalue(), sorted({"torch", "ray", "mlflow"} & set(sys.modules))]))
"""


def refusals(folder, commands):
    """The lines of commands that are refused, each with status 2 and nothing heavy imported."""
    environment = {**os.environ, "DAS_STORAGE": str(folder / "storage")}
    words = json.dumps([[*map(str, command)] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=words, cwd=folder, capture_output=True, text=True, check=True,
        env={**environment, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for command, (status, line, heavy) in zip(commands, found, strict=True):
        assert (status, heavy) == (2, []) and line.startswith("das: ") and line.count("\n") == 1, (command, line, heavy)
    return [line for _, line, _ in found]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model"), 0)


def spoiled(checkpoint, folder, spoil):
    shutil.copytree(checkpoint, folder)
    spoil(folder)
    return folder


def asks_for(**fields):
    def spoil(folder):
        value = json.loads((folder / "config.json").read_text())
        value["model"].update(fields)
        (folder / "config.json").write_text(json.dumps(value))

    return spoil


def replaced(name, make):
    def spoil(folder):
        (folder / name).unlink()
        make(folder / name)

    return spoil


MODELS = {
    "wide": (asks_for(backbone_width=1_000_000), "backbone_width of 1000000"),
    "channels": (asks_for(fpn_channels=32 * 10**6), "fpn_channels of 32000000"),
    "no config": (replaced("config.json", lambda _: None), "config.json is missing"),
    "not json": (lambda folder: (folder / "config.json").write_text("{"), "config.json: "),
    "pipe": (replaced("config.json", os.mkfifo), "config.json is a pipe, device or folder"),
    "no weights": (replaced("model.safetensors", lambda _: None), "model.safetensors is missing"),
    "cut": (lambda folder: os.truncate(folder / "model.safetensors", 5000), "no safetensors file"),
    "garbage": (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 999), "no safetensors file"),
    "weights pipe": (replaced("model.safetensors", os.mkfifo), "model.safetensors is a pipe, device or folder"),
    "device": (replaced("model.safetensors", lambda p: p.symlink_to("/dev/zero")), "is a pipe, device or folder"),
    "text": (replaced("model.safetensors", lambda p: p.symlink_to("/etc/passwd")), "no safetensors file"),
}


def test_a_bad_model_is_refused_without_torch(checkpoint, prepared, tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0")
    folders = {name: spoiled(checkpoint, tmp_path / name, spoil) for name, (spoil, _) in MODELS.items()}
    commands = [["predict", "x.png", "--model", folder] for folder in folders.values()]
    for command in (["evaluate", "--data", prepared], ["benchmark", "--data", prepared],
                    ["promote", "--scores", "none", "--name", "das-demo"]):  # fmt: skip
        commands += [[*command, "--model", folders[name]] for name in ("wide", "cut")]
    parts = [part for _, part in MODELS.values()] + [MODELS[name][1] for name in ("wide", "cut")] * 3
    for line, part in zip(refusals(tmp_path, commands), parts, strict=True):
        assert part in line
    lines = refusals(
        tmp_path,
        [
            ["predict", "x.png", "--model", checkpoint, "--inside", "wing"],
            ["predict", PROJECT / "README.md", "--model", checkpoint],
        ],
    )
    assert "joint = 'wing', wanted one of" in lines[0] and "README.md: no image that OpenCV can read" in lines[1]


def test_bad_prepared_data_are_refused_without_torch_and_ray(checkpoint, prepared, tmp_path):
    def all_shards(make):
        def spoil(folder):
            for shard in folder.glob("*/*.parquet"):
                shard.unlink()
                make(shard)

        return spoil

    cases = {
        "manifest": (replaced("manifest.json", lambda _: None), "holds no manifest"),
        "json": (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: "),
        "shards": (all_shards(lambda shard: shard.write_bytes(b"PAR1" * 9)), "not a Parquet file"),
        "pipes": (all_shards(os.mkfifo), "a pipe or device"),
    }
    commands, parts = [], []
    for name, (spoil, part) in cases.items():
        folder = spoiled(prepared, tmp_path / name, spoil)
        commands += [["data", "stats", folder], ["data", "show", folder]]
        commands.append(["evaluate", "--model", checkpoint, "--data", folder])
        parts += [part] * 3
    for line, part in zip(refusals(tmp_path, commands), parts, strict=True):
        assert part in line


def test_bad_predictions_scores_and_gates_are_refused_without_torch_and_mlflow(checkpoint, prepared, tmp_path):
    for name in ("x.parquet", "x.npz", "x.mat"):
        (tmp_path / name).write_bytes(b"nothing")
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "scores.json").write_text("{}")
    (tmp_path / "gate.json").write_text('{"wings": 1}')
    for name in ("report.json", "predictions.parquet"):
        (tmp_path / name).write_text("{}")
    files = ("x.parquet", "x.npz", "x.mat", "pipe.parquet", "absent.parquet")
    commands = [["evaluate", "--predictions", file, "--data", prepared] for file in files]
    promote = ["promote", "--model", checkpoint, "--name", "das-demo", "--scores"]
    commands += [[*promote, "."], [*promote, "none"], [*promote, ".", "--gate", "gate.json"]]
    lines = refusals(tmp_path, commands)
    assert all(file in line for file, line in zip(files, lines, strict=False)) and "wings" in lines[-1]
    assert "scores = 'none', wanted scores.json" in lines[-2]


def test_predictions_are_refused_before_the_images_are_read(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    (line,) = refusals(tmp_path, [["evaluate", "--predictions", "x.parquet", "--data", "no-such-folder"]])
    assert "x.parquet: not a Parquet file" in line


def test_originals_that_cannot_be_planned_are_refused_without_ray(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos" / "annotations").mkdir(parents=True)
    for name in ("train", "val"):
        (tmp_path / "photos" / "annotations" / f"person_keypoints_{name}2017.json").write_text("{")
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    write_mpi_arrays(arrays, ["S1_Seq2_Cam0_000004.jpg"])
    shutil.move(arrays / "cameras_train.pkl", tmp_path / "outside.pkl")
    (arrays / "cameras_train.pkl").symlink_to(tmp_path / "outside.pkl")
    roots = [("coco", "absent"), ("panoptic", "empty"), ("coco", "photos"), ("mpi_inf_3dhp", "arrays")]
    lines = refusals(tmp_path, [["prepare", "--source", s, "--root", root, "--out", f"o-{s}"] for s, root in roots])
    assert "cameras_train.pkl: leads out of" in lines[-1] and not list(tmp_path.glob("o-*"))


# Source -> layout, a file of one frame, and the field that names it: list and field of a JSON file, or of lines.
NAMED = {
    "panoptic": (write_panoptic, "160906_pizza1/hdImgs/00_16/00_16_00000001.jpg", None),
    "panoptic pose": (write_panoptic, "160906_pizza1/hdPose3d_stage1_coco19/body3DScene_00000001.json", None),
    "panoptic folder": (write_panoptic, "160906_pizza1/hdImgs/00_16", None),
    "synthetic": (write_panoptic, "studio_test_pizza1/hdImgs/00_16/00_16_00000001.jpg", None),
    "coco": (write_coco, "train2017/000000000001.jpg", "annotations/person_keypoints_train2017.json"),
    "muco": (write_muco, "unaugmented_set/1.jpg", "MuCo-3DHP.json"),
    "mupots": (write_mupots, "TS1/img_000001.jpg", None),
    "custom": (write_custom, "1.jpg", "train.jsonl"),
    "mpi_inf_3dhp arrays": (write_mpi_arrays, "images/S1_Seq1_Cam0_000001.jpg", None),
    "mpi_inf_3dhp": (write_mpi_original, "S1/Seq2/imageFrames/video_0/frame_000001.jpg", None),
}
ARGUMENTS = {
    write_muco: [["unaugmented_set/1.jpg"]],
    write_mupots: [["TS1/img_000001.jpg"]],
    write_custom: [2],
    write_mpi_arrays: [["S1_Seq1_Cam0_000001.jpg"]],
}


def test_a_link_and_a_stored_name_that_lead_out_of_the_originals_are_refused_without_ray(tmp_path):
    secret, commands, parts = tmp_path / "secret", [], []
    secret.mkdir()
    (secret / "file").write_text("secret")
    for i, (name, (write, file, annotations)) in enumerate(NAMED.items()):
        root = tmp_path / f"link-{i}"
        if write not in (write_custom, write_coco):
            root.mkdir()
        write(root, *(ARGUMENTS.get(write) or ([file.split("/")[0]] if write is write_panoptic else [])))
        named = tmp_path / f"name-{i}"
        if annotations:
            shutil.copytree(root, named)
            text, stored = (named / annotations).read_text(), file.removeprefix("train2017/")
            assert stored in text
            (named / annotations).write_text(text.replace(stored, f"unaugmented_set/../../../{secret.name}/file"))
            commands.append(["prepare", "--source", name.split()[0], "--root", named, "--out", "out"])
            wanted = f"wanted the name of a file inside of {named}"
            parts.append((f"{named / annotations}: entry ", f"found 'unaugmented_set/../../../{secret.name}/", wanted))
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        moved = secret / str(i)
        if path.exists():
            path.rename(moved)
        path.symlink_to(moved)
        commands.append(["prepare", "--source", name.split()[0], "--root", root, "--out", "out"])
        parts.append((f"{path}: leads out of {root}", f"to {moved}: wanted a file inside of it"))
    for line, expected in zip(refusals(tmp_path, commands), parts, strict=True):
        assert all(part in line for part in expected), (line, expected)
    assert not (tmp_path / "out").exists()


def test_object_storage_is_refused_where_only_a_folder_can_be_checked(tmp_path):
    (line,) = refusals(tmp_path, [["doctor", "data", "s3://bucket/originals"]])
    assert "root = 's3://bucket/originals', wanted a folder" in line
