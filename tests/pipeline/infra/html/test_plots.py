"""Plots are SVG elements with searchable text, ids of their own and equal text for equal input."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from pipeline.infra.html.plots import Bars, Distribution, Ranges, plot_figure, plot_svg

EDGES = np.arange(6.0)
PLOTS = [
    Distribution("Depth & size", "m", {"train": (EDGES, np.array([1, 2, 3, 2, 1])), "val": (EDGES, np.ones(5, int))}),
    Bars("Joints", "share", ["neck", "nose"], {"train": [0.5, float("nan")], "val": [1.0, 0.25]}),
    Ranges("Bones", "mm", {"neck - nose": (90.0, 100.0, 120.0)}, caption="Dots: medians."),
]


def ids(svg: str) -> list[str]:
    return re.findall(r'\bid="([^"]+)', svg)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: type(plot).__name__)
def test_a_plot_is_one_element_whose_text_can_be_searched(plot):
    svg = plot_svg(plot, "here")
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("class") == "plot" and root.get("aria-label") == plot.title
    words = {text.strip() for element in root.iter() if element.tag.endswith("text") for text in element.itertext()}
    labels = {Distribution: {"train", "val"}, Bars: {"neck", "nose", "train"}, Ranges: {"neck - nose"}}
    assert labels[type(plot)] | {plot.unit} <= words
    assert "fill: #ffffff" in svg, "the ground is white, on a dark page too"


def test_ids_of_two_equal_plots_on_a_page_differ_and_references_follow_them():
    first, second = plot_svg(PLOTS[0], "first"), plot_svg(PLOTS[0], "second")
    found = ids(first) + ids(second)
    assert len(set(found)) == len(found)
    for svg in (first, second):
        for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', svg):
            assert reference in ids(svg)


def test_equal_plots_give_equal_figures_with_their_title_and_caption():
    figure = plot_figure(PLOTS[2])
    assert figure == plot_figure(PLOTS[2])
    assert (figure.id, figure.title, figure.caption) == ("Bones", "Bones", "Dots: medians.")
    assert plot_figure(PLOTS[0]).id == "Depth-size"


def test_many_bins_are_joined_without_losing_counts():
    counts = np.arange(250)
    title, edges = "Wide", np.arange(251.0)
    joined = [counts[i : i + 3].sum() for i in range(0, 250, 3)]
    coarse = Distribution(title, "px", {"a": (np.arange(len(joined) + 1) * 3.0, np.array(joined))})
    assert plot_svg(Distribution(title, "px", {"a": (edges, counts)}), "w") == plot_svg(coarse, "w")
