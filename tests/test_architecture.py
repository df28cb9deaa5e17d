"""docs/architecture.md says what is there: the rooms, the way of a sample, and files that exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.test_imports import INNER, ROOMS

PROJECT = Path(__file__).resolve().parents[1]
PAGE = (PROJECT / "docs/architecture.md").read_text()


def summary(room: str, package: Path = PROJECT / "pipeline") -> str:
    """First line of the docstring of a room or module."""
    path = package / room / "__init__.py" if (package / room).is_dir() else package / f"{room}.py"
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


def drawing() -> str:
    """The rooms of pipeline/, the highest first; `python -m tests.test_architecture` prints it."""
    width = max(len(name) for line in ROOMS for name in line) + 4
    lines = ["pipeline/"]
    for group in reversed(ROOMS):
        for name in group:
            lines.append(f"  {name:<{width}}{summary(name)}")
            folder = PROJECT / "pipeline" / name
            order = [inner for line in reversed(INNER.get(name, ())) for inner in line]
            found = (
                {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
                if folder.is_dir()
                else set()
            )
            for inner in [*order, *sorted(found - set(order))]:
                lines.append(f"    {inner:<{width - 2}}{summary(inner, folder)}")
        lines.append("")
    return "\n".join(lines).rstrip()


def test_the_page_draws_the_rooms_that_the_rule_lists():
    assert drawing() in PAGE


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:das|pipeline)(?:\.\w+)+)`", PAGE))))
def test_every_function_on_the_way_of_a_sample_exists(name):
    module, attribute = name, ""
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, head = module.rpartition(".")
            attribute = f"{head}.{attribute}"
    for part in filter(None, attribute.split(".")):
        found = getattr(found, part)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:das|pipeline|tests|jobs|docs)/[\w./]+\.(?:py|md|html))`", PAGE)))
)
def test_every_file_of_the_page_exists(path):
    assert (PROJECT / path).is_file() or "NAME" in path


if __name__ == "__main__":
    print(drawing())
