"""The page of `das data stats`: what the manifest records, plots, and every table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.infra.html.page import Chart, Grid, grid_of, render_page
from pipeline.infra.html.plots import Plot, plot_figure
from pipeline.infra.text_tables import Table


@dataclass(frozen=True)
class TitledGrid:
    """A table of the page with its heading."""

    title: str
    grid: Grid


@dataclass(frozen=True)
class StatisticsPage:
    """The fields that templates/statistics.html reads; ``mark`` is empty, since no number here is a result."""

    title: str
    mark: str
    facts: Mapping[str, str]
    plots: Sequence[Chart]
    tables: Sequence[TitledGrid]


def statistics_page(title: str, facts: Mapping[str, str], plots: Sequence[Plot], tables: Sequence[Table]) -> str:
    """One self-contained HTML file; equal input gives equal text.

    Args:
        title: of the page.
        facts: texts by name: the folder, its fingerprint and terms.
        plots: in the order of the page; their titles differ, since ids are made from them.
        tables: in the order of the page, below the plots.
    """
    grids = [TitledGrid(table.title, grid_of(table)) for table in tables]
    page = StatisticsPage(title, "", facts, [plot_figure(plot) for plot in plots], grids)
    return render_page("pipeline.data.browse", "statistics.html", page)
