"""Figures of the page: inline SVG with a description in words and the values as a file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ssl_bench.figures.csv_text import to_csv
from ssl_bench.figures.values import Figure
from ssl_bench.report.embedding import Download, csv_download


@dataclass(frozen=True)
class FigureView:
    """A drawn figure."""

    id: str
    anchor: str
    title: str
    source: str
    description: str
    """What is drawn, for who cannot see it."""
    svg: str
    csv: Download
    """Its values as a file."""


def figure_view(figure: Figure) -> FigureView:
    """The figure, drawn."""
    from ssl_bench.figures.drawing import svg_text

    return FigureView(
        id=figure.id,
        anchor=f"figure-{figure.id}",
        title=figure.title,
        source=figure.source,
        description=_description(figure),
        svg=without_metadata(svg_text(figure)),
        csv=csv_download(figure.id, to_csv(figure)),
    )


def without_metadata(svg: str) -> str:
    """The drawing alone: no RDF, no style for the whole page, no names of groups that several drawings would share."""
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*"', "<g", svg)


def _description(figure: Figure) -> str:
    """E.g. "Lines over epoch. momentum: teacher from 24.0 to 53.3, student from 24.1 to 54.5."."""
    parts = []
    for strip in figure.strips:
        for panel in strip.panels:
            said = []
            for line in panel.lines:
                first, last = line.points[0], line.points[-1]
                if panel.kind == "lines":
                    said.append(f"{line.name or 'value'} from {first.y:.4g} to {last.y:.4g}")
                else:
                    said += [
                        " ".join(filter(None, (line.name, point.label, f"{point.y:.4g}"))) for point in line.points
                    ]
            title = ", ".join(filter(None, (strip.heading, panel.title, panel.y_title)))
            printed = " (published, not measured here)" if panel.published else ""
            over = f" over {panel.x_title}" if panel.x_title else ""
            parts.append(f"{title}{printed}{over}: {', '.join(said)}.")
    return " ".join(parts)
