"""Parts of a page (numbers, tables, notes, figures), and their rendering by jinja2 templates.

Here a ``Grid`` is a table of texts as HTML shows it; ``grid_of`` makes one from a ``text_tables.Table`` of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from das.metrics.bootstrap import SURE, Interval
from pipeline.infra.redaction import redacted
from pipeline.infra.text_tables import Table

NOT_MEASURED = "–"


@dataclass(frozen=True)
class Number:
    """A number in large print: its label, the number as text, its unit, and a note below it."""

    label: str
    value: str
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and an interval in small print or ""."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class GridRow:
    """A row of a table: its name and cells; ``ours`` highlights it."""

    name: str
    cells: Sequence[Cell]
    ours: bool = False


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Attributes:
        columns: headings; the first column holds the names of the rows.
        rows: one cell less than there are columns.
        texts: indices of the columns that hold words, which are aligned to the left.
    """

    columns: Sequence[str]
    rows: Sequence[GridRow]
    texts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Note:
    """A sentence, after its label if it has one."""

    text: str
    label: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart with its heading and a caption that explains it; ``id`` is unique in the page."""

    id: str
    title: str
    svg: str
    caption: str


def shown(number: float | None, form: str) -> str:
    """The number in this format (such as ``.1f``); a dash for NaN or None."""
    return NOT_MEASURED if number is None or math.isnan(number) else format(number, form)


def grid_of(table: Table) -> Grid:
    """A table of numbers as texts in the formats of its columns, with the ends of its intervals."""
    forms = [form for _, form in table.columns]
    rows = []
    for name, numbers in table.rows.items():
        intervals = table.intervals.get(name, [None] * len(numbers))
        cells = zip(numbers, intervals, forms, strict=True)
        rows.append(GridRow(name, [Cell(shown(x, form), ends(interval, form)) for x, interval, form in cells]))
    return Grid(["", *(name for name, _ in table.columns)], rows)


def ends(interval: Interval | None, form: str) -> str:
    """``low to high`` in this format; empty without an interval."""
    if interval is None or math.isnan(interval.low):
        return ""
    return f"{interval.low:{form}} to {interval.high:{form}}"


def meaning_of_intervals(table: Table) -> str:
    """A sentence on the level and the method of a table's intervals; empty where it has none."""
    labels = {i.label for row in table.intervals.values() for i in row if i is not None and not math.isnan(i.low)}
    if not labels:
        return ""
    if labels == {SURE}:
        return "In small print: 95 % intervals, by the bootstrap of clusters of at least 5 s."
    return f"In small print: 95 % intervals by the cluster bootstrap, {' or '.join(sorted(labels - {SURE}))}."


def render_page(room: str, template: str, page: Any) -> str:
    """Renders one self-contained HTML file; every text is escaped, and keys in addresses are hidden.

    Args:
        room: package whose templates/ folder holds the template; shared templates are in pipeline/infra/html/templates.
        template: file name of the template.
        page: the object that the template reads as ``page``; at least with ``title`` and ``mark``, a warning beside
            the headings or "".

    Raises:
        jinja2.UndefinedError: a template that reads a field which the page does not have.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(room), jinja2.PackageLoader("pipeline.infra.html")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_keys,
    )
    return environment.get_template(template).render(page=page)


def _without_keys(value: Any) -> Any:
    """A plain text as ``redacted``; what is HTML already, such as a chart, is unchanged."""
    return redacted(value) if type(value) is str else value
