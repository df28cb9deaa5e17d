"""What pages are made of, and how they become HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.report.published import Published
from pipeline.infra.html.page import Cell, Grid, GridRow, Note, shown


@dataclass(frozen=True)
class Comparison:
    """A published table with our rows in it."""

    id: str
    title: str
    notes: Sequence[Note]
    source: str
    grid: Grid


def beside(id: str, table: Published, ours: Mapping[str, Sequence[float]], notes: Sequence[Note]) -> Comparison:
    """The paper's table, and below it our rows: numbers for each of its columns, by the row's name."""
    forms = [form for _, form in table.columns]

    def cells(kind: str, numbers: Sequence[float], note: str) -> list[Cell]:
        return [Cell(kind), *(Cell(shown(n, form)) for n, form in zip(numbers, forms, strict=True)), Cell(note)]

    rows = [GridRow(row.method, cells(row.kind, row.numbers, row.note)) for row in table.rows]
    rows += [GridRow(name, cells("", numbers, ""), ours=True) for name, numbers in ours.items()]
    columns = ["method", "kind", *(name for name, _ in table.columns), "note"]
    source = f"Published: {table.source}; {table.conditions}."
    return Comparison(id, table.title, notes, source, Grid(columns, rows, texts=(1, len(columns) - 1)))
