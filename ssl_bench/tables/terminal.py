"""Tables on a terminal: aligned, the best values in color, notes below, folded into the width there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from ssl_bench.tables.render import NOTHING, SETTINGS, Grid, about_text, block_grid, published_grid
from ssl_bench.tables.table import Table

GAP = 2
"""Characters between two columns."""
FEWEST_FOR_WORDS = 22
"""Characters that the column of words needs beside the numbers."""
STYLES = {"best": "bold green", "no number": "red"}


def draw(console: Console, table: Table, *, published_lists: bool) -> None:
    """Print the table in the console's width."""
    console.print(Text(table.description.title, style="bold"))
    if about := about_text(table):
        console.print(Text(about, style="dim"))
    if not table.blocks and table.description.column:
        console.print(NOTHING)
    for block in table.blocks:
        console.print()
        console.print(Text(block.heading, style="bold cyan"))
        console.print(grid_for(block_grid(table, block), console.width))
        for note in block.notes:
            console.print(bullet(note))
    for published in table.published if published_lists else ():
        console.print()
        console.print(Text(published.heading, style="bold cyan"))
        console.print(grid_for(published_grid(published), console.width))
    console.print()


def bullet(note: str) -> RenderableType:
    """A note whose further lines begin under its first word."""
    row = RichTable.grid(padding=(0, 1))
    row.add_row(Text("-", style="dim"), Text(note, style="dim"))
    return row


def grid_for(grid: Grid, width: int) -> RenderableType:
    """The grid as it is where that fits; else all words in its first column, folded; else a list of cells per row."""
    natural = [_longest([line[i] for line in (grid.header, *grid.rows)]) for i in range(len(grid.header))]
    if sum(natural) + GAP * (len(natural) - 1) <= width:
        return _rich_grid(grid, natural)
    narrow = stacked(grid)
    numbers = [
        max(_longest(narrow.header[i].split()), _longest([row[i] for row in narrow.rows]))
        for i in range(1, len(narrow.header))
    ]
    words = width - sum(numbers) - GAP * len(numbers)
    if words >= FEWEST_FOR_WORDS:
        return _rich_grid(narrow, [words, *numbers])
    return Group(*_cards(narrow))


def stacked(grid: Grid) -> Grid:
    """The grid with all columns of words in one: what names the row, and below it the other words of the row."""
    words = [i for i, right in enumerate(grid.right) if not right]
    numbers = [i for i, right in enumerate(grid.right) if right]
    names = [i for i in words if i < min(numbers, default=len(grid.right)) and grid.header[i] != SETTINGS]
    more = [i for i in words if i not in names]

    def label(row: Sequence[str]) -> str:
        details = [row[i] if grid.header[i] == SETTINGS else f"{grid.header[i]}: {row[i]}" for i in more if row[i]]
        return "\n".join([" ".join(row[i] for i in names if row[i]), *details])

    return Grid(
        (", ".join(grid.header[i] for i in names), *(grid.header[i] for i in numbers)),
        tuple((label(row), *(row[i] for i in numbers)) for row in grid.rows),
        (False, *(True for _ in numbers)),
        {(row, 1 + numbers.index(i)): mark for (row, i), mark in grid.marks.items()},
    )


def _longest(texts: Sequence[str]) -> int:
    return max(map(len, texts), default=0)


def _rich_grid(grid: Grid, widths: Sequence[int]) -> RichTable:
    # the box itself puts one blank between two columns
    drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for title, right, width in zip(grid.header, grid.right, widths, strict=True):
        drawn.add_column(Text(title), justify="right" if right else "left", width=width, overflow="fold")
    for number, row in enumerate(grid.rows):
        drawn.add_row(*(_cell(text, grid.marks.get((number, i), "")) for i, text in enumerate(row)))
    return drawn


def _cell(text: str, mark: str) -> Text:
    first, _, more = text.partition("\n")
    return Text.assemble((first, STYLES.get(mark, "")), (f"\n{more}" if more else "", "dim"))


def _cards(grid: Grid) -> Iterator[RenderableType]:
    """One line per cell, for a terminal in which the columns do not fit side by side."""
    for number, row in enumerate(grid.rows):
        card = RichTable.grid(padding=(0, GAP, 0, 0))
        for i, (title, text) in enumerate(zip(grid.header, row, strict=True)):
            if i and text:
                card.add_row(Text(f"  {title}", style="dim"), _cell(text, grid.marks.get((number, i), "")))
        yield Padding(Group(_cell(row[0], ""), card), (1, 0, 0, 0))
