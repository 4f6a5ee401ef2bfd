"""A table as the page shows it: cells with what they sort by and where their runs stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_bench.report.embedding import Download, csv_download
from ssl_bench.report.runs import RowSources, row_anchor, row_sources
from ssl_bench.tables.explain import RowEvidence
from ssl_bench.tables.render import Grid, about_text, block_grid, published_grid, to_csv
from ssl_bench.tables.table import Block, Row, Table

CLASSES = {"best": "best", "no number": "no-number"}
"""Class of a cell by its mark."""


@dataclass(frozen=True)
class CellView:
    """One cell of a table."""

    text: str
    css: str = ""
    href: str = ""
    """Place of the runs behind it; empty for words and printed figures."""
    value: str = ""
    """What it sorts by where that is not its text."""


@dataclass(frozen=True)
class GridView:
    """A `<table>`: the first column names its rows."""

    caption: str
    header: tuple[CellView, ...]
    rows: tuple[tuple[CellView, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableView:
    """A table with its files and sources."""

    id: str
    anchor: str
    title: str
    about: str
    blocks: tuple[GridView, ...]
    published: tuple[GridView, ...]
    csv: Download
    """Its values as a file."""
    sources: tuple[RowSources, ...]


def table_view(table: Table, evidence: Sequence[RowEvidence]) -> TableView:
    """The table with what `explain_all` says of its rows."""
    blocks = []
    number = 0
    for block in table.blocks:
        blocks.append(_measured(table, block, number))
        number += len(block.rows)
    name = table.description.id
    return TableView(
        id=name,
        anchor=f"table-{name}",
        title=table.description.title,
        about=about_text(table),
        blocks=tuple(blocks),
        published=tuple(_grid(published_grid(one), one.heading) for one in table.published),
        csv=csv_download(name, to_csv(table)),
        sources=tuple(row_sources(name, row) for row in evidence),
    )


def _measured(table: Table, block: Block, before: int) -> GridView:
    """A block; `before` rows of the table stand above it."""
    grid = block_grid(table, block)
    rows = tuple(
        tuple(
            _measured_cell(row, grid, number, position, row_anchor(table.description.id, before + number + 1))
            for position in range(len(grid.header))
        )
        for number, row in enumerate(block.rows)
    )
    return GridView(block.heading, _header(grid), rows, block.notes)


def _measured_cell(row: Row, grid: Grid, number: int, position: int, anchor: str) -> CellView:
    text = grid.rows[number][position]
    css = " ".join(
        filter(None, ("number" * grid.right[position], CLASSES.get(grid.marks.get((number, position), ""), "")))
    )
    index = grid.measured.get(position)
    if index is None or not text:
        return CellView(text, css)
    value = row.cells[index].value
    return CellView(text, css, f"#{anchor}", repr(value.mean) if value else "none")


def _header(grid: Grid) -> tuple[CellView, ...]:
    return tuple(CellView(text, "number" * right) for text, right in zip(grid.header, grid.right, strict=True))


def _grid(grid: Grid, caption: str) -> GridView:
    rows = tuple(
        tuple(CellView(text, "number" * right) for text, right in zip(row, grid.right, strict=True))
        for row in grid.rows
    )
    return GridView(caption, _header(grid), rows)
