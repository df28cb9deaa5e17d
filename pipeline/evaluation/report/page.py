"""A published table with our numbers below it, as a part of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.protocols.table import PROTOCOLS, Protocol
from pipeline.evaluation.report.published import UNKNOWN, Published
from pipeline.infra.html.page import Cell, Grid, GridRow, Note, shown


@dataclass(frozen=True)
class Comparison:
    """A published table with our rows in it."""

    id: str
    title: str
    notes: Sequence[Note]
    source: str
    grid: Grid


def published_comparison(table: Published, ours: Mapping[str, Sequence[float]], notes: Sequence[Note]) -> Comparison:
    """The rows of a published table, and below them ours: a number for each of its columns, by the row's name."""
    forms = [form for _, form in table.columns]

    def cells(kind: str, numbers: Sequence[float], note: str) -> list[Cell]:
        return [Cell(kind), *(Cell(shown(n, form)) for n, form in zip(numbers, forms, strict=True)), Cell(note)]

    rows = [GridRow(row.method, cells(row.kind, row.numbers, row.note)) for row in table.rows]
    rows += [GridRow(name, cells("", numbers, ""), ours=True) for name, numbers in ours.items()]
    columns = ["method", "kind", *(name for name, _ in table.columns), "note"]
    source = f"Published: {table.source}; {table.conditions}."
    return Comparison(table.id, table.title, notes, source, Grid(columns, rows, texts=(1, len(columns) - 1)))


def comparisons(annotations: Annotations, metrics: Mapping[str, float]) -> list[Comparison]:
    """Every published table for which a protocol gave numbers, in the order of PROTOCOLS.

    Args:
        annotations: the images that were scored.
        metrics: numbers of the protocols, names without the train-fit mark.
    """
    found = []
    for table in {p.table.id: p.table for p in PROTOCOLS if p.table is not None}.values():
        protocols = [p for p in PROTOCOLS if p.table is not None and p.table.id == table.id]
        ours = _rows(table, [p.rows for p in protocols], metrics)
        # The last column is the one number that every row has: a mean, or a share of all joints.
        if not any(not math.isnan(metrics.get(p.rows[name][-1], UNKNOWN)) for p in protocols for name in p.rows):
            continue
        ours |= _rows(table, [p.baseline_rows for p in protocols], metrics)
        found.append(published_comparison(table, ours, _notes(annotations, table, protocols)))
    return found


def _rows(
    table: Published, named: Sequence[Mapping[str, tuple[str, ...]]], metrics: Mapping[str, float]
) -> dict[str, tuple[float, ...]]:
    rows = {}
    for name, columns in (item for rows_ in named for item in rows_.items()):
        if not any(metric in metrics for metric in columns):
            continue
        numbers = [metrics.get(metric, UNKNOWN) for metric in columns]
        if table.last_is_mean and any(math.isnan(x) for x in numbers[:-1]):
            # Our mean is then over other activities than the table's and cannot be compared with it.
            numbers[-1] = UNKNOWN
        rows[name] = tuple(numbers)
    return rows


def _notes(annotations: Annotations, table: Published, protocols: Sequence[Protocol]) -> list[Note]:
    """What our rows were measured on and whether the table's rows were too; which protocols are optimistic."""
    images = f"{len(annotations.index):,} images"
    if {manifest.source for manifest in annotations.manifests} == {table.data_source}:
        about = Note(f"Our rows: {images} of {annotations.name}; the table: {table.data}.")
    else:
        text = f"Our rows: {images} of {annotations.name}, which are not {table.data}. Same protocol, other data."
        about = Note(text, "not comparable")
    return [about, *(Note(f"{p.title} {p.optimistic}.", "optimistic") for p in protocols if p.optimistic)]
