"""Charts put lines, dots and bars at their values, and can be drawn without any."""

import math
from xml.etree import ElementTree

import pytest

from pipeline.infra.html import charts


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter("text")]


def test_a_line_ends_where_its_last_value_is_and_leaves_gaps():
    line = charts.Line("a", "c1", [0.0, 50.0, math.nan, 100.0])
    svg = charts.line_chart("t", [0, 1, 2, 3], [line, charts.Line("none", "c2", [math.nan] * 4)], "x", "y", 100)
    (path,) = ElementTree.fromstring(svg).iter("path")
    points = [tuple(map(float, point.split())) for point in path.get("d").removeprefix("M").split("L")]
    assert len(points) == 3 and points[0][1] > points[1][1] > points[2][1]
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)
    assert "a" in texts(svg) and "none" not in texts(svg)


def test_labels_of_lines_that_end_together_do_not_touch():
    lines = [
        charts.Line(name, "c1", [0.0, value]) for name, value in (("a", 0.0), ("b", 0.5), ("c", 1.0), ("d", 100.0))
    ]
    root = ElementTree.fromstring(charts.line_chart("t", [0, 1], lines, "x", "y", 100))
    heights = sorted(float(node.get("y")) for node in root.iter("text") if "label" in node.get("class"))
    assert len(heights) == 4 and all(b - a >= 14.9 for a, b in zip(heights, heights[1:]))
    assert heights[-1] < float(root.get("viewBox").split()[3])


def test_dots_and_bars_are_at_their_values():
    rows = {
        "a": [charts.Dot("x", "c1", 50.0, 40.0, 60.0)],
        "b": [charts.Dot("x", "c1", 100.0)],
        "c": [charts.Dot("y", "c4", math.nan)],
    }
    root = ElementTree.fromstring(charts.dot_chart("t", rows, "mm"))
    circles = {c.find("title").text: float(c.get("cx")) for c in root.iter("circle") if c.find("title") is not None}
    a, b = circles["a, x: 50.0 mm"], circles["b, x: 100.0 mm"]
    left = min(float(line.get("x1")) for line in root.iter("line"))
    assert len(circles) == 2 and a - left == pytest.approx((b - left) / 2, abs=0.2)
    (interval,) = (line for line in root.iter("line") if "interval" in line.get("class"))
    assert float(interval.get("x1")) < a < float(interval.get("x2"))
    bars = [
        float(r.get("width"))
        for r in ElementTree.fromstring(charts.bar_chart("t", {"a": 1, "b": 2}, "ms")).iter("rect")
    ]
    assert bars[1] == pytest.approx(2 * bars[0], abs=0.2)


def test_charts_without_values_can_be_drawn():
    for svg in (
        charts.dot_chart("t", {}, "mm"),
        charts.bar_chart("t", {"a": 0.0}, "ms"),
        charts.line_chart("t", [0, 1], [], "x", "y", 1),
    ):
        assert ElementTree.fromstring(svg).get("aria-label") == "t"
