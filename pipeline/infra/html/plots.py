"""Plots of distributions, drawn by matplotlib as SVG elements for a page.

Unlike the charts of ``charts.py``, whose colours come from the page's style sheet, a plot brings its own colours and a
white ground, on a dark page too.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.infra.html.page import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which stays distinguishable with any form of colour blindness.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


@dataclass(frozen=True)
class Distribution:
    """Histograms over one axis, each normalised to a sum of 1.

    Attributes:
        title: heading of the plot.
        unit: label of the axis.
        series: edges (n + 1,) and counts (n,) by name.
        marks: values on the axis at which a dashed line is drawn.
        whole: values are whole numbers, so bins are centred on them.
        caption: how to read the plot.
    """

    title: str
    unit: str
    series: Mapping[str, tuple[np.ndarray, np.ndarray]]
    marks: Sequence[float] = ()
    whole: bool = False
    caption: str = ""

    def draw(self, axes: Axes) -> None:
        """Draws the histograms, the first one filled."""
        from matplotlib.ticker import MaxNLocator

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
    """One bar for every label and series; NaN is drawn without a bar.

    Attributes:
        title: heading of the plot.
        unit: label of the axis.
        labels: name of each group of bars.
        series: a number for each label, by the series' name.
        caption: how to read the plot.
    """

    title: str
    unit: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]
    caption: str = ""

    def draw(self, axes: Axes) -> None:
        """Draws the bars, the first label at the top."""
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
    """Low, middle and high value of every label, on one axis.

    Attributes:
        title: heading of the plot.
        unit: label of the axis.
        rows: (low, middle, high) by label.
        caption: how to read the plot.
    """

    title: str
    unit: str
    rows: Mapping[str, tuple[float, float, float]]
    caption: str = ""

    def draw(self, axes: Axes) -> None:
        """Draws a line from low to high and a dot in the middle, the first label at the top."""
        places = np.arange(len(self.rows))
        low, middle, high = np.array(list(self.rows.values())).reshape(-1, 3).T
        axes.hlines(places, low, high, color=_COLOURS[0], linewidth=3, alpha=0.5)
        axes.plot(middle, places, "o", color=_COLOURS[0], markersize=4)
        axes.set_yticks(places, list(self.rows))
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(self.unit)


Plot = Distribution | Bars | Ranges


def plot_figure(plot: Plot) -> Chart:
    """A plot as a figure of a page. Equal plots give equal text."""
    id = re.sub(r"\W+", "-", plot.title)
    return Chart(id, plot.title, plot_svg(plot, id), plot.caption)


def plot_svg(plot: Plot, id: str) -> str:
    """A plot as an SVG element; its letters are text, which can be searched and read aloud.

    Args:
        plot: what to draw; its title is the element's label and is not drawn.
        id: unique within the page. Every id inside the element begins with it, since matplotlib repeats its own ids
            from plot to plot.
    """
    lines = len(plot.labels) * max(1, len(plot.series)) if isinstance(plot, Bars) else 0
    lines = len(plot.rows) if isinstance(plot, Ranges) else lines
    # Here: a page imports it in half a second, and data that cannot be read have no page.
    import matplotlib
    from matplotlib.figure import Figure

    # Without a salt matplotlib makes random ids, and equal plots would differ.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": id, "font.size": 9}):
        figure = Figure(figsize=(6.4, max(3.2, 0.9 + 0.16 * lines)), layout="constrained")
        axes = figure.add_subplot()
        plot.draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        if not isinstance(plot, Ranges) and len(plot.series) > 1:
            figure.legend(frameon=False, loc="outside lower center", ncols=len(plot.series))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r'\bid="', f'id="{id}-', text[text.index("<svg") :])
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{id}-", text)
    head = f'<svg class="plot" role="img" aria-label="{html.escape(plot.title)}"'
    return text.replace("<svg", head, 1).rstrip()


def _coarser(edges: np.ndarray, counts: np.ndarray, most: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Joins neighbouring bins of equal width until there are at most ``most``."""
    step = math.ceil(len(counts) / most)
    padded = np.concatenate([counts, np.zeros(-len(counts) % step, counts.dtype)])
    joined = padded.reshape(-1, step).sum(axis=1)
    return edges[0] + np.arange(len(joined) + 1) * step * (edges[1] - edges[0]), joined
