"""Imports run one way, jobs -> pipeline -> das, and heavy packages stay behind their one or two doors."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

# Package -> the only files (or folders) that may import it.
DOORS = {
    "mlflow": ("pipeline/infra/mlflow_client.py", "pipeline/tracking/tracker.py", "pipeline/registry/models_store.py"),
    "pyarrow": (
        "pipeline/data/schema.py",
        "pipeline/data/shards.py",
        "pipeline/infra/files.py",
        "pipeline/infra/columns.py",
    ),
}
# Folder -> what nothing below it may import.
BARRED = {
    "das": ("pipeline", "jobs", "ray", "mlflow", "pyarrow", "tyro"),
    "pipeline": ("jobs",),
    "pipeline/datasets": ("ray",),
    "": ("torchvision", "mmcv"),
}


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


def violations(root: Path) -> list[str]:
    """Every import that crosses a line, as `file imports package`."""
    found = []
    for path in sorted(p for package in ("das", "pipeline", "jobs") for p in (root / package).rglob("*.py")):
        where = path.relative_to(root).as_posix()
        tops = {name.split(".")[0] for name in imported(path, root)}
        barred = {
            top for folder, names in BARRED.items() if where.startswith(f"{folder}/" if folder else "") for top in names
        }
        barred |= {package for package, doors in DOORS.items() if where not in doors}
        found += [f"{where} imports {top}" for top in sorted(tops & barred)]
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
    assert len(list((PROJECT / "das").glob("*.py"))) > 5
    assert violations(PROJECT) == []


def test_datasets_reach_no_ray_through_other_modules():
    for path in (PROJECT / "pipeline/datasets").glob("*.py"):
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
        ("pipeline/data/prepare/convert.py", "from pyarrow import fs", "pyarrow"),
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
        ("jobs/demo.py", "from pipeline.training import fit"),
        ("das/model.py", "from . import config  # imports ray in no way but a comment"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path, file, line):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert violations(tmp_path) == []


def test_a_way_through_another_module_is_found(tmp_path):
    for name, line in (("datasets/coco.py", "from pipeline import helper"), ("helper.py", "import ray")):
        path = tmp_path / "pipeline" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line + "\n")
    assert reaches(tmp_path, tmp_path / "pipeline/data/sources/coco.py", "ray") == ["pipeline/helper.py"]
