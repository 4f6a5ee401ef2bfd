"""`sslbench table NAME --explain ROW`: which records stand behind each cell of a row, with their seeds and values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.records.record import RunRecord
from ssl_bench.tables.cells import lines_of
from ssl_bench.tables.description import Column
from ssl_bench.tables.grouping import Group, RecordFacts, Run, as_runs
from ssl_bench.tables.render import cell_text, column_title
from ssl_bench.tables.table import Block, Cell, Conditions, Row, Table, TableData


@dataclass(frozen=True)
class RunValue:
    """What one run gives to a cell; None where it gives nothing, e.g. because it did not finish."""

    run_id: str
    seed: int
    status: str
    value: float | None
    baseline: float | None


@dataclass(frozen=True)
class CellEvidence:
    """A cell with the runs behind it."""

    column: Column
    cell: Cell
    test_items: int | None
    """Images, objects or clips that each value is a mean over; None where no evaluator measured it."""
    runs: tuple[RunValue, ...]


@dataclass(frozen=True)
class RowEvidence:
    """A row with the runs behind each of its cells that has any."""

    number: int
    """Its place in the table, from 1."""
    name: str
    heading: str
    finished: int
    cells: tuple[CellEvidence, ...]


def explain(table: Table, records: Iterable[RunRecord | RecordFacts], wanted: str) -> list[RowEvidence]:
    """The rows that `wanted` means: a number from 1, or words that stand in the row.

    Raises `UserError`, listing the rows, where none is meant.
    """
    rows = list(_rows(table))
    if not rows:
        raise UserError(f"the table {table.description.id} has no rows yet: there is nothing to explain")
    words = wanted.strip().lower()
    exact = [one for one in rows if words in (str(one[0]), row_name(table, one[2]).lower())]
    chosen = exact
    if words and not chosen and not words.isdigit():
        chosen = [one for one in rows if all(word in _searched(table, one[2]) for word in words.split())]
    if not chosen:
        names = [row_name(table, row) for _, _, row in rows]
        listing = "\n".join(f"  {number}  {row_name(table, row)}" for number, _, row in rows)
        raise UserError(
            f"the table {table.description.id} has no row {wanted!r}.{did_you_mean(wanted, names)} Give a number, or "
            f"words that stand in the row:\n{listing}"
        )
    runs = {run.record.run_id: run for run in as_runs(table.description, records)}
    return [_evidence(table, number, block, row, runs) for number, block, row in chosen]


def explain_all(table: Table, records: Iterable[RecordFacts]) -> list[RowEvidence]:
    """Every row of the table, in its order."""
    rows = list(_rows(table))
    behind = {name for _, _, row in rows for name in row.runs}
    shown = [one for one in records if one.record.run_id in behind]
    runs = {run.record.run_id: run for run in as_runs(table.description, shown)}
    return [_evidence(table, number, block, row, runs) for number, block, row in rows]


def row_name(table: Table, row: Row) -> str:
    """What tells a row from others, e.g. "dino, deit_s16, 3 epochs"."""
    return ", ".join(text for text in (*row.keys, row.settings) if text)


def _rows(table: Table) -> Iterator[tuple[int, Block, Row]]:
    number = 0
    for block in table.blocks:
        for row in block.rows:
            number += 1
            yield number, block, row


def _searched(table: Table, row: Row) -> str:
    titled = [f"{key.id} {key.title} {text}" for key, text in zip(table.keys, row.keys, strict=True)]
    return " ".join([*titled, row.settings, *row.runs]).lower()


def _evidence(table: Table, number: int, block: Block, row: Row, runs: dict[str, Run]) -> RowEvidence:
    members = [runs[name] for name in row.runs if name in runs]
    members.sort(key=lambda run: (run.record.seed, run.record.run_id))
    alone = {run.record.run_id: _cells_of(table, block, row, run) for run in members}
    cells = []
    for index, (column, cell) in enumerate(zip(table.description.column, row.cells, strict=True)):
        if cell == Cell():
            continue
        found = [(run, alone[run.record.run_id].get((index, cell.conditions), Cell())) for run in members]
        items = [one.items for _, one in found if one.items is not None]
        cells.append(
            CellEvidence(column, cell, items[0] if items else None, tuple(_run_value(run, one) for run, one in found))
        )
    return RowEvidence(number, row_name(table, row), block.heading, row.finished, tuple(cells))


def _run_value(run: Run, cell: Cell) -> RunValue:
    record = run.record
    value, before = (one.mean if one else None for one in (cell.value, cell.baseline))
    return RunValue(record.run_id, record.seed, record.status, value, before)


def _cells_of(table: Table, block: Block, row: Row, run: Run) -> dict[tuple[int, Conditions], Cell]:
    """(Column, conditions) -> the cell that a run would have alone."""
    data = block.data or TableData.trained_on(run.record)
    elsewhere = table.description.data != "evaluation"
    found: dict[tuple[int, Conditions], Cell] = {}
    for _, cells in lines_of(table.description.column, Group(row.keys, [run]), data, elsewhere=elsewhere):
        for index, cell in enumerate(cells):
            if cell.value is not None or cell.baseline is not None:
                found.setdefault((index, cell.conditions), cell)
    return found


def as_text(evidence: Sequence[RowEvidence]) -> str:
    """Row by row, cell by cell: the number, its protocol, and a line per run."""
    lines: list[str] = []
    for row in evidence:
        lines += [f"row {row.number}: {row.name}", f"  {row.heading}"]
        for one in row.cells:
            lines += ["", f"  {column_title(one.column)}: {cell_text(one.column, one.cell, row.finished)}"]
            if one.cell.conditions.text:
                lines.append(f"    protocol: {one.cell.conditions.text}")
            if one.test_items is not None:
                lines.append(f"    n: {one.test_items:,} test items behind each value")
            lines += [f"    {_run_text(one.column, run)}" for run in one.runs]
        lines.append("")
    return "\n".join(lines).rstrip()


def _run_text(column: Column, run: RunValue) -> str:
    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:,.{column.decimals + 2}f}"

    before = f"{number(run.baseline)} → " if run.baseline is not None else ""
    said = "" if run.status == "finished" else f"  {run.status}"
    return f"seed {run.seed}  {before}{number(run.value)}{said}  {run.run_id}"


def to_plain(evidence: Sequence[RowEvidence]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [
        {
            "row": row.number,
            "name": row.name,
            "heading": row.heading,
            "cells": {
                one.column.id: {
                    "mean": one.cell.value.mean if one.cell.value else None,
                    "unit": one.column.unit,
                    "protocol": one.cell.conditions.text,
                    "test_items": one.test_items,
                    "runs": [vars(run) for run in one.runs],
                }
                for one in row.cells
            },
        }
        for row in evidence
    ]
