"""Tables of numbers: one form for the terminal, CSV files and JSON reports."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of numbers under named columns; NaN means not measured.

    Attributes:
        name: file name without ending. title: a sentence for readers.
        columns: (name, format such as ``.1f``) of each column.
        rows: numbers by the row's name.
        detail: too long for a terminal; files have it.
    """

    name: str
    title: str
    columns: Sequence[tuple[str, str]]
    rows: Mapping[str, Sequence[float]]
    detail: bool = False

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows.values()), self.name

    def text(self) -> str:
        """Title, head and rows, aligned for a terminal."""
        cells = [("", *(name for name, _ in self.columns))]
        for row, numbers in self.rows.items():
            shown = (_shown(x, form) for x, (_, form) in zip(numbers, self.columns, strict=True))
            cells.append((row, *shown))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join([name.ljust(widths[0]), *map(str.rjust, row, widths[1:])]) for name, *row in cells)
        return "\n".join((self.title, *(f"  {line}" for line in lines)))

    def csv(self) -> str:
        """The same with all digits; empty where not measured."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([self.name, *(name for name, _ in self.columns)])
        writer.writerows([row, *("" if math.isnan(x) else x for x in numbers)] for row, numbers in self.rows.items())
        return out.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where not measured."""
        columns = [name for name, _ in self.columns]
        return {"name": self.name, "title": self.title, "columns": columns, "rows": {
            row: [None if math.isnan(x) else x for x in numbers] for row, numbers in self.rows.items()
        }}  # fmt: skip


def _shown(number: float, form: str) -> str:
    return "-" if math.isnan(number) else format(number, form)
