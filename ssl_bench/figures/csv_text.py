"""The values of a figure as CSV: one row a point, the same bytes for the same records.

What a whole line of the figure shares (its heading, panel, name and runs) stands in its first row alone, so that
thousands of points of a curve take a line of numbers each. In pandas:

    points = pandas.read_csv("teacher.csv")
    points[LINE] = points.groupby("line")[LINE].ffill()  # LINE = ["kind", "heading", "panel", ...]
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ssl_bench.figures.values import Figure, Line, Panel, Strip

OF_LINE = ("kind", "heading", "panel", "series", "unit", "source", "runs")
"""Columns that are empty in all rows of a line but the first."""
OF_POINT = ("label", "x", "y", "std", "n")
HEADER = ("line", *OF_LINE, *OF_POINT)


def to_csv(figure: Figure) -> str:
    """`line` numbers lines, bars of one color and references from 1; `kind` is measured, published or reference; `x`
    and `y` are named by the panel, numbers have nine digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    for number, (shared, points) in enumerate(_lines(figure), start=1):
        for index, point in enumerate(points):
            writer.writerow((number, *(("",) * len(OF_LINE) if index else shared), *point))
    return stream.getvalue()


def _lines(figure: Figure) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """(values of `OF_LINE`, those of `OF_POINT` of each point) of every line and reference."""
    for strip in figure.strips:
        for panel in strip.panels:
            for line in panel.lines:
                kind = "published" if panel.published else "measured"
                place = _place(strip, panel)
                yield (kind, *place, line.name, line.unit, panel.published, " ".join(line.runs)), _points(panel, line)
            for reference in panel.references:
                place = _place(strip, panel)
                yield ("reference", *place, reference.title, "", "", ""), [("", "", _text(reference.value), "", "")]


def _place(strip: Strip, panel: Panel) -> tuple[str, str]:
    return strip.heading, ": ".join(filter(None, (panel.title, panel.y_title)))


def _points(panel: Panel, line: Line) -> list[tuple[str, ...]]:
    return [
        (
            point.label,
            "" if panel.kind == "bars" else _text(point.x),
            _text(point.y),
            "" if point.std is None else _text(point.std),
            "" if panel.published else str(point.n),
        )
        for point in line.points
    ]


def _text(value: float) -> str:
    return f"{value:.9g}"
