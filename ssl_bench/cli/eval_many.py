"""`sslbench eval` of several runs, weights or datasets: progress, the table of all, and what failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.terminal import terminal
from ssl_bench.system.hints import command
from ssl_bench.system.signals import interrupting_signals

if TYPE_CHECKING:
    from ssl_bench.records.record import RunRecord
    from ssl_bench.runs.elsewhere import WeightsRequest
    from ssl_bench.runs.many import RunRequest


def evaluate_many(requests: Sequence[WeightsRequest | RunRequest], results: Path, *, as_json: bool) -> None:
    """Evaluate all, print their table, then the failures; exit status 1 where there are any."""
    from ssl_bench.runs.many import evaluate_all

    try:
        with quiet(as_json), interrupting_signals():
            outcome = evaluate_all(requests, results, say)
    except KeyboardInterrupt:
        print("what was finished is kept: the same command does the rest", file=sys.stderr)
        raise
    if as_json:
        runs = [{"run": str(folder), "record": record.model_dump(mode="json")} for folder, record in outcome.evaluated]
        print_json({"runs": runs, "failures": [asdict(one) for one in outcome.failures]})
    elif outcome.evaluated:
        _print_tables([record for _, record in outcome.evaluated])
        print(f"{len(outcome.evaluated)} records under {results / 'runs'}; all: {command('table', results=results)}")
    if outcome.failures:
        print(f"{len(outcome.failures)} of {len(requests)} evaluations failed:", file=sys.stderr)
        for failure in outcome.failures:
            print(f"  {failure}", file=sys.stderr)
        raise typer.Exit(1)


def _print_tables(records: Sequence[RunRecord]) -> None:
    """Every built-in table with rows for these records."""
    from ssl_bench.registry.preset_files import presets_of
    from ssl_bench.tables.fold import fold
    from ssl_bench.tables.grouping import RecordFacts
    from ssl_bench.tables.loading import built_in_tables, load_table
    from ssl_bench.tables.render import to_markdown
    from ssl_bench.tables.terminal import draw

    console = terminal()
    facts = [RecordFacts(record, presets_of) for record in records]
    for name in built_in_tables():
        source = load_table(name)
        table = fold(source.description, facts, source.published)
        if not table.blocks:
            continue
        if console is None:
            print(to_markdown(table, published_lists=False))
        else:
            draw(console, table, published_lists=False)


def quiet(as_json: bool) -> AbstractContextManager[Any]:
    """Whatever is printed is no part of a JSON document."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def say(text: str) -> None:
    """One line of progress."""
    print(f"  ... {text}")
