"""The one command line: what is documented can be typed, and every option is explained."""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.demo import next_commands

PROJECT = Path(__file__).resolve().parents[1]
JOBS = sorted(p.stem for p in (PROJECT / "jobs").glob("*.py") if p.stem != "__init__")
# Where the function behind each command, or each of its own commands, lives.
FUNCTIONS = {
    "render": "pipeline.studio.render_job.render_with_ray",
    "doctor data": "pipeline.data.doctor.doctor",
    "prepare": "pipeline.data.prepare.convert.convert",
    "data stats": "pipeline.data.browse.stats.stats",
    "data show": "pipeline.data.browse.show.show",
    "train-panoptic": "pipeline.training.fit.fit",
    "train-mupots": "pipeline.training.fit.fit",
    "evaluate": "pipeline.evaluation.command.run_evaluation",
    "promote": "pipeline.registry.promote.promote",
    "registry": "pipeline.registry.queries.run_command",
    "predict": "pipeline.predict.predict.predict",
    "sweep": "pipeline.training.sweep.sweep",
    "benchmark": "pipeline.evaluation.benchmark.benchmark.benchmark",
    "demo": "pipeline.demo.demo",
}


class Called(Exception):
    """A command has been understood: its function was called with the configuration in ``args``."""


@pytest.fixture
def understood(monkeypatch):
    """A function that parses a command line as `das` would and returns the configuration, running nothing."""

    def stop(config):
        raise Called(config)

    for path in FUNCTIONS.values():
        module, _, name = path.rpartition(".")
        monkeypatch.setattr(importlib.import_module(module), name, stop)

    def parse(arguments):
        with pytest.raises(Called) as called:
            cli.main(arguments)
        return called.value.args[0]

    return parse


def documented() -> list[list[str]]:
    """Arguments of `das` in every command that the jobs' docstrings, the README and the pages in docs/ show."""
    texts = [ast.get_docstring(ast.parse((PROJECT / "jobs" / f"{job}.py").read_text())) for job in JOBS]
    for page in (PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))):
        texts += re.findall(r"```(?:bash|sh|console)?\n(.*?)```", page.read_text(), re.DOTALL)
    found = []
    for line in "\n".join(texts).replace("\\\n", " ").splitlines():
        command = re.match(r"\s*(?:ray job submit .*-- )?(?:python jobs/(\w+)\.py|das ([\w-]+))(.*)", line)
        if command:
            name = (command[1] or command[2]).replace("_", "-")
            found.append([name, *shlex.split(command[3].split(" > ")[0], comments=True)])
    return found


@pytest.mark.parametrize("arguments", documented(), ids=" ".join)
def test_what_the_documents_show_can_be_typed(understood, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    skeleton = re.search(r'```json\n({"name".*?)```', (PROJECT / "docs/bring_your_own.md").read_text(), re.DOTALL)
    for word in arguments:
        if word.endswith((".jpg", ".json")) and not word.startswith("/"):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).write_text(skeleton[1])
    if "--help" in arguments:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert not ended.value.code
    elif "..." not in arguments:
        assert dataclasses.is_dataclass(understood(arguments))


