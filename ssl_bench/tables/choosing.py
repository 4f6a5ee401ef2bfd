"""`sslbench table --where KEY=VALUE --sort COLUMN`: which runs a table shows, and in which order its rows stand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ssl_bench.errors import UserError, did_you_mean, unknown_name
from ssl_bench.records.record import RunRecord
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.grouping import RecordFacts, as_runs, natural
from ssl_bench.tables.naming import setting_name
from ssl_bench.tables.paths import flatten, look_up, plain_text
from ssl_bench.tables.table import Row, Table

SHORT_NAMES = {"method": "method", "arch": "backbone.name", "data": "data.name", "seed": "seed", "status": "status"}
"""Keys that every table takes, beside the ids of its own rows and the names that --set takes."""


def narrowed(
    description: TableDescription, records: Sequence[RunRecord | RecordFacts], where: Sequence[str]
) -> TableDescription:
    """The description with a filter for each KEY=VALUE; a key given twice allows either value.

    Raises `UserError` for a key that no record has, or a value that none has under it.
    """
    conditions: dict[str, tuple[Any, ...]] = {}
    if not where:
        return description
    recipes = [run.values for run in as_runs(description, records, of_no_variant=True)]
    paths = _paths(description, recipes)
    for text in where:
        key, equals, value = text.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key:
            raise UserError(f"--where {text!r} is not KEY=VALUE, e.g. --where method=dino")
        if key not in paths:
            raise unknown_name("key of --where", key, paths, f"e.g. --where {next(iter(paths))}=...")
        found = {plain_text(one): one for one in (look_up(recipe, paths[key]) for recipe in recipes)}
        if value not in found:
            known = ", ".join(sorted(found)) or "nothing"
            raise UserError(f"no record has {key} = {value!r}.{did_you_mean(value, found)} Records have: {known}")
        conditions[paths[key]] = (*conditions.get(paths[key], ()), found[value])
    return description.model_copy(update={"filter": {**description.filter, **conditions}})


def _paths(description: TableDescription, recipes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Key -> dotted path into a record: ids of the table's rows, short names, and settings as --set has them."""
    paths = {setting_name(path): path for one in recipes for path in flatten(one["recipe"], "recipe")}
    paths |= SHORT_NAMES
    return {key.id: key.path for key in (*description.row, *description.distinguish)} | paths


def sorting_names(table: Table) -> list[str]:
    """What `sorted_by` takes."""
    return [*(column.id for column in table.description.column), *(key.id for key in table.keys)]


def sorted_by(table: Table, name: str) -> Table:
    """The table with the rows of each block sorted by a column's mean, best first, or by a row's text.

    Rows without a number come last. Where neither end is better, the largest comes first. "-NAME" is the reverse.
    Raises `UserError` for a name that is neither.
    """
    reverse, name = name.startswith("-"), name.removeprefix("-")
    columns = [column.id for column in table.description.column]
    keys = [key.id for key in table.keys]
    if name not in (*columns, *keys):
        known = sorting_names(table)
        raise unknown_name("column to sort by", name, known, f"--sort {known[0]}, or -{known[0]} for the reverse")

    def order(row: Row) -> tuple[Any, ...]:
        if name in keys:
            return natural(row.keys[keys.index(name)])
        cell = row.cells[columns.index(name)]
        if cell.value is None or not math.isfinite(cell.value.mean):
            return (1, 0.0)
        best_first = cell.value.mean if cell.conditions.higher_is_better is False else -cell.value.mean
        return (0, -best_first if reverse else best_first)

    def rows(of: Sequence[Row]) -> tuple[Row, ...]:
        return tuple(sorted(of, key=order, reverse=reverse and name in keys))

    return replace(table, blocks=tuple(replace(block, rows=rows(block.rows)) for block in table.blocks))
