"""What `bench` shows while runs are under way: one picture that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ssl_bench.records.record import RunRecord
from ssl_bench.studies.board import TROUBLE, Board, Entry, Status
from ssl_bench.studies.cells import Cells
from ssl_bench.studies.costs import Costs
from ssl_bench.studies.forecast import Forecast, duration, seconds_left

PLAIN_SECONDS = 60.0
"""Time between two lines on runs that go on, where the output is not a terminal."""
DRAW_SECONDS = 0.5
SHOWN_WAITING = 3
ENDED_WELL: tuple[Status, ...] = ("finished", "collapsed")
WORDS: dict[Status, str] = {
    "finished": "done", "collapsed": "collapsed", "failed": "failed", "broken": "broke off", "refused": "not begun",
    "running": "running", "elsewhere": "in another process", "stopped": "stopped and saved", "waiting": "to do",
    "over budget": "over budget",
}  # fmt: skip

Predict = Callable[[Board], Forecast]


class _Changes:
    """What changed on a board since it was last asked, one line per run."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._shown: dict[int, Status] = {}

    def lines(self, board: Board) -> Iterator[str]:
        """A line for each run that began, ended or was left to another process."""
        for entry in board.entries:
            before = self._shown.setdefault(id(entry), entry.status if entry.done_before else "waiting")
            if entry.status != before:
                self._shown[id(entry)] = entry.status
                left = f"; {left_words(self._predict(board))}" if entry.status in ENDED_WELL else ""
                yield f"[{len(board.ended)}/{len(board.entries)}] {_sentence(entry)}{left}"


class PlainOverview:
    """A line whenever a run begins or ends, and one a minute on the runs that are under way."""

    def __init__(self, predict: Predict) -> None:
        self._changes = _Changes(predict)
        self._last = time.monotonic()

    def __enter__(self) -> PlainOverview:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def show(self, board: Board) -> None:
        """Print what changed since the last call."""
        for line in self._changes.lines(board):
            print(line, flush=True)
        if time.monotonic() - self._last > PLAIN_SECONDS:
            self._last = time.monotonic()
            for entry in board.with_status("running"):
                print(f"  {entry.name}: {_doing(entry)}", flush=True)


class LiveOverview:
    """Lines as they come, and below them one picture of what is under way and what is left."""

    def __init__(self, console: Console, title: str, predict: Predict) -> None:
        self._title, self._predict = title, predict
        self._changes = _Changes(predict)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn = 0.0

    def __enter__(self) -> LiveOverview:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, board: Board) -> None:
        """Print what ended, and redraw the picture, at most twice a second."""
        for line in self._changes.lines(board):
            if " starting" not in line:  # the picture shows it
                self._live.console.print(line, markup=False, soft_wrap=True)
        if time.monotonic() - self._drawn >= DRAW_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(picture(board, self._title, self._predict(board)), refresh=True)


def picture(board: Board, title: str, forecast: Forecast) -> Group:
    """What is under way and what waits, with how long it takes."""
    left = "saving what is running" if board.stopping else left_words(forecast)
    lines = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for entry in board.with_status("running"):
        lines.add_row(Text("running", style="yellow"), Text(entry.name), Text(_doing(entry)))
    for entry in board.with_status("elsewhere"):
        lines.add_row(Text("elsewhere", style="yellow"), Text(entry.name), Text("another process is doing it"))
    waiting = board.with_status("waiting")
    for entry in waiting[:SHOWN_WAITING]:
        lines.add_row(Text("to do", style="dim"), Text(entry.name, style="dim"), "")
    if len(waiting) > SHOWN_WAITING:
        lines.add_row("", Text(f"and {len(waiting) - SHOWN_WAITING} more", style="dim"), "")
    return Group(Text(f"{title}: {counts(board)}; {left}", style="bold"), lines)


def plan_lines(study: str, size: str, board: Board, left: Forecast, memory_mb: float | None = None) -> list[str]:
    """What is about to be done: how many runs, how long, how much memory of the `memory_mb` that there are."""
    rows = {place for entry in board.entries for place in entry.run.places}
    tables = sorted({place.table for place in rows})
    seeds = len({entry.run.recipe.training.seed for entry in board.entries})
    first = board.entries[0].run.recipe.data
    data = f"{first.name}, {first.train_images:,} training images of {first.image_px} px"
    lines = [
        f"sslbench bench {study}: {counts(board)}",
        f"  rows      {len(rows)} in {', '.join(tables)}, size {size}, {seeds} seed{'s' * (seeds > 1)}",
        f"  data      {data}",
    ]
    if board.with_status("waiting", "running"):
        lines.append(f"  time      {left_words(left)}")
        if left.memory_mb:
            lines.append(
                f"  memory    up to {left.memory_mb / 1024:.1f} GiB at a time{_beyond(left.memory_mb, memory_mb)}"
            )
        else:
            lines.append(
                "  memory    not known yet; of a training step: sslbench plan METHOD --arch ARCH --device NAME"
            )
    if lacking := [entry for entry in board.with_status("waiting") if entry.place.missing]:
        lines.append(f"  evaluated {len(lacking)} finished runs lack an evaluator: they are not trained again")
    if stopped := [entry for entry in board.with_status("waiting") if entry.place.begun]:
        lines.append(f"  resumed   {len(stopped)} that were stopped before")
    return lines


