"""Tables on a terminal: nothing is lost or cut, the best values that compare stand out, and views of a table."""

from __future__ import annotations

import csv
import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ssl_bench.errors import UserError
from ssl_bench.records.record import write_record
from ssl_bench.tables.choosing import narrowed, sorted_by
from ssl_bench.tables.fold import fold
from ssl_bench.tables.loading import load_table
from ssl_bench.tables.render import Grid, block_grid, to_markdown
from ssl_bench.tables.table import Table
from ssl_bench.tables.terminal import draw, grid_for
from tests.conftest import Command
from tests.example_records import evaluations, make_record, with_reach

HEADER = ("method", "arch", "settings", "k-NN %", "published, ImageNet-1k")
ROWS = (
    ("dino", "deit_s16", "preset small-data, epochs=12", "30.0 → 40.5±0.7", "k-NN 74.4, linear 77.1"),
    ("a_method_of_a_long_name", "deit_s16", "", "collapsed", ""),
)
GRID = Grid(HEADER, ROWS, (False, False, False, True, False))
SOURCE = load_table("comparison")


def drawn(thing: Any, width: int, color: bool = False) -> str:
    system: Any = "standard" if color else None
    console = Console(file=io.StringIO(), width=width, highlight=False, force_terminal=color, color_system=system)
    if isinstance(thing, Table):
        draw(console, thing, published_lists=True)
    else:
        console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def comparison(*records: Any) -> Table:
    return fold(SOURCE.description, records, SOURCE.published)


