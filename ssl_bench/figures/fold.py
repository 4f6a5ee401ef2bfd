"""Fold: a figure's description, its table and the runs' curves -> the figure's values. Pure but for reading curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ssl_bench.errors import unknown_name
from ssl_bench.figures.curves import RunCurves, mean_curve, networks_of
from ssl_bench.figures.description import FigureDescription, PanelDescription, curve_source
from ssl_bench.figures.naming import Named, in_order, named_rows, series_and_labels
from ssl_bench.figures.published import published_strip
from ssl_bench.figures.values import Figure, Line, Panel, Point, Reference, Strip, in_brackets
from ssl_bench.tables.paths import look_up
from ssl_bench.tables.published import shown_beside
from ssl_bench.tables.table import Block, Cell, Row, Table, TableData


def fold(description: FigureDescription, table: Table, runs: Mapping[str, RunCurves]) -> Figure:
    """The figure of a table's rows; `runs` are all runs by their id."""
    notes: list[str] = []
    strips: list[Strip] = []
    for block in table.blocks:
        of_block: list[str] = []
        strip = _strip(description, table, block, runs, of_block)
        if any(panel.lines for panel in strip.panels):
            strips.append(strip)
            notes += of_block
    if strips and description.kind != "lines":
        printed = published_strip(description, table)
        strips += [printed] if printed else []
    styled = tuple(_styled(description, strips))
    return Figure(description.id, description.title, description.source, styled, tuple(dict.fromkeys(notes)))


def require_curves(description: FigureDescription, table: Table, runs: Mapping[str, RunCurves]) -> None:
    """Raises `UserError` for a panel whose curve none of the table's runs has, though they have others."""
    if description.kind != "lines":
        return
    shown = [runs[name] for block in table.blocks for row in block.rows for name in row.runs if name in runs]
    known = dict.fromkeys(name for run in shown for name in run.names())
    for panel in description.panel:
        source = curve_source(panel.y)
        if known and source and not any(run.of(source, panel.network)[0] for run in shown):
            of_network = f" of the network {panel.network!r}" if panel.network else ""
            raise unknown_name(f"curve{of_network}", panel.y, known, "panel.y; epoch:EVALUATOR.primary is the main one")


def _styled(description: FigureDescription, strips: Sequence[Strip]) -> Iterable[Strip]:
    """The strips with one style for each name, wherever it stands."""
    names = [line.name for strip in strips for panel in strip.panels for line in panel.lines]
    styles = {name: index for index, name in enumerate(in_order(description, dict.fromkeys(names)))}
    for strip in strips:
        panels = [
            replace(panel, lines=tuple(replace(line, style=styles[line.name]) for line in panel.lines))
            for panel in strip.panels
        ]
        yield replace(strip, panels=tuple(panels))


def _strip(
    description: FigureDescription, table: Table, block: Block, runs: Mapping[str, RunCurves], notes: list[str]
) -> Strip:
    if description.kind == "lines":
        rows, common = named_rows(table, block)
        panels = [one for panel in description.panel for one in _lines(description, panel, rows, runs)]
        notes += _notes(description, table, rows, runs)
        heading = f"{block.heading}{common}"
        return Strip(heading, tuple(panels), share_y=description.split != "none" and len(description.panel) == 1)
    panels = []
    for panel in description.panel:
        for title, marks, alike in _comparable(table, block, panel):
            make = _points if description.kind == "points" else _bars
            made = make(description, table, alike, panel)
            panels.append(replace(made, title=", ".join(filter(None, (made.title, title)))))
            notes += [note for note in block.notes if any(note.startswith(mark) for mark in marks)]
    return Strip(block.heading, tuple(panel for panel in panels if panel.lines))


def _comparable(table: Table, block: Block, panel: PanelDescription) -> list[tuple[str, list[str], list[Row]]]:
    """The rows whose numbers compare, with a title where that is not all of them, and their footnotes' marks."""
    found: dict[tuple[TableData, str], list[Row]] = {}
    for row in block.rows:
        cell = _cell(table, row, panel.y)
        if cell.value or cell.baseline:
            found.setdefault((row.evaluated_on, cell.mark), []).append(row)
    made = []
    for (data, mark), rows in found.items():
        place = "" if len({one for one, _ in found}) == 1 else f"on {data.title}"
        marked = f"[{mark}]" if mark else ""
        made.append((" ".join(filter(None, (place, marked))), [marked] if mark else [], rows))
    return made


