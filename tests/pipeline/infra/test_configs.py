"""Choices of the command line follow a table of names, and configurations flatten to dotted names."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import tyro

from pipeline.infra.configs import flat, one_of

COLOURS = {"red": 0, "green": 1}


@dataclass(frozen=True)
class Inner:
    width: int = 8
    options: dict[str, int] = field(default_factory=lambda: {"depth": 2})


@dataclass(frozen=True)
class Outer:
    colour: Annotated[str, one_of(COLOURS)] = "red"
    other: Annotated[str, one_of(COLOURS)] | None = None
    inner: Inner = field(default_factory=Inner)


def test_a_name_of_the_table_is_taken_and_none_stays_possible():
    assert tyro.cli(Outer, args=["--colour", "green"]).colour == "green"
    assert tyro.cli(Outer, args=[]).other is None
    assert tyro.cli(Outer, args=["--other", "red"]).other == "red"


def test_another_name_is_refused_with_the_names_of_the_table(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Outer, args=["--colour", "blue"])
    printed = capsys.readouterr()
    assert all(name in printed.out + printed.err for name in ("blue", "red", "green"))


def test_the_help_lists_the_names(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Outer, args=["--help"])
    assert "{red,green}" in capsys.readouterr().out


def test_nested_configurations_become_dotted_names():
    expected = {"colour": "green", "other": None, "inner.width": 8, "inner.options.depth": 2}
    assert flat(Outer("green")) == expected
    assert flat({"a": Outer, "b": {"c": {"d": 1}, "e": {}}}, "run.") == {"run.a": Outer, "run.b.c.d": 1}