def test_what_the_demo_offers_next_can_be_typed(understood, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").touch()
    das, mlflow = map(shlex.split, next_commands("models:/das-demo@champion", "sqlite:////a folder/mlflow.db"))
    assert all(os.access(program, os.X_OK) for program in (das[0], mlflow[0]))
    config = understood(das[1:])
    assert (config.model, config.tracking_uri) == ("models:/das-demo@champion", "sqlite:////a folder/mlflow.db")
    assert mlflow[1:] == ["ui", "--backend-store-uri", "sqlite:////a folder/mlflow.db"]


def test_every_job_is_documented_and_is_the_command_of_its_name():
    assert {job.replace("_", "-") for job in JOBS} == cli.COMMANDS.keys() == {name.split()[0] for name in FUNCTIONS}
    assert {command for command, *_ in documented()} >= cli.COMMANDS.keys() - {"demo"}
    for job in JOBS:
        path = PROJECT / "jobs" / f"{job}.py"
        assert os.access(path, os.X_OK) and path.read_text().startswith("#!/usr/bin/env python3\n"), path
        assert f'main(["{job.replace("_", "-")}", *sys.argv[1:]])' in path.read_text()


def test_flags_reach_the_configuration(understood):
    config = understood(
        ["train-panoptic", "ours", "--data", "a", "b", "--repeat", "1", "2", "--model.pose-weight", "3", "--no-gpu"]
    )
    assert config.data == ("a", "b") and config.repeat == (1, 2) and not config.gpu
    assert config.model.build().pose_weight == 3.0 and config.optim.amp == "auto"


def test_without_a_command_the_commands_are_listed_by_group(capsys):
    cli.main([])
    usage = capsys.readouterr().out
    for group, functions in cli.GROUPS.items():
        part = usage.partition(f"\n{group}\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in part.splitlines()] == [f.__name__.replace("_", "-") for f in functions]
        assert all(f.__doc__ in part for f in functions)


def test_the_readme_lists_the_commands_in_the_words_of_help():
    rows = re.findall(r"^\| ([\w ]*) \| `([\w-]+)` \| (.*) \|$", (PROJECT / "README.md").read_text(), re.MULTILINE)
    assert [name for _, name, _ in rows] == [*cli.COMMANDS]
    assert [f"{words}." for _, _, words in rows] == [f.__doc__ for f in cli.COMMANDS.values()]
    assert [group for group, _, _ in rows if group] == [*cli.GROUPS]


def dataclasses_below(config) -> set[type]:
    """The class and all dataclasses that its fields hold."""
    found = {config}
    for hint in typing.get_type_hints(config).values():
        for kind in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(kind):
                found |= dataclasses_below(kind)
    return found


@pytest.mark.parametrize("path", sorted(set(FUNCTIONS.values())))
def test_every_option_has_its_sentence(path):
    module, _, name = path.rpartition(".")
    function = getattr(importlib.import_module(module), name)
    config = next(iter(typing.get_type_hints(function).values()))
    for kind in dataclasses_below(config):
        (body,) = (n.body for n in ast.parse(inspect.getsource(kind)).body if isinstance(n, ast.ClassDef))
        for field, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert explained, f"{kind.__name__}.{ast.unparse(field.target)} has no sentence below it"


@pytest.mark.parametrize("arguments", [[], *([*name.split(), "--help"] for name in FUNCTIONS)], ids=" ".join)
def test_help_imports_neither_ray_nor_mlflow_nor_torch(arguments):
    """Each takes about a second to import; without them and these others `das COMMAND --help` takes a third of one."""
    heavy = {"torch", "ray", "mlflow", "pyarrow", "matplotlib", "scipy", "pycocotools", "jinja2"}
    code = f"""
import atexit, sys
from pipeline import cli
atexit.register(lambda: print({heavy} & set(sys.modules), file=sys.stderr))
cli.main({arguments})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout and done.stderr.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fly"], "unknown command 'fly', wanted one of render, doctor, prepare"),
        (["train-panoptic"], "Expected one of {release, ours, paper, small}"),
        (["train-panoptic", "huge"], "Unrecognized options: huge. Available subcommands: release, ours, paper, small"),
        (["train-panoptic", "small", "--wings", "2"], "Unrecognized options: --wings, 2"),
        (["train-panoptic", "small", "--workers", "two"], "Error parsing --workers: invalid literal"),
        (["train-panoptic", "small", "--workers", "0"], "workers = 0, wanted at least 1"),
        (["train-panoptic", "small", "--model.joints", "coco99"], "unknown joint set 'coco99'; known: panoptic15"),
        (["train-panoptic", "small", "--optim.lr", "-1"], "lr = -1.0, wanted above 0"),
        (["sweep", "small", "--trials", "0"], "trials = 0, wanted at least 1"),
        (["prepare", "--source", "films", "--root", "a", "--out", "b"], "invalid choice 'films'"),
        (["render"], "--out"),
        (["doctor"], "Expected one of {data}"),
        (["data"], "Expected one of {stats, show}"),
        (["data", "draw"], "draw"),
        (["doctor", "data", "a", "--names", "-1"], "names = -1, wanted at least 0"),
        (["data", "show", "a", "--count", "0"], "count = 0, wanted at least 1"),
        (["data", "stats", "a", "--assigned", "-1"], "assigned = -1, wanted at least 0"),
    ],
)
def test_a_mistake_in_the_flags_is_one_line_and_status_2(understood, capsys, arguments, line):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    (error,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and error.startswith("das: ") and line in error
    assert not set(error) & set("╭╮╰╯│─")
