"""Tables as text: Markdown for readers, CSV for machines (plain mean, std, n and protocol columns)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ssl_bench.measurement import unit_text
from ssl_bench.tables.description import Column, parse_source
from ssl_bench.tables.published import shown_beside
from ssl_bench.tables.table import DATA, Block, Cell, PublishedList, Row, Table

NOTHING = "Nothing was measured yet."
SETTINGS = "settings"
"""Header of the column that tells rows of the same keys apart."""


@dataclass(frozen=True)
class Grid:
    """Header and rows of text; `right` says which columns are numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    marks: Mapping[tuple[int, int], Literal["best", "no number"]] = field(default_factory=dict)
    """(row, column) -> what a terminal shows in color."""
    measured: Mapping[int, int] = field(default_factory=dict)
    """Column -> index of the description's column that it shows; words and printed figures have none."""


def to_markdown(table: Table, *, published_lists: bool = True) -> str:
    """The whole table as Markdown, columns padded so that it reads as a table in plain text too."""
    parts = [f"# {table.description.title}"]
    parts += [about] if (about := about_text(table)) else []
    if not table.blocks and table.description.column:
        parts.append(NOTHING)
    for block in table.blocks:
        parts += [f"## {_escape(block.heading)}", markdown_grid(block_grid(table, block))]
        parts += ["\n".join(f"- {_escape(note)}" for note in block.notes)] if block.notes else []
    for published in table.published if published_lists else ():
        parts += [f"## {_escape(published.heading)}", markdown_grid(published_grid(published))]
    return "\n\n".join(parts) + "\n"


def about_text(table: Table) -> str:
    """Where a table comes from and how its cells read."""
    description = table.description
    return " ".join(text for text in (f"{description.source}." * bool(description.source), description.about) if text)


def to_csv(table: Table) -> str:
    """One line per row, full precision; published rows that no run joins stand at the end with `kind` published."""
    description = table.description
    row_ids = [key.id for key in table.keys]
    fields = ["kind", "data", "synthetic", "data_fingerprint", "evaluated_on", "evaluated_on_fingerprint"]
    fields.append("start")
    fields += [*(row_id for row_id in row_ids if row_id != "data"), "settings"]
    fields += ["finished", "collapsed", "failed", "runs"]
    for column in description.column:
        fields += [f"{column.id}_{name}" for name in _csv_names(column)]
    printed = [f"published_{name}" for name in description.joining_ids]
    printed += list(dict.fromkeys(f"published_{c.column}" for part in description.published for c in part.columns))
    fields += [*dict.fromkeys(printed), "published_data"] if printed else []
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for block in table.blocks:
        for row in block.rows:
            writer.writerow(_csv_row(table, row, row_ids))
    for published in table.published:
        for texts in published.rows:
            line = {key if key in row_ids else f"published_{key}": text for key, text in texts.items()}
            writer.writerow({**line, "kind": "published", "published_data": published.data})
    return stream.getvalue()


def block_grid(table: Table, block: Block) -> Grid:
    """A block's rows as texts. Data, settings, printed figures and what needs evidence stand where a row fills them."""
    columns = [
        _Texts(key.title or key.id, [row.keys[index] for row in block.rows])
        for index, key in enumerate(table.keys)
        if key.id != DATA or any(row.trained_on != block.data for row in block.rows)
    ]
    elsewhere = [row.evaluated_on.title * (row.evaluated_on != (block.data or row.trained_on)) for row in block.rows]
    columns += [_Texts("evaluated on", elsewhere)] if any(elsewhere) else []
    settings = [row.settings for row in block.rows]
    columns += [_Texts(SETTINGS, settings)] if any(settings) else []
    columns.append(_Texts("seeds", [_seeds(row) for row in block.rows], right=True))
    marks: dict[tuple[int, int], Literal["best", "no number"]] = {}
    measured: dict[int, int] = {}
    for index, column in enumerate(table.description.column):
        cells = [row.cells[index] for row in block.rows]
        if not column.evidence or any(cell != Cell() for cell in cells):
            marks |= {(row, len(columns)): "best" for row, cell in enumerate(cells) if cell.best}
            marks |= {(row, len(columns)): "no number" for row, cell in enumerate(cells) if cell.word}
            texts = [cell_text(column, row.cells[index], row.finished) for row in block.rows]
            measured[len(columns)] = index
            columns.append(_Texts(column_title(column), texts, right=True))
    for index, part in enumerate(table.description.published):
        texts = [shown_beside(part, row.published[index]) for row in block.rows]
        columns += [_Texts(f"published, {part.data}", texts)] if any(texts) else []
    rows = tuple(zip(*(column.texts for column in columns), strict=True))
    return Grid(tuple(c.title for c in columns), rows, tuple(c.right for c in columns), marks, measured)


