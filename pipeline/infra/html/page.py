"""What pages are made of, and how they become HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from das.metrics.bootstrap import SURE, Interval
from pipeline.infra.text_tables import Table

NOT_MEASURED = "–"


@dataclass(frozen=True)
class Number:
    """A number to be read from afar: what it is, the number as text, its unit, and what it stands beside."""

    label: str
    value: str
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A table's cell, with an interval in small print where there is one."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class GridRow:
    """A row's name and cells; ``ours`` sets it off."""

    name: str
    cells: Sequence[Cell]
    ours: bool = False


@dataclass(frozen=True)
class Grid:
    """A table to be shown; the first column holds the rows' names. ``texts`` are the columns that hold words."""

    columns: Sequence[str]
    rows: Sequence[GridRow]
    texts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Note:
    """A sentence, after a label if there is one."""

    text: str
    label: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart with its heading and what one must know to read it."""

    id: str
    title: str
    svg: str
    caption: str


def shown(number: float | None, form: str) -> str:
    """The number in that format; a dash for NaN or None."""
    return NOT_MEASURED if number is None or math.isnan(number) else format(number, form)


def grid_of(table: Table) -> Grid:
    """A table of an evaluation, in its own formats, with the ends of its intervals."""
    forms = [form for _, form in table.columns]
    rows = []
    for name, numbers in table.rows.items():
        intervals = table.intervals.get(name, [None] * len(numbers))
        cells = zip(numbers, intervals, forms, strict=True)
        rows.append(GridRow(name, [Cell(shown(x, form), ends(interval, form)) for x, interval, form in cells]))
    return Grid(["", *(name for name, _ in table.columns)], rows)


def ends(interval: Interval | None, form: str) -> str:
    """``low to high`` in that format; empty without an interval."""
    if interval is None or math.isnan(interval.low):
        return ""
    return f"{interval.low:{form}} to {interval.high:{form}}"


def meaning_of_intervals(table: Table) -> str:
    """What the intervals of a table promise; empty where it has none."""
    labels = {i.label for row in table.intervals.values() for i in row if i is not None and not math.isnan(i.low)}
    if not labels:
        return ""
    if labels == {SURE}:
        return "In small print: 95 % intervals, by the bootstrap of clusters of at least 5 s."
    return f"In small print: 95 % intervals by the cluster bootstrap, {' or '.join(sorted(labels - {SURE}))}."


def render_page(room: str, template: str, page: Any) -> str:
    """One file of HTML; every text is escaped.

    Args:
        room: package whose templates/ holds the template; what all pages share lies beside this module.
        template: its name.
        page: what the template lays out, under the name ``page``.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(room), jinja2.PackageLoader("pipeline.infra.html")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(page=page)
