"""Line, dot and bar charts as SVG elements, in the colours of a page's style sheet, light or dark.

Histograms are drawn in ``plots.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

# Units of the SVG viewBox; the page scales a chart to the width of its column.
_WIDTH, _HEIGHT = 520, 310
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 128, 26, 44  # margins; the right one holds the labels of curves
_ROW = 22
_LINE_OF_TEXT = 15.0


@dataclass(frozen=True)
class Line:
    """One curve of a chart.

    Attributes:
        label: drawn at its right end.
        style: its class in the style sheet, ``c1`` to ``c4``.
        y: a value at every x; the line skips NaN.
    """

    label: str
    style: str
    y: Sequence[float]


@dataclass(frozen=True)
class Dot:
    """One point of a row.

    Attributes:
        label: shown in the legend.
        style: its class in the style sheet, ``c1`` to ``c4``.
        value: where it is drawn; NaN is not drawn.
        low, high: ends of its interval; NaN without one.
    """

    label: str
    style: str
    value: float
    low: float = math.nan
    high: float = math.nan


def line_chart(name: str, x: Sequence[float], lines: Sequence[Line], x_label: str, y_label: str, top: float) -> str:
    """Curves over a shared x from 0 to ``x[-1]`` and y from 0 to ``top``, each labelled at its right end.

    ``name`` is the accessible label of the chart, which screen readers read.
    """
    svg = _canvas(name, _HEIGHT)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(a: float, b: float) -> tuple[float, float]:
        return _LEFT + a / x[-1] * (right - _LEFT), bottom - b / top * (bottom - _TOP)

    for tick in _ticks(top):
        _, v = place(0, tick)
        _segment(svg, (_LEFT, v), (right, v), "grid")
        _text(svg, f"{tick:g}", (_LEFT - 6, v + 4), "end")
    for tick in _ticks(x[-1]):
        u, _ = place(tick, 0)
        _segment(svg, (u, bottom), (u, bottom + 4), "axis")
        _text(svg, f"{tick:g}", (u, bottom + 17), "middle")
    _segment(svg, (_LEFT, bottom), (right, bottom), "axis")
    _text(svg, x_label, ((_LEFT + right) / 2, _HEIGHT - 8), "middle")
    _text(svg, y_label, (4, 10), "start")

    drawn = [line for line in lines if any(math.isfinite(y) for y in line.y)]
    ends = _apart([place(x[-1], [y for y in line.y if math.isfinite(y)][-1])[1] for line in drawn])
    for line, end in zip(drawn, ends, strict=True):
        points = [place(a, b) for a, b in zip(x, line.y, strict=True) if math.isfinite(b)]
        path = "M" + "L".join(f"{u:.1f} {v:.1f}" for u, v in points)
        ET.SubElement(svg, "path", {"d": path, "class": f"curve {line.style}"})
        _text(svg, line.label, (right + 8, end + 4), "start", f"label {line.style}")
    return ET.tostring(svg, encoding="unicode")


def dot_chart(name: str, rows: Mapping[str, Sequence[Dot]], unit: str) -> str:
    """Rows of points over one axis from 0, with a line from end to end of each interval and a legend above."""
    height = _TOP + _ROW * len(rows) + _BOTTOM
    svg = _canvas(name, height)
    left, right, bottom = 112, _WIDTH - 24, height - _BOTTOM
    numbers = [n for row in rows.values() for d in row for n in (d.value, d.high) if math.isfinite(n)]
    top = _ticks(max(numbers, default=1.0) or 1.0)[-1]
    top = max(top, max(numbers, default=1.0)) or 1.0

    def place(value: float) -> float:
        return left + value / top * (right - left)

    for tick in _ticks(top):
        _segment(svg, (place(tick), _TOP), (place(tick), bottom), "grid")
        _text(svg, f"{tick:g}", (place(tick), bottom + 16), "middle")
    _text(svg, unit, ((left + right) / 2, height - 8), "middle")
    legend: dict[str, str] = {}
    for i, (row, dots) in enumerate(rows.items()):
        v = _TOP + _ROW * (i + 0.5)
        _text(svg, row, (left - 10, v + 4), "end")
        _segment(svg, (left, v), (right, v), "grid")
        for dot in dots:
            if not math.isfinite(dot.value):
                continue
            legend.setdefault(dot.label, dot.style)
            if math.isfinite(dot.low) and math.isfinite(dot.high):
                _segment(svg, (place(dot.low), v), (place(dot.high), v), f"interval {dot.style}")
            point = {"cx": f"{place(dot.value):.1f}", "cy": f"{v:.1f}", "r": "4.5", "class": f"dot {dot.style}"}
            title = ET.SubElement(ET.SubElement(svg, "circle", point), "title")
            title.text = f"{row}, {dot.label}: {dot.value:.1f} {unit}"
    at = float(left)
    for label, style in legend.items():
        ET.SubElement(svg, "circle", {"cx": f"{at + 5:.1f}", "cy": "9", "r": "4.5", "class": f"dot {style}"})
        _text(svg, label, (at + 15, 13), "start")
        at += 34 + 7.0 * len(label)
    return ET.tostring(svg, encoding="unicode")


def bar_chart(name: str, bars: Mapping[str, float], unit: str, form: str = ".1f") -> str:
    """One horizontal bar per row over an axis from 0, with its number (formatted by ``form``) at its end."""
    above = 4
    height = above + _ROW * len(bars) + _BOTTOM
    svg = _canvas(name, height)
    left, right, bottom = 112, _WIDTH - 64, height - _BOTTOM
    top = max(bars.values(), default=1.0) or 1.0
    for tick in _ticks(top):
        u = left + tick / top * (right - left)
        _segment(svg, (u, above), (u, bottom), "grid")
        _text(svg, f"{tick:g}", (u, bottom + 16), "middle")
    _text(svg, unit, ((left + right) / 2, height - 8), "middle")
    for i, (row, value) in enumerate(bars.items()):
        v, width = above + _ROW * i, value / top * (right - left)
        _text(svg, row, (left - 10, v + 15), "end")
        box = {"x": left, "y": v + 4, "width": max(width, 0.5), "height": _ROW - 8}
        ET.SubElement(svg, "rect", {**{k: f"{at:.1f}" for k, at in box.items()}, "class": "c1"})
        _text(svg, format(value, form), (left + width + 6, v + 15), "start")
    return ET.tostring(svg, encoding="unicode")


def _canvas(name: str, height: float) -> ET.Element:
    return ET.Element(
        "svg", {"viewBox": f"0 0 {_WIDTH} {height:g}", "role": "img", "aria-label": name, "class": "chart"}
    )


def _segment(svg: ET.Element, a: tuple[float, float], b: tuple[float, float], style: str) -> None:
    ends = {"x1": a[0], "y1": a[1], "x2": b[0], "y2": b[1]}
    ET.SubElement(svg, "line", {**{name: f"{at:.1f}" for name, at in ends.items()}, "class": style})


def _text(svg: ET.Element, text: str, at: tuple[float, float], anchor: str, style: str = "tick") -> None:
    attributes = {"x": f"{at[0]:.1f}", "y": f"{at[1]:.1f}", "text-anchor": anchor, "class": style}
    ET.SubElement(svg, "text", attributes).text = text


def _ticks(top: float) -> list[float]:
    """0 and the multiples of a round step up to ``top``, at most five."""
    rough = top / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    return [i * step for i in range(int(top / step + 1e-9) + 1)]


def _apart(places: Sequence[float]) -> list[float]:
    """The same heights, moved up or down until labels there do not overlap."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, after in zip(order, order[1:]):
        moved[after] = max(moved[after], moved[before] + _LINE_OF_TEXT)
    # Labels moved below the axis are moved up again, and with them those above.
    limit = float(_HEIGHT - _BOTTOM)
    for i in reversed(order):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - _LINE_OF_TEXT
    return moved
