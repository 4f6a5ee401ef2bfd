"""Tables as a fragment of HTML: headings, tables and notes, without styles or scripts, to paste into a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ssl_bench.tables.render import NOTHING, Grid, about_text, block_grid, published_grid
from ssl_bench.tables.table import Table

CLASSES = {"best": "best", "no number": "no-number"}
"""Class of a cell by its mark; cells of numbers have the class `number`."""


def to_html(table: Table, *, published_lists: bool = True) -> str:
    """A `<section>` with a `<table>` for each block and, if wanted, for each list of printed numbers."""
    parts = [f"<h2>{escape(table.description.title)}</h2>"]
    parts += [f"<p>{escape(about)}</p>"] if (about := about_text(table)) else []
    if not table.blocks and table.description.column:
        parts.append(f"<p>{NOTHING}</p>")
    for block in table.blocks:
        parts.append(html_grid(block_grid(table, block), block.heading))
        if block.notes:
            parts += ["<ul>", *(f"  <li>{escape(note)}</li>" for note in block.notes), "</ul>"]
    for published in table.published if published_lists else ():
        parts.append(html_grid(published_grid(published), published.heading))
    section = f'<section id="table-{escape(table.description.id)}">'
    return "\n".join([section, *parts, "</section>"]) + "\n"


def html_grid(grid: Grid, caption: str) -> str:
    """A `<table>` with its caption."""
    header = [_cell("th", text, right, ' scope="col"') for text, right in zip(grid.header, grid.right, strict=True)]
    lines = [f"<caption>{escape(caption)}</caption>", "<thead>", _row(header), "</thead>", "<tbody>"]
    for number, row in enumerate(grid.rows):
        lines.append(
            _row(
                [
                    _cell("td", text, right, mark=grid.marks.get((number, i), ""))
                    for i, (text, right) in enumerate(zip(row, grid.right, strict=True))
                ]
            )
        )
    return "\n".join(["<table>", *lines, "</tbody>", "</table>"])


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _cell(tag: str, text: str, right: bool, more: str = "", *, mark: str = "") -> str:
    names = [name for name in ("number" * right, CLASSES.get(mark, "")) if name]
    classes = f' class="{" ".join(names)}"' if names else ""
    return f"<{tag}{classes}{more}>{escape(text)}</{tag}>"
