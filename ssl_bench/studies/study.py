"""What a study is: the tables that a name stands for, and the runs that these need."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path

from ssl_bench.datasets.opening import OpenedOnce
from ssl_bench.errors import UserError, unknown_name
from ssl_bench.figures.loading import built_in_figures, load_figure
from ssl_bench.records.record import RunRecord
from ssl_bench.studies.board import Board, Entry
from ssl_bench.studies.cells import Cells, Wish, cells_of
from ssl_bench.studies.found import folders_of
from ssl_bench.studies.plan import StudyRun, in_order
from ssl_bench.tables.loading import TableSource, built_in_tables, load_table

ALL = "thesis"
"""The study of every official table that says which runs it needs."""


def known_studies() -> dict[str, str]:
    """Name -> title of what comes with sslbench and says which runs it needs: tables, and figures of other names."""
    found = {name: load_table(name).description for name in built_in_tables()}
    tables = {name: one.title for name, one in found.items() if one.runs is not None}
    figures = {
        name: f"{title} (a figure)"
        for name, title in built_in_figures().items()
        if name not in found and load_figure(name).table.description.runs is not None
    }
    return {ALL: "all of these"} | tables | figures


def load_study(name_or_path: str) -> list[TableSource]:
    """The tables of a study: one by name, that of a figure, the user's own by its path, or all official ones.

    Raises `UserError`.
    """
    if name_or_path == ALL:
        return [load_table(name) for name in built_in_tables() if load_table(name).description.runs is not None]
    if name_or_path in built_in_tables():
        return [load_table(name_or_path)]
    path = Path(os.path.expanduser(name_or_path))
    if name_or_path in built_in_figures() or (path.suffix == ".toml" and _is_a_figure(path)):
        return [load_figure(name_or_path).table]
    if path.suffix == ".toml":
        return [load_table(name_or_path)]
    known = [ALL, *built_in_tables(), *built_in_figures()]
    raise unknown_name("study", name_or_path, known, "sslbench bench --list; or give the path of a .toml file")


def figures_of(sources: Iterable[TableSource]) -> list[str]:
    """Names of the official figures that draw these tables."""
    tables = {source.description.id for source in sources}
    return [name for name in built_in_figures() if load_figure(name).table.description.id in tables]


def _is_a_figure(path: Path) -> bool:
    """Whether a description names the table that it draws; what cannot be read is left to whoever reads it."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return "table" in content and "column" not in content


def planned(sources: list[TableSource], wish: Wish) -> Cells:
    """All runs of the tables, each once, in the order in which they are done. Raises `UserError`."""
    opened = OpenedOnce()
    found = [cells_of(source.description, wish, opened) for source in sources]
    left_out = {place: reason for cells in found for place, reason in cells.left_out.items()}
    runs = in_order([run for cells in found for run in cells.runs])
    if not runs:
        raise UserError(f"these data allow none of the rows: {next(iter(left_out.values()))}")
    return Cells(
        runs=runs,
        left_out=left_out,
        notes=tuple(dict.fromkeys(note for cells in found for note in cells.notes)),
    )


def board_of(runs: tuple[StudyRun, ...], results: Path, records: Iterable[tuple[Path, RunRecord]] = ()) -> Board:
    """The runs with what lies under `results` of them; `records` are those that lie there, with their paths."""
    places = folders_of(runs, results, records)
    entries = [Entry(run, places[run.recipe.digest]) for run in runs]
    board = Board(entries, time.monotonic())
    for entry in entries:
        entry.update_from_disk()
        entry.done_before = entry.place.done
    return board
