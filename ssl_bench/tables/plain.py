"""A table as plain values for `--json`: the numbers of the CSV, nested and in full precision."""

from __future__ import annotations

from typing import Any

from ssl_bench.tables.description import Column, parse_source
from ssl_bench.tables.numbers import Interval
from ssl_bench.tables.table import Cell, Row, Statistic, Table


def to_plain(table: Table) -> dict[str, Any]:
    """Blocks of rows as in the Markdown, each cell with mean, std, n, unit and protocol, and its 95 % interval; then
    the printed rows.

    A cell that was not measured is left out of its row; `std` is null for one seed.
    """
    return {
        "id": table.description.id,
        "title": table.description.title,
        "blocks": [
            {
                "heading": block.heading,
                "rows": [_row(table, row) for row in block.rows],
                "notes": list(block.notes),
            }
            for block in table.blocks
        ],
        "published": [
            {"heading": part.heading, "data": part.data, "rows": [dict(row) for row in part.rows]}
            for part in table.published
        ],
    }


def _row(table: Table, row: Row) -> dict[str, Any]:
    columns = table.description.column
    shown = table.keys if table.description.data == "column" else table.description.row  # `data` below says it, too
    published: dict[str, str] = {}
    for part, texts in zip(table.description.published, row.published, strict=True):
        published |= {column.column: text for column, text in zip(part.columns, texts, strict=True) if text}
    return {
        "keys": {key.id: text for key, text in zip(table.keys, row.keys, strict=True) if key in shown},
        "settings": row.settings,
        "data": row.trained_on.name,
        "synthetic": row.trained_on.synthetic,
        "data_fingerprint": row.trained_on.fingerprint,
        "evaluated_on": row.evaluated_on.name,
        "evaluated_on_synthetic": row.evaluated_on.synthetic,
        "evaluated_on_fingerprint": row.evaluated_on.fingerprint,
        "finished": row.finished,
        "collapsed": row.collapsed,
        "failed": row.failed,
        "runs": list(row.runs),
        "cells": {
            c.id: _cell(c, cell, row.start) for c, cell in zip(columns, row.cells, strict=True) if cell != Cell()
        },
        "published": published,
    }


def _cell(column: Column, cell: Cell, start: str) -> dict[str, Any]:
    if cell.word:
        return {"word": cell.word}
    found: dict[str, Any] = {} if cell.value is None else _statistic(cell.value, cell.interval)
    if column.source:
        found |= {"items": cell.items, "best": cell.best}
    before = parse_source(column.baseline)
    if before is not None and cell.baseline is not None:
        found[start if before.subject == "untrained" else before.subject] = _statistic(
            cell.baseline, cell.baseline_interval
        )
    return found | {"unit": column.unit, "protocol": cell.conditions.text}


def _statistic(value: Statistic, interval: Interval | None) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": value.mean, "std": value.std, "n": value.n}
    if interval is not None:
        found |= {"interval": [interval.low, interval.high], "interval_of": interval.how}
    return found
