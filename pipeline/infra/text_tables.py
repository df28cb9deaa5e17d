"""Small tables of numbers with confidence intervals, written to the terminal, CSV files, JSON reports and pages.

A ``Table`` is for readers. columns.py writes files of many rows; das.metrics.tables holds ground truth and predictions
as arrays, which metrics are computed from.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from das.metrics.bootstrap import Interval, Ratio


@dataclass(frozen=True)
class Table:
    """Rows of numbers under named columns; NaN means not measured.

    Attributes:
        name: file name without ending.
        title: heading.
        columns: (name, format such as ``.1f``) of each column.
        rows: numbers of each row by its name, one for each column.
        detail: too long for a terminal; written to files only.
        intervals: interval or None for each number of a row, by the row's name; a row without intervals is absent.
    """

    name: str
    title: str
    columns: Sequence[tuple[str, str]]
    rows: Mapping[str, Sequence[float]]
    detail: bool = False
    intervals: Mapping[str, Sequence[Interval | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in (*self.rows.values(), *self.intervals.values()):
            assert len(row) == len(self.columns), self.name
        assert self.intervals.keys() <= self.rows.keys(), self.name

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        columns: Sequence[tuple[str, str]],
        cells: Mapping[str, Sequence[float | Interval]],
        detail: bool = False,
    ) -> Table:
        """A table from rows whose cells are numbers or intervals; the number of an interval is its ``value``."""
        rows = {r: [c.value if isinstance(c, Interval) else float(c) for c in row] for r, row in cells.items()}
        intervals = {r: [c if isinstance(c, Interval) else None for c in row] for r, row in cells.items()}
        shown = {r: row for r, row in intervals.items() if any(row)}
        return cls(name, title, columns, rows, detail, shown)

    def text(self) -> str:
        """Title, column names and rows, aligned for a terminal; intervals are on a line below their row."""
        cells = [("", *(name for name, _ in self.columns))]
        forms = [form for _, form in self.columns]
        for row, numbers in self.rows.items():
            cells.append((row, *map(_shown, numbers, forms)))
            found = self.intervals.get(row, ())
            if any(i is not None and not math.isnan(i.low) for i in found):
                # All numbers of a row are of the same images, so their intervals have the same label.
                (label, *_) = (i.label for i in found if i is not None)
                cells.append((f"  {label}", *(_ends(i, form) for i, form in zip(found, forms, strict=True))))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join([name.ljust(widths[0]), *map(str.rjust, row, widths[1:])]) for name, *row in cells)
        return "\n".join((self.title, *(f"  {line}" for line in lines)))

    def csv(self) -> str:
        """CSV with all digits; an unmeasured number is empty. The ends of intervals follow their column."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        marked = [any(row[i] is not None for row in self.intervals.values()) for i in range(len(self.columns))]
        head = [self.name]
        for (name, _), ends in zip(self.columns, marked, strict=True):
            head += [name, f"{name} low", f"{name} high"] if ends else [name]
        writer.writerow([*head, *(["interval"] if any(marked) else [])])
        for row, numbers in self.rows.items():
            found = self.intervals.get(row, [None] * len(numbers))
            cells: list[float] = []
            for number, interval, ends in zip(numbers, found, marked, strict=True):
                low, high = (math.nan, math.nan) if interval is None else (interval.low, interval.high)
                cells += [number, low, high] if ends else [number]
            labels = list(dict.fromkeys(i.label for i in found if i is not None))[:1] or [""]
            writer.writerow([row, *("" if math.isnan(x) else x for x in cells), *(labels if any(marked) else [])])
        return out.getvalue()

    def to_json(self) -> dict[str, Any]:
        """The table as plain values; an unmeasured number is null."""
        columns = [name for name, _ in self.columns]
        return {
            "name": self.name,
            "title": self.title,
            "columns": columns,
            "rows": {row: [_plain(x) for x in numbers] for row, numbers in self.rows.items()},
            "intervals": {row: [_interval_json(i) for i in found] for row, found in self.intervals.items()},
        }


@dataclass(frozen=True)
class Numbers:
    """The results of a protocol.

    Attributes:
        metrics: all numbers by their names in MLflow.
        tables: the same numbers and more, for readers.
        scores: by name, the metrics that are ratios of sums over images; their intervals are bootstrapped.
    """

    metrics: dict[str, float]
    tables: tuple[Table, ...]
    scores: dict[str, Ratio]


def ends_as_metrics(name: str, interval: Interval) -> dict[str, float]:
    """A number and the ends of its interval as metrics ``name``, ``name_low`` and ``name_high``."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _ends(interval: Interval | None, form: str) -> str:
    if interval is None or math.isnan(interval.low):
        return ""
    return f"{_shown(interval.low, form)}..{_shown(interval.high, form)}"


def _plain(number: float) -> float | None:
    return None if math.isnan(number) else number


def _interval_json(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    ends = {"low": _plain(interval.low), "high": _plain(interval.high)}
    return {**ends, "clusters": interval.clusters, "label": interval.label}


def _shown(number: float, form: str) -> str:
    return "-" if math.isnan(number) else format(number, form)
