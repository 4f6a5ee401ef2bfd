"""`sslbench bench`: do the runs that a table still lacks, then print the table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.options import RESULTS
from ssl_bench.errors import UserError
from ssl_bench.system.hints import command
from ssl_bench.system.signals import interrupting_signals

if TYPE_CHECKING:
    from ssl_bench.studies.board import Board
    from ssl_bench.studies.cells import Wish
    from ssl_bench.studies.costs import Costs, Machine

EXAMPLES = """Examples:

  sslbench bench comparison --dry-run                     which runs, how long, how much memory

  sslbench bench comparison --data ~/photos --budget 8h   on your own images, overnight

  sslbench bench thesis                                   every table of the thesis, in small

  sslbench bench my.toml                                  an ablation of your own: docs/ablations.md"""


@dataclass(frozen=True)
class Asked:
    """What was typed."""

    study: str
    wish: Wish
    jobs: int
    budget: float | None
    """Seconds; None: no limit."""
    results: Path
    dry_run: bool


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog=EXAMPLES)
    def bench(
        name: Annotated[
            str | None,
            typer.Argument(metavar="NAME|FILE", help="a study (--list), `thesis` for all of them, or a .toml of yours"),
        ] = None,
        data: Annotated[
            str | None, typer.Option(metavar="NAME|PATH", help="what to train on [default: the size's data]")
        ] = None,
        eval_data: Annotated[
            list[str] | None,
            typer.Option(
                metavar="NAME|PATH", help="labeled data to evaluate on; repeatable [default: those of --data]"
            ),
        ] = None,
        size: Annotated[
            str, typer.Option(metavar="paper|thesis|laptop", help="how large the runs are; a table may have others")
        ] = "laptop",
        seeds: Annotated[int | None, typer.Option(metavar="N", help="runs of each row [default: the size's]")] = None,
        budget: Annotated[
            str | None,
            typer.Option(metavar="TIME", help="e.g. 45m, 2h: does what fits; what still runs then is saved"),
        ] = None,
        jobs: Annotated[int, typer.Option(metavar="N", help="runs side by side; the cores are divided among them")] = 1,
        set_: Annotated[
            list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="a setting of every run; repeatable")
        ] = None,
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs and tables are kept")] = RESULTS,
        list_: Annotated[bool, typer.Option("--list", help="show which studies there are and stop")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be done and stop")] = False,
    ) -> None:
        """Do the runs that a table still lacks, nothing twice, then print the table.

        A run counts as done when a record of the same recipe lies under DIR/runs, whoever made it. Ctrl-C saves what is
        running; the same command continues. Two of these at once share the work. Exit status 1 when a run failed.
        """
        if list_:
            _print_studies()
            return
        if name is None:
            raise UserError("bench needs the name of a study: sslbench bench --list shows them, e.g. comparison")
        with interrupting_signals():
            try:
                from ssl_bench.settings import parse_assignments
                from ssl_bench.studies.cells import Wish
                from ssl_bench.studies.forecast import parse_budget

                if jobs < 1 or (seeds is not None and seeds < 1):
                    what = "--jobs" if jobs < 1 else "--seeds"
                    raise UserError(f"{what} {jobs if jobs < 1 else seeds}: give 1 or more")
                wish = Wish(
                    size=size,
                    data=data,
                    eval_data=tuple(eval_data) if eval_data else None,
                    seeds=seeds,
                    values=parse_assignments(set_ or []),
                )
                seconds = None if budget is None else parse_budget(budget)
                _bench(Asked(name, wish, jobs, seconds, results.expanduser(), dry_run))
            except KeyboardInterrupt:
                print("stopped before anything was begun; nothing is lost")
                raise typer.Exit(130) from None


def _print_studies() -> None:
    from ssl_bench.studies.study import known_studies

    known = known_studies()
    width = max(map(len, known))
    print("\n".join(f"{name:{width}}  {title}" for name, title in known.items()))


def _bench(asked: Asked) -> None:
    from ssl_bench.cli.output import surviving_output
    from ssl_bench.cli.overview import data_lines, plan_lines, problem_lines, run_lines
    from ssl_bench.cli.table import show_tables
    from ssl_bench.records.reading import read_all
    from ssl_bench.runs.plain_names import command_line
    from ssl_bench.studies.costs import Costs
    from ssl_bench.studies.doing import Interrupted
    from ssl_bench.studies.forecast import forecast, require_time_for_one
    from ssl_bench.studies.study import board_of, figures_of, load_study, planned
    from ssl_bench.studies.trial import try_unknown

    sources = load_study(asked.study)
    print(f"planning {asked.study}: reading its data", flush=True)
    cells = planned(sources, asked.wish)
    records = read_all(asked.results)[0]
    board = board_of(cells.runs, asked.results, records)
    machine = _machine(asked)
    costs = Costs(machine, [record for _, record in records])
    with surviving_output():
        waiting = [entry.run for entry in board.with_status("waiting")]
        try_unknown(waiting, costs, machine, lambda text: print(text, flush=True))
        left = forecast(board, costs, asked.jobs)
        print(
            "\n".join([*plan_lines(asked.study, asked.wish.size, board, left, machine.memory_mb), *data_lines(cells)])
        )
        if asked.budget is not None:
            require_time_for_one(board.with_status("waiting"), costs, asked.budget)
        if asked.dry_run:
            print("\n".join(run_lines(board, costs)))
            return
        if board.with_status("waiting", "elsewhere"):
            try:
                _work(asked, board, costs, machine.threads)
            except Interrupted:
                todo = len(board.with_status("waiting", "stopped", "elsewhere"))
                print(f"stopped, everything that ran is saved; {todo} runs are left. Continue with: {command_line()}")
                raise typer.Exit(130) from None
        print("\n".join(problem_lines(board)))
        show_tables(sources, asked.results)
        for figure in figures_of(sources):
            print(f"drawn by: {command('figure', figure, results=asked.results)}")
        print(f"all of it on one page: {command('report', results=asked.results)}")
        if board.with_status("failed", "refused", "broken", "stopped"):
            raise typer.Exit(1)


def _work(asked: Asked, board: Board, costs: Costs, threads: int) -> None:
    """Do the runs in front of the user, each with so many threads. Raises `doing.Interrupted` after a signal."""
    from ssl_bench.cli.overview import LiveOverview, PlainOverview
    from ssl_bench.cli.terminal import terminal
    from ssl_bench.studies.doing import Conditions, do
    from ssl_bench.studies.forecast import forecast

    begun = time.monotonic()
    conditions = Conditions(
        results=asked.results,
        jobs=asked.jobs,
        threads=threads,
        costs=costs,
        end=None if asked.budget is None else begun + asked.budget,
    )
    console = terminal()
    predict = lambda board: forecast(board, costs, asked.jobs)  # noqa: E731 (given a name for two uses)
    title = f"sslbench bench {asked.study}"
    with PlainOverview(predict) if console is None else LiveOverview(console, title, predict) as overview:
        do(board, conditions, overview.show)


def _machine(asked: Asked) -> Machine:
    """What the runs are done on."""
    import platform

    import torch

    from ssl_bench.runs.device_name import device_name
    from ssl_bench.runs.machine import choose_device
    from ssl_bench.studies.costs import Machine
    from ssl_bench.system.limits import cores, memory_bytes

    device = choose_device(str(asked.wish.values.get("machine.device", "auto")))
    threads = max(1, torch.get_num_threads() // asked.jobs)
    memory = None
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**20
    elif (available := memory_bytes()) is not None:
        memory = available / 2**20
    return Machine(device_name(device), platform.platform(), cores(), threads, device.type == "cpu", memory)
