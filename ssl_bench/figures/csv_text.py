"""The values of a figure as CSV: one line a point, the same bytes for the same records."""

from __future__ import annotations

import csv
import io

from ssl_bench.figures.values import Figure

HEADER = ("kind", "heading", "panel", "series", "label", "x", "y", "std", "n", "unit", "source", "runs")


def to_csv(figure: Figure) -> str:
    """`kind` is measured, published or reference; `x` and `y` are named by the panel, numbers have nine digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    for strip in figure.strips:
        for panel in strip.panels:
            kind = "published" if panel.published else "measured"
            titles = ": ".join(filter(None, (panel.title, panel.y_title)))
            for line in panel.lines:
                for point in line.points:
                    std = "" if point.std is None else _text(point.std)
                    n = "" if panel.published else point.n
                    x = "" if panel.kind == "bars" else _text(point.x)
                    writer.writerow(
                        (kind, strip.heading, titles, line.name, point.label, x, _text(point.y), std, n, line.unit,
                         panel.published, " ".join(line.runs))
                    )  # fmt: skip
            for reference in panel.references:
                writer.writerow(
                    ("reference", strip.heading, titles, reference.title, "", "", _text(reference.value), *[""] * 5)
                )
    return stream.getvalue()


def _text(value: float) -> str:
    return f"{value:.9g}"
