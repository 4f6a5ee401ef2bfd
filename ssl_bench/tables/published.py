"""Printed numbers in a table: beside measured rows in a column that says so, and in a list of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssl_bench.tables.description import Published, TableDescription
from ssl_bench.tables.table import PublishedList, Row

PublishedRows = Sequence[Sequence[Mapping[str, str]]]
"""The CSV rows of each entry of `description.published`."""


def beside(part: Published, lines: Sequence[Mapping[str, str]], texts: Mapping[str, str]) -> tuple[str, ...]:
    """The columns of the printed row that joins a row with these key texts; empty texts where none does."""
    for line in lines:
        if all(line[column] == texts.get(row_id) for row_id, column in part.join.items()):
            return tuple(line[column.column] for column in part.columns)
    return ("",) * len(part.columns)


def shown_beside(part: Published, texts: Sequence[str]) -> str:
    """What a measured row shows of a printed one, e.g. "k-NN 74.4, linear 77.1"."""
    pairs = zip(part.columns, texts, strict=True)
    return ", ".join(f"{column.beside} {text}" for column, text in pairs if column.beside and text)


def published_notes(description: TableDescription, rows: Sequence[Row]) -> list[str]:
    """One line per printed source shown beside `rows`: what it is, and on which of the rows' data it says nothing."""
    notes = []
    for index, part in enumerate(description.published):
        joined = [row for row in rows if index < len(row.published) and shown_beside(part, row.published[index])]
        sets = {row.trained_on for row in joined}
        sets |= {row.evaluated_on for row in joined} if description.data == "evaluation" else set()
        other = sorted({one.title for one in sets if one.name not in part.data_names})
        if joined:
            note = f"published, {part.data}: printed in {part.source}, not measured here"
            if other:
                note += f"; not to be compared with figures on {', '.join(other)}"
            notes.append(note)
    return notes


def published_list(description: TableDescription, index: int, published: PublishedRows) -> PublishedList:
    """All rows of one printed source, the columns of others that join them in between."""
    part = description.published[index]
    titles = {key.id: key.title or key.id for key in description.row}
    sources = [
        (other, lines)
        for other, lines in zip(description.published, published, strict=True)
        if not other.listed and set(other.join) <= set(part.join)
    ]
    sources.append((part, published[index]))
    header = [titles.get(row_id, row_id.replace("_", " ")) for row_id in part.join]
    header += [column.title for source, _ in sources for column in source.columns]
    rows = []
    for line in published[index]:
        texts = {row_id: line[column] for row_id, column in part.join.items()}
        for source, lines in sources:
            names = [column.column for column in source.columns]
            texts |= dict(zip(names, beside(source, lines, texts), strict=True))
        rows.append(texts)
    heading = f"Published, {part.data}: {part.source}. Nothing in this block was measured here"
    return PublishedList(heading, part.data, tuple(header), tuple(rows))
