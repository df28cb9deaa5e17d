"""Imports run one way, jobs -> pipeline -> das, and heavy packages stay behind their one or two doors."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

# Of pipeline/, from the ground up: a room imports itself and rooms of earlier lines, none of its own or a later line.
ROOMS = (
    ("infra",),
    ("models",),
    ("studio", "tracking"),
    ("data",),
    ("evaluation", "weights"),
    ("training", "registry", "predict"),
    ("demo",),
    ("cli",),
)
# The same inside a room; what is not listed there is below all of it.
INNER = {"data": (("sources",), ("check",), ("catalog",), ("doctor", "prepare", "browse"))}
# Package -> the only files (or folders) that may import it.
DOORS = {
    "mlflow": ("pipeline/tracking/", "pipeline/registry/", "pipeline/infra/mlflow_client.py"),
    "pyarrow": ("pipeline/infra/files.py", "pipeline/infra/columns.py", "pipeline/data/"),
}
# Folder -> what nothing below it may import.
BARRED = {
    "das": ("pipeline", "jobs", "ray", "mlflow", "pyarrow", "tyro"),
    "pipeline": ("jobs",),
    "pipeline/data/sources": ("ray",),
    "": ("torchvision", "mmcv"),
}
# Rooms of das/ that the method, the files beside them, does without.
ASIDE = ("das.metrics", "das.draw", "das.release")


def imported(path: Path, root: Path) -> set[str]:
    """Absolute dotted names of all that a file imports, anywhere in it and for whatever reason."""
    names: set[str] = set()
    package = path.relative_to(root).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, node.module) if node.module else base)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                names.add(str(first.value))
    return names


def height(rooms: Sequence[Sequence[str]], name: str) -> int:
    """The index of the line that lists a room; -1 if none does."""
    return next((i for i, line in enumerate(rooms) if name in line), -1)


def barred_rooms(names: set[str], package: str, room: str, rooms: Sequence[Sequence[str]]) -> set[str]:
    """Rooms of ``package`` among the imported names that this room may not import."""
    others = {name.split(".")[len(package.split("."))] for name in names if name.startswith(f"{package}.")} - {room}
    return {f"{package}.{other}" for other in others if height(rooms, other) >= max(height(rooms, room), 0)}


def violations(root: Path) -> list[str]:
    """Every import that crosses a line, as `file imports package`."""
    found = []
    for path in sorted(p for package in ("das", "pipeline", "jobs") for p in (root / package).rglob("*.py")):
        where = path.relative_to(root).as_posix()
        names = imported(path, root)
        tops = {name.split(".")[0] for name in names}
        barred = {
            top for folder, names in BARRED.items() if where.startswith(f"{folder}/" if folder else "") for top in names
        }
        barred |= {package for package, doors in DOORS.items() if not where.startswith(doors)}
        crossed = tops & barred
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] == "pipeline" and parts[1] != "__init__":
            crossed |= barred_rooms(names, "pipeline", parts[1], ROOMS)
            if parts[1] in INNER:
                crossed |= barred_rooms(names, f"pipeline.{parts[1]}", parts[2], INNER[parts[1]])
        if parts[0] == "das" and len(parts) == 2:
            crossed |= {room for room in ASIDE if any(name == room or name.startswith(f"{room}.") for name in names)}
        found += [f"{where} imports {name}" for name in sorted(crossed)]
    return found


def reaches(root: Path, start: Path, package: str) -> list[str]:
    """Project files on a way from `start` to an import of `package`, also through other project files."""
    way, todo, seen = [], [start], set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        names = imported(path, root)
        if any(name.split(".")[0] == package for name in names):
            way.append(path.relative_to(root).as_posix())
        todo += [file for name in names if (file := root / (name.replace(".", "/") + ".py")).is_file()]
    return way


def test_imports_run_one_way():
    assert violations(PROJECT) == []


def test_every_module_of_pipeline_stands_in_a_room():
    listed = {name for line in ROOMS for name in line}
    found = {path.stem for path in (PROJECT / "pipeline").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__init__", "__pycache__"} == listed
    inner = {name for line in INNER["data"] for name in line}
    inside = {path.stem for path in (PROJECT / "pipeline/data").iterdir() if path.is_dir() or path.stem in inner}
    assert inside - {"__pycache__"} == inner


def test_folders_and_files_keep_a_size_that_can_be_overlooked():
    """At most 22 modules a folder (das/, flat and read in a stated order, 30), at most 400 lines a module."""
    for folder in {
        path.parent for package in ("das", "pipeline", "jobs") for path in (PROJECT / package).rglob("*.py")
    }:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= (30 if folder == PROJECT / "das" else 22), folder
        for path in modules:
            assert len(path.read_text().splitlines()) <= 400, path


def test_datasets_reach_no_ray_through_other_modules():
    for path in (PROJECT / "pipeline/data/sources").glob("*.py"):
        assert reaches(PROJECT, path, "ray") == [], path.name


@pytest.mark.parametrize(
    ("file", "line", "package"),
    [
        ("das/model.py", "import ray", "ray"),
        ("das/model.py", "def f():\n    from mlflow.tracking import MlflowClient", "mlflow"),
        ("das/model.py", "if False:\n    import pyarrow.parquet as pq", "pyarrow"),
        ("das/model.py", "import tyro", "tyro"),
        ("das/model.py", "from pipeline.training import fit", "pipeline"),
        ("das/model.py", "from ..jobs import demo", "jobs"),
        ("das/model.py", "import importlib\nimportlib.import_module('ray.data')", "ray"),
        ("pipeline/training/fit.py", "from jobs.demo import main", "jobs"),
        ("pipeline/training/fit.py", "import mlflow", "mlflow"),
        ("pipeline/data/record.py", "from pipeline.evaluation.score import score", "pipeline.evaluation"),
        ("pipeline/tracking/tracker.py", "from pipeline import studio", "pipeline.studio"),
        ("pipeline/infra/files.py", "import pipeline.models", "pipeline.models"),
        ("pipeline/models.py", "def f():\n    from pipeline.registry.gate import Gate", "pipeline.registry"),
        ("pipeline/training/loop.py", "from pipeline.predict.predict import predict", "pipeline.predict"),
        ("pipeline/demo.py", "from pipeline.cli import main", "pipeline.cli"),
        ("pipeline/data/schema.py", "from pipeline.data.sources.base import Shard", "pipeline.data.sources"),
        ("pipeline/data/prepare/convert.py", "from ..browse import stats", "pipeline.data.browse"),
        ("das/decode.py", "from das.metrics.tables import Truth", "das.metrics"),
        ("pipeline/evaluation/score.py", "from pyarrow import fs", "pyarrow"),
        ("pipeline/data/sources/coco.py", "import ray.data", "ray"),
        ("pipeline/data/sources/coco.py", "import torchvision", "torchvision"),
        ("jobs/demo.py", "import mlflow", "mlflow"),
        ("jobs/demo.py", "from mmcv.ops import DeformConv2d", "mmcv"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, line, package):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert violations(tmp_path) == [f"{file} imports {package}"]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("pipeline/tracking/tracker.py", "import mlflow"),
        ("pipeline/infra/files.py", "import pyarrow"),
        ("pipeline/training/fit.py", "import ray\nimport das.model"),
        (
            "pipeline/training/loop.py",
            "from pipeline.evaluation import score\nfrom pipeline.training import optim",
        ),
        ("pipeline/data/prepare/convert.py", "from pipeline.data.sources.base import Shard"),
        ("pipeline/cli.py", "def f():\n    from pipeline.registry.promote import promote"),
        ("jobs/demo.py", "from pipeline.training import fit"),
        ("das/model.py", "from . import config  # imports ray in no way but a comment"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path, file, line):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    "module",
    [
        "pipeline.evaluation.score",
        "pipeline.evaluation.rescore",
        "pipeline.data.doctor",
        "pipeline.data.browse.stats",
        "pipeline.data.browse.show",
        "pipeline.registry.promote",
        "pipeline.registry.queries",
        "pipeline.predict.predict",
        "pipeline.data.prepare.convert",
        "pipeline.evaluation.evaluate",
        "pipeline.evaluation.benchmark.benchmark",
        "pipeline.weights.import_release",
    ],
)
def test_what_can_be_refused_is_checked_before_ray_torch_and_mlflow_are_imported(module):
    code = f"import sys, {module}; sys.exit(bool({{'ray', 'torch', 'mlflow'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0


def test_a_way_through_another_module_is_found(tmp_path):
    for name, line in (("data/sources/coco.py", "from pipeline import helper"), ("helper.py", "import ray")):
        path = tmp_path / "pipeline" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line + "\n")
    assert reaches(tmp_path, tmp_path / "pipeline/data/sources/coco.py", "ray") == ["pipeline/helper.py"]
