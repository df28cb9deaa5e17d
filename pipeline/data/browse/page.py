"""Plots and tables in one HTML file that needs no other: pictures are SVG within it, and nothing is loaded."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.infra.text_tables import Table

# Okabe and Ito's colours: they differ for everybody.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1100px; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.1em; margin: 2em 0 .4em; }
dl { display: grid; grid-template-columns: max-content auto; gap: .2em 1em; } dt { color: #666; } dd { margin: 0;
     overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 1em; }
.plots svg { width: 100%; height: auto; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .15em .7em; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
"""


@dataclass(frozen=True)
class Distribution:
    """Histograms over one axis, each as shares of its own sum.

    Attributes:
        title, unit: of the plot and its axis.
        series: edges (n + 1,) and counts (n,) by name.
        marks: places on the axis. whole: values are whole numbers, so bins are centred on them.
    """

    title: str
    unit: str
    series: Mapping[str, tuple[np.ndarray, np.ndarray]]
    marks: Sequence[float] = ()
    whole: bool = False

    def draw(self, axes: Axes) -> None:
        """Draws it."""
        for i, (name, (edges, counts)) in enumerate(self.series.items()):
            edges, counts = _coarser(edges, counts)
            heights, places = counts / max(1, counts.sum()), edges - 0.5 * self.whole
            axes.stairs(heights, places, label=name, fill=i == 0, alpha=0.5 if i == 0 else 1, color=_COLOURS[i % 6])
        for mark in self.marks:
            axes.axvline(mark, color="#999", linewidth=0.8, linestyle="--")
        axes.xaxis.set_major_locator(MaxNLocator(integer=self.whole))
        axes.set_xlabel(self.unit)
        axes.set_ylabel("share")


@dataclass(frozen=True)
class Bars:
    """One bar for every label and series; NaN leaves one out."""

    title: str
    unit: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]

    def draw(self, axes: Axes) -> None:
        """Draws it."""
        n = max(1, len(self.series))
        places = np.arange(len(self.labels))
        for i, (name, values) in enumerate(self.series.items()):
            at = places + (i - (n - 1) / 2) * 0.8 / n
            axes.barh(at, np.nan_to_num(values), 0.8 / n, label=name, color=_COLOURS[i % 6])
        axes.set_yticks(places, self.labels)
        axes.invert_yaxis()
        axes.set_xlabel(self.unit)


@dataclass(frozen=True)
class Ranges:
    """Low, middle and high value of every label, on one axis."""

    title: str
    unit: str
    rows: Mapping[str, tuple[float, float, float]]

    def draw(self, axes: Axes) -> None:
        """Draws it."""
        places = np.arange(len(self.rows))
        low, middle, high = np.array(list(self.rows.values())).reshape(-1, 3).T
        axes.hlines(places, low, high, color=_COLOURS[0], linewidth=3, alpha=0.5)
        axes.plot(middle, places, "o", color=_COLOURS[0], markersize=4)
        axes.set_yticks(places, list(self.rows))
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(self.unit)


Plot = Distribution | Bars | Ranges


def page_of(title: str, facts: Mapping[str, str], plots: Sequence[Plot], tables: Sequence[Table]) -> str:
    """The page as HTML: facts, then plots, then tables. Equal input gives equal text."""
    told = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items())
    drawn = "".join(f'<figure aria-label="{html.escape(plot.title)}">{svg(plot)}</figure>' for plot in plots)
    shown = "".join(map(_table, tables))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<h1>{html.escape(title)}</h1><dl>{told}</dl><div class="plots">{drawn}</div>{shown}</body></html>\n'
    )


def svg(plot: Plot) -> str:
    """A plot as an SVG element, its letters as text that can be searched and read aloud."""
    lines = len(plot.labels) * max(1, len(plot.series)) if isinstance(plot, Bars) else 0
    lines = len(plot.rows) if isinstance(plot, Ranges) else lines
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.title, "font.size": 9}):
        figure = Figure(figsize=(6.4, max(3.2, 0.9 + 0.16 * lines)), layout="constrained")
        axes = figure.add_subplot()
        plot.draw(axes)
        axes.set_title(plot.title)
        axes.spines[["top", "right"]].set_visible(False)
        if not isinstance(plot, Ranges) and len(plot.series) > 1:
            figure.legend(frameon=False, loc="outside lower center", ncols=len(plot.series))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    # Ids are made from the salt and the content; a prefix keeps those of two plots of one page apart.
    mark = re.sub(r"\W+", "-", plot.title)
    text = re.sub(r'\bid="', f'id="{mark}-', text[text.index("<svg") :])
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{mark}-", text)


def _coarser(edges: np.ndarray, counts: np.ndarray, most: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring bins joined until there are at most ``most``."""
    step = math.ceil(len(counts) / most)
    padded = np.concatenate([counts, np.zeros(-len(counts) % step, counts.dtype)])
    joined = padded.reshape(-1, step).sum(axis=1)
    return edges[0] + np.arange(len(joined) + 1) * step * (edges[1] - edges[0]), joined


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *(name for name, _ in table.columns)))
    rows = []
    for name, numbers in table.rows.items():
        cells = ("-" if math.isnan(x) else format(x, form) for x, (_, form) in zip(numbers, table.columns, strict=True))
        rows.append("".join((f"<td>{html.escape(name)}</td>", *(f"<td>{cell}</td>" for cell in cells))))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<h2>{html.escape(table.title)}</h2><div class="table"><table><tr>{head}</tr>{body}</table></div>'