def _lines(
    description: FigureDescription, panel: PanelDescription, rows: Sequence[Named], runs: Mapping[str, RunCurves]
) -> list[Panel]:
    source = curve_source(panel.y)
    assert source is not None, "checked when the description was read"
    found: list[tuple[Named, str, Line]] = []
    for one in rows:
        curves, units = [], []
        for name in one.row.runs:
            if name in runs:
                by_network, unit = runs[name].of(source, panel.network)
                curves.append(by_network)
                units += [unit] if unit else []
        for network in networks_of(curves):
            points = mean_curve([curve.get(network, ()) for curve in curves])
            if points:
                line = Line("", points, runs=one.row.runs, unit=units[0] if units else "")
                found.append((one, network, line))
    networks = list(dict.fromkeys(network for _, network, _ in found))
    references = _references(panel, [one for one, _, _ in found], runs)
    x_title = "step" if source.by == "step" else "epoch"
    unit = next((line.unit for _, _, line in found if line.unit), "")
    y_title = " ".join(filter(None, (panel.y_title or source.name * bool(unit), in_brackets(unit))))

    def made(title: str, lines: Iterable[Line]) -> Panel:
        return Panel("lines", title, x_title, y_title, tuple(lines), references)

    if description.split == "row":
        own = [(one, [replace(line, name=network) for named, network, line in found if named is one]) for one in rows]
        return [made(one.name, lines) for one, lines in own if lines]
    if description.split == "network":
        return [
            made(network, (replace(line, name=one.name) for one, other, line in found if other == network))
            for network in networks
        ]
    several = len(networks) > 1
    lines = [replace(line, name=f"{one.name}, {network}" if several else one.name) for one, network, line in found]
    return [made(panel.title, lines)] if lines else []


def _references(panel: PanelDescription, rows: Sequence[Named], runs: Mapping[str, RunCurves]) -> tuple[Reference, ...]:
    references: dict[Reference, None] = {}
    for one in panel.reference:
        if one.value is not None:
            references[Reference(one.title, one.value)] = None
            continue
        records = [runs[name].record for named in rows for name in named.row.runs if name in runs]
        for record in filter(None, records):
            value = look_up(record, one.log_of)
            if isinstance(value, int | float) and value > 0:
                references[Reference(one.title, math.log(value))] = None
    return tuple(references)


def _notes(
    description: FigureDescription, table: Table, rows: Sequence[Named], runs: Mapping[str, RunCurves]
) -> list[str]:
    """Printed numbers of the rows, and runs without the curves that the figure draws."""
    notes = []
    for index, part in enumerate(table.description.published):
        texts = [(one.name, shown_beside(part, one.row.published[index])) for one in rows]
        shown = "; ".join(f"{name}: {text}" for name, text in texts if text)
        if shown:
            notes.append(f"published, {part.data} ({part.source}), not measured here: {shown}")
    names = [name for one in rows for name in one.row.runs]
    records = [record for name in names if name in runs and (record := runs[name].record)]
    drawn = {source.by for panel in description.panel if (source := curve_source(panel.y))}
    for by, without, bare in (
        ("step", "steps.csv, which earlier versions did not write", [one for one in records if not one.step_curves]),
        ("epoch", "evaluations during training (--eval-every N)", [one for one in records if not one.curves]),
    ):
        if by in drawn and bare:
            notes.append(f"without {without}: {', '.join(sorted(one.run_id for one in bare))}")
    return notes


def _cell(table: Table, row: Row, column: str) -> Cell:
    ids = [one.id for one in table.description.column]
    return row.cells[ids.index(column)]


def _title(table: Table, panel: PanelDescription) -> str:
    column = next(one for one in table.description.column if one.id == panel.y)
    return " ".join(filter(None, (panel.y_title or panel.title or column.title, in_brackets(column.unit))))


def _points(description: FigureDescription, table: Table, rows: Sequence[Row], panel: PanelDescription) -> Panel:
    assert description.x is not None, "checked when the description was read"
    series: dict[str, list[Point]] = {}
    runs: dict[str, list[str]] = {}
    for row, (name, label) in zip(rows, series_and_labels(description, table, rows), strict=True):
        x, y = _cell(table, row, description.x.column).value, _cell(table, row, panel.y).value
        if x is not None and y is not None:
            series.setdefault(name, []).append(Point(x.mean, y.mean, y.std, y.n, label))
            runs.setdefault(name, []).extend(row.runs)
    lines = [
        Line(name, tuple(sorted(points, key=lambda point: point.x)), runs=tuple(sorted(set(runs[name]))))
        for name, points in series.items()
    ]
    return Panel(
        "points", panel.title, description.x.title, _title(table, panel), tuple(lines), log_x=description.x.log
    )


def _bars(description: FigureDescription, table: Table, rows: Sequence[Row], panel: PanelDescription) -> Panel:
    categories: dict[str, int] = {}
    bars: dict[str, dict[int, Point]] = {}
    runs: dict[str, list[str]] = {}
    for row, (name, category) in zip(rows, series_and_labels(description, table, rows), strict=True):
        cell = _cell(table, row, panel.y)
        place = categories.setdefault(category, len(categories))
        for series, value in ((name, cell.value), (description.baseline, cell.baseline)):
            known = bars.setdefault(series, {}) if series and value else {}
            if value and series and (place not in known or known[place].n < value.n):
                known[place] = Point(float(place), value.mean, value.std, value.n, category)
                runs.setdefault(series, []).extend(row.runs)
    names = in_order(description, bars)
    lines = [
        Line(name, tuple(bars[name][place] for place in sorted(bars[name])), runs=tuple(sorted(set(runs[name]))))
        for name in names
    ]
    return Panel("bars", panel.title, "", _title(table, panel), tuple(lines), categories=tuple(categories))
