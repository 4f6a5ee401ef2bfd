"""`sslbench diff`: what differs between two runs, and by how much their numbers do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.options import RESULTS
from ssl_bench.cli.terminal import terminal
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.records.record import RunRecord
    from ssl_bench.tables.differences import Comparison
    from ssl_bench.tables.render import Grid

NUMBERS = ("number", "first", "second", "second - first [95 %]", "note")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: sslbench diff dino-deit_s16-shapes-s0 dino-deit_s16-shapes-s1")
    def diff(
        one: Annotated[str, typer.Argument(metavar="RUN", help="a run's id, the beginning of one, or its folder")],
        other: Annotated[str, typer.Argument(metavar="RUN", help="another run")],
        every: Annotated[bool, typer.Option("--all", help="every metric, not only the main ones")] = False,
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    ) -> None:
        """Show what differs between two runs, what matters first, and the difference of their numbers.

        Numbers are compared where they have one protocol and one dataset, with the 95 % interval of their difference
        over the test items: where it holds 0, the difference may be an accident of them. "paired": item by item, from
        the outcomes beside both records, which finds smaller differences. Seeds are not part of that interval.
        """
        from ssl_bench.records.outcomes import OutcomesOfRuns
        from ssl_bench.tables.differences import compared, differences

        (first, first_folder), (second, second_folder) = _read(one, results), _read(other, results)
        records = first, second
        unlike = differences(*records)
        outcomes = OutcomesOfRuns({first.run_id: first_folder}), OutcomesOfRuns({second.run_id: second_folder})
        numbers = compared(*records, outcomes, primary_only=not every)
        for problem in (line for source in outcomes for line in source.problems):
            print(f"warning: {problem}", file=sys.stderr)
        if as_json:
            print_json(
                {
                    "runs": [record.run_id for record in records],
                    "differences": [pair._asdict() for pair in unlike],
                    "numbers": [_plain(number) for number in numbers],
                }
            )
            return
        from ssl_bench.tables.differences import texts
        from ssl_bench.tables.render import Grid

        print(f"first   {records[0].run_id}\nsecond  {records[1].run_id}\n")
        if unlike:
            _print_words(Grid(("differs in", "first", "second"), tuple(map(tuple, unlike)), (False,) * 3))
        else:
            print("no setting, dataset, machine or version differs")
        for part in ("method", "network"):
            if any(pair.name == part for pair in unlike):
                print(f"settings that only one {part} has are left out")
        print()
        if numbers:
            _print_numbers(Grid(NUMBERS, tuple(texts(numbers)), (False, True, True, True, False)))
        else:
            print("they have no metric on the same dataset in common: nothing to compare")


def _read(run: str, results: Path) -> tuple[RunRecord, Path]:
    """The record with later evaluations, and the run's folder."""
    from ssl_bench.records.odd_values import require_usable
    from ssl_bench.records.reading import read_record, with_later_evaluations
    from ssl_bench.runs.folder import find_run

    folder = find_run(run, results)
    path = folder / "record.json"
    if not path.exists():
        raise UserError(f"{folder} is an unfinished run: it has no record to compare yet")
    problems: list[str] = []
    record = with_later_evaluations(read_record(path), folder, problems)
    if problems:
        raise UserError("; ".join(problems))
    require_usable(record, path)
    return record, folder


def _print_words(grid: Grid) -> None:
    """Columns of words: each folds within its own width on a terminal."""
    from ssl_bench.tables.render import markdown_grid

    console = terminal()
    if console is None:
        print(markdown_grid(grid))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in grid.header:
        drawn.add_column(title, overflow="fold")
    for row in grid.rows:
        drawn.add_row(*map(Text, row))
    console.print(drawn)


def _print_numbers(grid: Grid) -> None:
    from ssl_bench.tables.render import markdown_grid

    console = terminal()
    if console is None:
        print(markdown_grid(grid))
        return
    from ssl_bench.tables.terminal import grid_for

    console.print(grid_for(grid, console.width))


def _plain(number: Comparison) -> dict[str, Any]:
    return {
        "evaluator": number.evaluator,
        "metric": number.one.metric,
        "subject": number.subject,
        "data": number.data.name,
        "data_fingerprint": number.data.fingerprint,
        "unit": number.one.unit,
        "first": number.one.value,
        "second": number.other.value,
        "n": [number.one.n, number.other.n],
        "difference": number.difference,
        "interval": number.interval,
        "paired": number.paired is not None,
        "protocols": [number.one.protocol.text, number.other.protocol.text],
    }