def _beyond(memory_mb: float, there: float | None) -> str:
    """A warning where the machine has less memory than that."""
    if there is None or memory_mb < there:
        return ""
    return f"; there are {there / 1024:.1f} GiB: give fewer --jobs, or a smaller --set training.batch_size=N"


def data_lines(cells: Cells) -> list[str]:
    """How the user's data are read, and which rows they do not allow."""
    lines = [f"  data      {note}" for note in cells.notes]
    lines += [f"  left out  {place.row}: {reason}" for place, reason in cells.left_out.items()]
    return lines


def run_lines(board: Board, costs: Costs) -> list[str]:
    """Every run that is still to be done, in order, with what it will take."""
    lines = []
    for entry in board.with_status("waiting", "elsewhere"):
        cost = costs.of(entry.run.recipe)
        words = "time unknown" if cost is None else f"about {duration(seconds_left(entry, cost))} ({cost.basis})"
        lines.append(f"  {entry.name:40} {words:28} {entry.place.folder.name}")
    return lines


def problem_lines(board: Board) -> list[str]:
    """What did not end with numbers, and why."""
    troubled = board.with_status(*TROUBLE, "stopped", "over budget")
    lines = [""] if troubled else []
    for entry in board.with_status(*TROUBLE, "stopped"):
        lines.append(f"{WORDS[entry.status]}: {entry.name}{': ' * bool(entry.reason)}{entry.reason}")
    for entry in board.ended:
        if not entry.place.recorded:
            lines.append(f"gone: {entry.name}: its record {entry.place.folder / 'record.json'} was removed meanwhile")
    if over := board.with_status("over budget"):
        lines.append(f"the budget left no time for {len(over)} runs, from {over[0].name} on")
    return lines


def counts(board: Board) -> str:
    """E.g. "24 runs, 5 done, 1 running, 18 waiting"."""
    words = [f"{len(found)} {word}" for status, word in WORDS.items() if (found := board.with_status(status))]
    total = len(board.entries)
    return f"{total} run{'s' * (total > 1)}, {', '.join(words)}"


def left_words(forecast: Forecast) -> str:
    """E.g. "about 1 h 20 left (3 runs guessed)"."""
    words = f"about {duration(forecast.seconds)} left" if forecast.seconds else ""
    if forecast.unknown:
        words += f"{' and ' if words else ''}{forecast.unknown} runs of which nothing is known yet"
    if forecast.guessed and forecast.seconds:
        words += f" ({forecast.guessed} of them guessed)"
    return words or "nothing left"


def headline(record: RunRecord) -> str:
    """The main numbers of the trained network, e.g. "knn 53.4, linear-probe 56.7"."""
    found: dict[str, str] = {}
    for evaluation in record.evaluations:
        for one in evaluation.measurements:
            if one.primary and (evaluation.subject == "trained" or not record.steps):
                found.setdefault(evaluation.evaluator, f"{evaluation.evaluator} {one.value:.1f}")
    return ", ".join(found.values())


def _sentence(entry: Entry) -> str:
    expected = f" (about {duration(entry.expected_seconds)})" if entry.expected_seconds else ""
    match entry.status:
        case "running":
            return f"{entry.name}: {entry.working.doing if entry.working else 'begun'}{expected}"
        case "finished" | "collapsed":
            took = f" in {duration(entry.seconds)}" if entry.seconds else " by another process"
            return f"{entry.name}: {WORDS[entry.status]}{took}: {_outcome(entry)}"
        case "waiting":
            return f"{entry.name}: waits again"
        case "elsewhere":
            return f"{entry.name}: another process is doing it"
        case "over budget":
            return f"{entry.name}: does not fit into the time that is left"
        case _:
            return f"{entry.name}: {WORDS[entry.status]}{': ' * bool(entry.reason)}{entry.reason}"


def _outcome(entry: Entry) -> str:
    if entry.status in ("failed", "collapsed", "refused", "broken") and entry.reason:
        return entry.reason
    return headline(entry.record) if entry.record else ""


def _doing(entry: Entry) -> str:
    working = entry.working
    if working is None:
        return ""
    done = f", step {working.step:,} of {working.total_steps:,}" if working.total_steps else ""
    spent = time.monotonic() - entry.began
    left = max(entry.expected_seconds - spent, working.seconds_left or 0.0)
    return f"{working.doing}{done}{f', about {duration(left)} left' if left > 1 else ''}"
