"""Printed numbers in a figure: a strip of its own, since they are of other data than the measured ones."""

from __future__ import annotations

from collections.abc import Mapping

from ssl_bench.figures.description import FigureDescription, PanelDescription
from ssl_bench.figures.naming import in_order, split_texts
from ssl_bench.figures.values import Line, Panel, Point, Strip, in_brackets
from ssl_bench.tables.table import PublishedList, Table


def published_strip(description: FigureDescription, table: Table) -> Strip | None:
    """The panels with the values of the table's published lists; None where the figure names no column of them."""
    for one in table.published:
        panels = [_panel(description, table, one, panel) for panel in description.panel if panel.published]
        panels = [panel for panel in panels if panel.lines]
        if panels:
            return Strip(one.heading, tuple(panels))
    return None


def _panel(description: FigureDescription, table: Table, published: PublishedList, panel: PanelDescription) -> Panel:
    column = next(one for one in table.description.column if one.id == panel.y)
    title = " ".join(filter(None, (panel.y_title or panel.title or column.title, in_brackets(column.unit))))
    series: dict[str, list[Point]] = {}
    categories: dict[str, int] = {}
    for texts in published.rows:
        y = _number(texts, panel.published)
        name, label = split_texts(description, table, texts)
        if y is None or not name:
            continue
        if description.kind == "bars":
            place = categories.setdefault(label, len(categories))
            series.setdefault(name, []).append(Point(float(place), y, label=label))
        elif description.x is not None and (x := _number(texts, description.x.published)) is not None:
            series.setdefault(name, []).append(Point(x, y, label=label))
    names = in_order(description, series)
    lines = tuple(Line(name, tuple(sorted(series[name], key=lambda point: point.x))) for name in names)
    x_title = description.x.title if description.x else ""
    log_x = description.x.log if description.x else False
    source = published.heading.partition(". ")[0]
    return Panel(description.kind, panel.title, x_title, title, lines, (), tuple(categories), log_x, source)


def _number(texts: Mapping[str, str], column: str) -> float | None:
    try:
        return float(texts.get(column, ""))
    except ValueError:
        return None