def column_title(column: Column) -> str:
    """What stands above its numbers: the title with the unit, e.g. "k-NN %"."""
    return f"{column.title} {unit_text(column.unit)}".strip()


class _Texts(NamedTuple):
    """A column of a grid."""

    title: str
    texts: Sequence[str]
    right: bool = False


def published_grid(published: PublishedList) -> Grid:
    """A list of printed rows as texts."""
    rows = tuple(tuple(row.values()) for row in published.rows)
    right = [all(_is_number(row[i]) for row in rows if row[i]) for i in range(len(published.header))]
    return Grid(published.header, rows, tuple(right))


def cell_text(column: Column, cell: Cell, finished: int) -> str:
    """E.g. "52.2 → 55.5±0.3 (53.3 to 57.7) [a]"; empty when not measured.

    With n where that is not the row's number of finished seeds.
    """
    if cell.word:
        return cell.word + f" [{cell.mark}]" * bool(cell.mark)
    if cell.value is None and cell.baseline is None:
        return ""
    before = f"{cell.baseline.mean:,.{column.decimals}f} → " if cell.baseline else ""
    if cell.value is None:
        return f"{before}–"
    text = f"{before}{cell.value.mean:,.{column.decimals}f}"
    if cell.value.std is not None and not (column.any_status and cell.value.std == 0):
        text += f"±{cell.value.std:.{column.decimals}f}"
    if cell.interval is not None:
        text += f" ({cell.interval.low:,.{column.decimals}f} to {cell.interval.high:,.{column.decimals}f})"
    if cell.value.n != finished and not column.any_status:
        text += f" (n {cell.value.n})"
    return text + f" [{cell.mark}]" * bool(cell.mark)


def markdown_grid(grid: Grid) -> str:
    """A Markdown table with padded columns."""
    lines = [[_escape(text) for text in line] for line in (grid.header, *grid.rows)]
    for (row, column), mark in grid.marks.items():
        if mark == "best":
            lines[row + 1][column] = f"**{lines[row + 1][column]}**"
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(grid.header))]
    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, grid.right, strict=True)]
    padded = [
        [t.rjust(width) if right else t.ljust(width) for t, width, right in zip(line, widths, grid.right, strict=True)]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:]))


def _seeds(row: Row) -> str:
    counts = [(row.finished, ""), (row.collapsed, " collapsed"), (row.failed, " failed")]
    return ", ".join(f"{count}{word}" for count, word in counts if count)


def _csv_names(column: Column) -> list[str]:
    before = parse_source(column.baseline)
    measured = ("items", "best") if column.source else ()
    numbers = ("mean", "std", "n", *(("low", "high") if column.source else ()))
    baseline = [f"{before.subject}_{name}" for name in numbers] if before else []
    return [*numbers, *baseline, *measured, "unit", "protocol"]


def _csv_row(table: Table, row: Row, row_ids: Sequence[str]) -> dict[str, object]:
    line: dict[str, object] = dict(zip(row_ids, row.keys, strict=True))
    line |= {
        "kind": "measured",
        "data": row.trained_on.name,
        "synthetic": str(row.trained_on.synthetic).lower(),
        "data_fingerprint": row.trained_on.fingerprint,
        "evaluated_on": row.evaluated_on.name,
        "evaluated_on_fingerprint": row.evaluated_on.fingerprint,
        "start": row.start,
        "settings": row.settings,
        "finished": row.finished,
        "collapsed": row.collapsed,
        "failed": row.failed,
        "runs": " ".join(row.runs),
    }
    for column, cell in zip(table.description.column, row.cells, strict=True):
        before = parse_source(column.baseline)
        for prefix, found, ends in (
            ("", cell.value, cell.interval),
            (f"{before.subject}_" if before else "", cell.baseline, cell.baseline_interval),
        ):
            if found is not None:
                line[f"{column.id}_{prefix}mean"] = repr(found.mean)
                line[f"{column.id}_{prefix}std"] = "" if found.std is None else repr(found.std)
                line[f"{column.id}_{prefix}n"] = found.n
            if ends is not None:
                line |= {f"{column.id}_{prefix}low": repr(ends.low), f"{column.id}_{prefix}high": repr(ends.high)}
        if column.source and cell.items is not None:
            line |= {f"{column.id}_items": cell.items, f"{column.id}_best": str(cell.best).lower()}
        if cell.value is not None or cell.baseline is not None:
            line[f"{column.id}_unit"] = column.unit
            line[f"{column.id}_protocol"] = cell.conditions.text
    printed_for = []
    for part, texts in zip(table.description.published, row.published, strict=True):
        line |= {f"published_{c.column}": text for c, text in zip(part.columns, texts, strict=True) if text}
        printed_for += [part.data] if any(texts) else []
    if printed_for:
        line["published_data"] = "; ".join(dict.fromkeys(printed_for))
    return line


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escape(text: str) -> str:
    """Text that cannot break out of its cell or line."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