@pytest.mark.parametrize("width", [30, 62, 80, 140])
def test_every_width_shows_every_word_on_lines_that_fit(width: int) -> None:
    text = drawn(grid_for(GRID, width), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    squeezed = "".join(text.split())
    for cell in (cell for row in ROWS for cell in row):
        for word in cell.split():
            assert word in squeezed
    number = [line for line in text.splitlines() if "30.0 → 40.5±0.7" in line]
    assert number, "a number is never folded"
    assert ("method, arch" in text) == (width in (62, 80)), "words in one column where not all columns fit"


def test_the_whole_table_is_drawn_with_headings_and_notes() -> None:
    table = comparison(make_record(), make_record("byol", status="collapsed"))
    words = "".join(drawn(table, 80).split())
    for line in to_markdown(table, published_lists=False).splitlines():
        if line.startswith(("- ", "## ")):
            assert "".join(line.lstrip("#- ").replace("\\", "").split()) in words


def test_the_best_of_values_that_compare_is_marked_and_only_there() -> None:
    far = evaluations((30.0, 90.0), None, protocol="10-NN")
    table = comparison(
        with_reach(make_record(knn=(30.0, 41.0), linear=(35.0, 50.0)), 1.0),
        with_reach(make_record("byol", knn=(30.0, 44.0), linear=None), 1.0),
        with_reach(make_record("swav", evaluations=far), 1.0),
        make_record("simclr", status="failed"),
    )
    (block,) = table.blocks
    grid = block_grid(table, block)
    marked = {grid.rows[row][column]: mark for (row, column), mark in grid.marks.items()}
    assert marked == {"30.0 → 44.0 (43.0 to 45.0) [a]": "best", "failed": "no number"}, (
        "one linear value and 10-NN have no rival"
    )
    text = drawn(table, 200, color=True)
    assert "\x1b[1;32m30.0 → 44.0 (43.0 to 45.0) [a]" in text
    assert text.count("\x1b[1;32m") == 1
    assert text.count("\x1b[31mfailed") == 2


def test_of_measures_where_less_is_better_the_least_is_best_and_sorts_first() -> None:
    records = []
    for method, value in (("byol", 3.0), ("dino", 2.0), ("swav", 9.0)):
        (one,) = evaluations((value, value), None)[1:]
        measurement = one.measurements[0].model_copy(update={"higher_is_better": False})
        record = make_record(method, evaluations=(one.model_copy(update={"measurements": (measurement,)}),))
        records.append(with_reach(record, 0.5))
    table = comparison(*records)
    (block,) = table.blocks
    assert [row for row, _ in block_grid(table, block).marks] == [1]
    assert [row.keys[0] for row in sorted_by(table, "knn").blocks[0].rows] == ["dino", "byol", "swav"]


def test_sorting_puts_rows_without_a_number_last_both_ways() -> None:
    table = comparison(
        make_record("byol", knn=(30.0, 44.0)), make_record("dino", knn=(30.0, 41.0)), make_record("swav", knn=None),
        make_record("simclr", status="failed"),
    )  # fmt: skip

    def methods(name: str) -> list[str]:
        return [row.keys[0] for row in sorted_by(table, name).blocks[0].rows]

    assert methods("knn")[:2] == ["byol", "dino"]
    assert methods("-knn")[:2] == ["dino", "byol"]
    assert methods("method") == ["byol", "dino", "simclr", "swav"] == methods("-method")[::-1]
    with pytest.raises(UserError, match=r"'knnn'.*Did you mean 'knn'"):
        methods("knnn")


@pytest.mark.parametrize(
    ("where", "methods"),
    [
        (["method=dino"], {"dino"}),
        (["method=dino", "method=byol"], {"dino", "byol"}),
        (["method.local_views=2"], {"byol"}),
        (["training.epochs=12", "seed=1"], {"swav"}),
        (["data=shapes", "status=finished", "arch=deit_s16"], {"dino", "byol", "swav"}),
    ],
)
def test_where_keeps_the_runs_that_have_the_values(where: list[str], methods: set[str]) -> None:
    records = [make_record(), make_record("byol", settings={"local_views": 2}), make_record("swav", seed=1)]
    table = fold(narrowed(SOURCE.description, records, where), records, SOURCE.published)
    assert {row.keys[0] for block in table.blocks for row in block.rows} == methods


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("method", "not KEY=VALUE"),
        ("methd=dino", "Did you mean 'method'"),
        ("method=dinno", "Did you mean 'dino'.*Records have: byol, dino"),
    ],
)
def test_where_says_what_there_is(where: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        narrowed(SOURCE.description, [make_record(), make_record("byol")], [where])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for method, value in (("dino", 40.0), ("byol", 44.0)):
        record = with_reach(make_record(method, knn=(30.0, value)), 1.0)
        write_record(record, tmp_path / "results/runs" / method / "record.json")
    return tmp_path / "results"


def test_csv_and_a_narrowed_view_on_stdout(sslbench: Command, results: Path) -> None:
    status, out, err = sslbench("table", "--format", "csv", "--results", results)
    assert (status, err) == (0, "")
    assert out == (results / "tables/comparison.csv").read_text()
    status, out, _ = sslbench("table", "--where", "method=dino", "--format", "csv", "--results", results)
    assert [row["method"] for row in csv.DictReader(io.StringIO(out)) if row["kind"] == "measured"] == ["dino"]
    assert "byol" in (results / "tables/comparison.csv").read_text(), "the file still holds all runs"
    assert "written" not in sslbench("table", "--sort", "knn", "--results", results)[1]
    assert sslbench("table", "--format", "pdf", "--results", results)[0] == 2


def test_a_terminal_gets_a_drawing(results: Path) -> None:
    """In a terminal of its own, as a user has it; what a pipe gets is Markdown (test_table_show_list)."""
    command = [sys.executable, "-m", "ssl_bench.cli.main", "table", "--results", str(results)]
    near, far = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "50"}
    with subprocess.Popen(command, stdout=far, stderr=far, stdin=far, env=environment):
        os.close(far)
        seen = b""
        while part := _read(near):
            seen += part
    os.close(near)
    assert b"\x1b[1;32m30.0 \xe2\x86\x92 44.0" in seen
    assert b"| dino" not in seen


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # what Linux answers when the other end is closed
        return b""


@pytest.mark.parametrize("width", [40, 80])
def test_list_is_drawn_in_the_width_there_is(sslbench: Command, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    plain = sslbench("list", "methods")[1]
    console = Console(file=io.StringIO(), width=width, highlight=False)
    monkeypatch.setattr("ssl_bench.cli.list.terminal", lambda: console)
    assert sslbench("list", "methods")[0] == 0
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert {*plain.split()} - {*text.split()} == {"sslbench", "0.1.0"}, "sslbench's own plugins do not repeat its name"
