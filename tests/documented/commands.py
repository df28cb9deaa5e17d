"""Shell commands printed in pages, docstrings and the comments of cluster.yaml, read from the files themselves.

In a page every fenced block without a language, or with a shell's, is a block of commands; anything else in a fence
has its language named (text, python, json). In docstrings and comments it is an indented paragraph that begins with a
program.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
_SHELL = ("", "bash", "sh", "console")
_PROGRAM = re.compile(r"(?:das|python|ray|make|mlflow|pytest|pip|git|export) ")


@dataclass(frozen=True)
class Block:
    """One block of commands.

    Attributes:
        file: relative to the project.
        line: number of its first line in the file, from 1.
        text: as it is printed, without the indentation.
    """

    file: str
    line: int
    text: str

    @property
    def lines(self) -> list[str]:
        """Its commands as they are printed, continued lines joined, without lines that are comments only."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in joined if shlex.split(line, comments=True)]

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, without comments and redirections; what the shell itself does is left out."""
        found = [shlex.split(line, comments=True) for line in self.lines]
        found = [words[: next((i for i, word in enumerate(words) if word[0] == ">"), None)] for words in found]
        return [words for words in found if words[0] != "export"]


@cache
def blocks() -> tuple[Block, ...]:
    """All blocks of the project, file by file in the order in which they stand there."""
    folders = (PROJECT / name for name in ("jobs", "docs", "pipeline", "das", "benchmarks"))
    code = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    found = [
        *(block for page in PAGES for block in _fenced(page)),
        *(block for path in code for block in _in_docstrings(path)),
        *_in_comments(PROJECT / "cluster.yaml"),
    ]
    return tuple(found)


def _fenced(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for fence in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if fence[1] in _SHELL:
            yield Block(_name(page), text.count("\n", 0, fence.start(2)) + 1, fence[2])


def _in_docstrings(path: Path) -> Iterator[Block]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            first = node.body[0].lineno
            yield from _indented(_name(path), first, text.splitlines(), "    ")


def _in_comments(path: Path) -> Iterator[Block]:
    lines = [line if line.startswith("#") else "" for line in path.read_text().splitlines()]
    yield from _indented(_name(path), 1, lines, "#   ")


def _indented(file: str, first: int, lines: list[str], indent: str) -> Iterator[Block]:
    """Neighbouring indented lines, where the first of them begins with a program."""
    taken: list[str] = []
    for number, line in enumerate([*lines, ""], first):
        if line.startswith(indent):
            taken.append(line.removeprefix(indent))
        else:
            if taken and _PROGRAM.match(taken[0]):
                yield Block(file, number - len(taken), "\n".join(taken) + "\n")
            taken = []


def _name(path: Path) -> str:
    return str(path.relative_to(PROJECT))
