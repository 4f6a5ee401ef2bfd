"""`sslbench show`: one run's record in words."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.options import RESULTS
from ssl_bench.cli.terminal import terminal
from ssl_bench.errors import UserError
from ssl_bench.system.hints import resume_command

if TYPE_CHECKING:
    from rich.console import Console

    from ssl_bench.cli.record_view import Number, RecordView
    from ssl_bench.measurement import Protocol
    from ssl_bench.records.record import RunRecord


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example, after `sslbench run dino --arch deit_s16`: sslbench show dino")
    def show(
        run: Annotated[
            str,
            typer.Argument(metavar="RUN", help="a run's id, the beginning of one, its folder or its record.json"),
        ],
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
        as_json: Annotated[
            bool, typer.Option("--json", help="the whole record as JSON, later evaluations joined in")
        ] = False,
    ) -> None:
        """Show one run: what, when and where, its recipe, untrained against trained with the protocol, and its cost."""
        from ssl_bench.records.odd_values import require_usable
        from ssl_bench.records.reading import read_record, with_later_evaluations
        from ssl_bench.runs.folder import find_run
        from ssl_bench.runs.state import RUN_FILE

        folder = find_run(run, results)
        path = folder / "record.json"
        if not path.exists() and not (folder / RUN_FILE).exists():
            raise UserError(f"{folder} holds no run: {RUN_FILE} and record.json are missing")
        if not path.exists():
            print(f"{folder} is an unfinished run: it has no record yet. Resume with: {resume_command(folder)}")
            raise typer.Exit(1)
        problems: list[str] = []
        record = with_later_evaluations(read_record(path), folder, problems)
        require_usable(record, path)
        if as_json:
            print_json(record.model_dump(mode="json"))
        else:
            _print(record, path, problems)
        for problem in problems:
            print(f"warning: left out: {problem}", file=sys.stderr)
        if problems:
            raise typer.Exit(1)


def _print(record: RunRecord, path: Path, problems: list[str]) -> None:
    from ssl_bench.cli.record_view import view_of

    view, console = view_of(record, path, problems), terminal()
    if console is None:
        print("\n".join(plain_lines(view)))
    else:
        draw(console, view)


def plain_lines(view: RecordView) -> list[str]:
    """The record in lines, for a file or a pipe."""
    lines = [f"{view.name}  {view.outcome}", ""]
    width = max(len(name) for name, _ in view.facts) + 1
    lines += [f"  {name:<{width}} {text}" for name, text in view.facts]
    lines += ["", *_number_lines(view), ""]
    lines += ["during training", *(f"  {name:<18}{text}" for name, text in view.curves), ""] if view.curves else []
    lines += ["pictures", *(f"  {picture}" for picture in view.pictures), ""] if view.pictures else []
    lines += ["recipe", *(f"  {name} = {value}" for name, value in view.recipe)]
    return [*lines, "", f"record  {view.path}"]


def _number_lines(view: RecordView) -> list[str]:
    """One line a metric, before and after training side by side, the protocol under it; main numbers with a star."""
    if not view.numbers:
        return ["  nothing was measured"]
    width = max(len(f"{one.evaluator} {one.last.metric}") for one in view.numbers)
    lines = [f"  {'':<{width + 2}}{view.start:>10}{'trained':>10}"]
    for one, following in _with_following(view.numbers):
        star = "*" if one.last.primary else " "
        before, after = one.values
        name = f"{one.evaluator} {one.last.metric}"
        of = f"{one.last.unit_text} of".strip()
        lines.append(f"  {star} {name:<{width}}{before:>10}{after:>10}  {of} {one.last.n:,}, {one.data}")
        if any(one.intervals):
            ends = zip((view.start, "trained"), one.intervals, strict=True)
            shown = ", ".join(f"{subject} {interval}" for subject, interval in ends if interval)
            lines.append(f"    {'95 % interval':<{width}}  {shown}")
        if following is None or following.last.protocol != one.last.protocol:
            lines.append(f"      {one.last.protocol.text}")  # once below all numbers that share it
    return lines


def _with_following(numbers: Sequence[Number]) -> Iterable[tuple[Number, Number | None]]:
    return zip(numbers, [*numbers[1:], None], strict=True)


def draw(console: Console, view: RecordView) -> None:
    """The record on a terminal: long texts fold beside their name, numbers stand in a table by evaluator and data."""
    from rich.table import Table
    from rich.text import Text

    def pairs(title: str, rows: Iterable[tuple[str, str]]) -> None:
        drawn = Table.grid(padding=(0, 2, 0, 0))
        drawn.add_column(no_wrap=True, style="dim")
        drawn.add_column(overflow="fold")
        for name, text in rows:
            drawn.add_row(Text(f"  {name}"), Text(text))
        console.print(Text(title, style="bold cyan") if title else "")
        console.print(drawn)

    finished = view.outcome == "finished"
    console.print(Text.assemble((view.name, "bold"), "  ", (view.outcome, "green" if finished else "bold red")))
    pairs("", view.facts)
    console.print()
    if not view.numbers:
        console.print("  nothing was measured")
    for group in _groups(view.numbers):
        _draw_numbers(console, view.start, group)
    if view.curves:
        pairs("during training", view.curves)
        console.print()
    folders = Counter(picture.parent for picture in view.pictures)
    if folders:
        pairs("pictures", ((f"{count}", str(folder)) for folder, count in folders.items()))
        console.print()
    pairs("recipe", view.recipe)
    console.print(Text(f"\nrecord  {view.path}"))


def _groups(numbers: Sequence[Number]) -> Iterable[list[Number]]:
    """Numbers that follow each other and are of one evaluator on one dataset."""
    for _, group in groupby(numbers, key=lambda one: (one.evaluator, one.data)):
        yield list(group)


def _draw_numbers(console: Console, start: str, numbers: Sequence[Number]) -> None:
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble((numbers[0].evaluator, "bold cyan"), f" on {numbers[0].data}")
    console.print(title)
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    intervals = any(any(one.intervals) for one in numbers)
    drawn.add_column("  metric", no_wrap=True)
    for name in (start, "95 %", "trained", "95 %") if intervals else (start, "trained"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("n", justify="right")
    for one in numbers:
        cells = [text for pair in zip(one.values, one.intervals, strict=True) for text in pair[: 1 + intervals]]
        name = f"{'*' if one.last.primary else ' '} {one.last.metric} {one.last.unit_text}".rstrip()
        style = "bold" if one.last.primary else ""
        drawn.add_row(Text(name, style=style), *(Text(cell, style=style) for cell in cells), f"{one.last.n:,}")
    console.print(drawn)
    protocols: dict[Protocol, list[str]] = {}
    for one in numbers:
        protocols.setdefault(one.last.protocol, []).append(one.last.metric)
    for protocol, metrics in protocols.items():
        named = f"{', '.join(metrics)}: " if len(protocols) > 1 else ""
        console.print(Padding(Text(f"{named}{protocol.text}", style="dim"), (0, 0, 0, 2)))
    console.print()
