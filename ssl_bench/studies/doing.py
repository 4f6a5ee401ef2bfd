"""Doing the runs of a study: each in a process of its own, some side by side, beside other `bench` on the same folder.

What is done is decided by what lies on the disk, not by what this process remembers: a run that another process
holds (`.lock` in its folder) is left to it, one with a record is done, one that was stopped is resumed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ssl_bench.recipes.request import Request
from ssl_bench.runs.machine import choose_workers
from ssl_bench.studies.board import Board, Entry
from ssl_bench.studies.cells import command_of
from ssl_bench.studies.costs import Costs
from ssl_bench.studies.forecast import seconds_left
from ssl_bench.studies.worker import Ended, Task, Working, context, work
from ssl_bench.system.signals import stop_requests

TICK_SECONDS = 0.5
"""Time between two looks at what happens."""
ELSEWHERE_SECONDS = 2.0
"""Time between two looks at runs of other processes."""
KILLED = "its process was killed (exit status {status}): often by the system because memory ran out; see {log}"


@dataclass(frozen=True)
class Conditions:
    """How the runs of a study are done."""

    results: Path
    jobs: int
    threads: int | None
    """Of each run; None: as torch chooses."""
    costs: Costs
    """What is known of the time of runs; it learns from each one that ends."""
    end: float | None = None
    """Monotonic time at which running runs are saved and stopped; None: never."""

    def log(self, entry: Entry) -> Path:
        """Where what a run prints is kept."""
        return self.results / "logs" / f"{entry.place.folder.name}.log"


@dataclass
class _Worker:
    entry: Entry
    process: BaseProcess
    end: Ended | None = None
    signals: int = 0


class Interrupted(Exception):
    """A signal asked the study to end; what was running is saved."""


def do(board: Board, conditions: Conditions, show: Callable[[Board], None]) -> None:
    """Do every waiting run of the board; `show` is called whenever something may have changed.

    Raises `Interrupted` after a signal, once all running runs are saved; a second signal ends them without saving.
    """
    _Study(board, conditions, show).do()


@dataclass
class _Study:
    board: Board
    conditions: Conditions
    show: Callable[[Board], None]
    workers: dict[Connection, _Worker] = field(default_factory=dict)
    looked_elsewhere: float = 0.0

    def do(self) -> None:
        processes = context()
        lifeline, held = processes.Pipe(duplex=False)  # workers hear of the end of this process by its end
        stopped = False
        try:
            with stop_requests() as asked:
                while True:
                    stopped = stopped or asked()
                    self.board.stopping = stopped or self._out_of_time()
                    if self.board.stopping:
                        self._stop_workers(1)
                    else:
                        self._look_elsewhere()
                        while len(self.workers) < self.conditions.jobs and (entry := self._next()):
                            self._start(entry, lifeline)
                    self.show(self.board)
                    if not self.workers and (self.board.stopping or not self.board.with_status("waiting", "elsewhere")):
                        break
                    self._listen()
        except KeyboardInterrupt:
            stopped = True
            self._stop_workers(2)
            while self.workers:
                self._listen()
        finally:
            held.close()
            lifeline.close()
            for worker in self.workers.values():
                worker.process.join()
        self.show(self.board)
        if stopped:
            raise Interrupted

    def _out_of_time(self) -> bool:
        return self.conditions.end is not None and time.monotonic() > self.conditions.end

    def _next(self) -> Entry | None:
        """The next run that can begin: not done meanwhile by another process, and with time for it."""
        for entry in self.board.with_status("waiting"):
            entry.update_from_disk()
            if entry.status == "waiting":
                cost = self.conditions.costs.of(entry.run.recipe)
                entry.expected_seconds = seconds_left(entry, cost) if cost else 0.0
                if self.conditions.end is None or time.monotonic() + entry.expected_seconds < self.conditions.end:
                    return entry
                entry.status = "over budget"
        return None

    def _look_elsewhere(self) -> None:
        if time.monotonic() - self.looked_elsewhere < ELSEWHERE_SECONDS:
            return
        self.looked_elsewhere = time.monotonic()
        for entry in self.board.with_status("elsewhere"):
            entry.update_from_disk()

    def _start(self, entry: Entry, lifeline: Connection) -> None:
        processes = context()
        events, reports = processes.Pipe(duplex=False)
        resume = entry.place.begun
        entry.whole = not resume and not entry.place.missing
        request = entry.run.request
        if entry.place.missing:
            request = _evaluating(entry, request)
        if self.conditions.jobs > 1:  # these change the speed and not the run
            workers = choose_workers(None, entry.run.recipe.data.image_px, self.conditions.jobs)
            request = replace(request, values={"machine.workers": workers, **request.values})
        command = command_of(entry.run.request)
        task = Task(
            request=request,
            results=self.conditions.results,
            run_id=entry.place.folder.name,
            resume=resume,
            evaluate=entry.place.missing,
            command=command,
            log=self.conditions.log(entry),
            threads=self.conditions.threads,
        )
        process = processes.Process(target=work, args=(task, reports, lifeline), name=entry.name)  # type: ignore[attr-defined]
        process.start()
        reports.close()  # only the worker holds it now, so that its end is heard
        entry.status, entry.began = "running", time.monotonic()
        entry.working = Working("evaluating" if entry.place.missing else "resuming" if resume else "starting")
        self.workers[events] = _Worker(entry, process)

    def _listen(self) -> None:
        """Wait for reports, at most a moment."""
        if not self.workers:
            time.sleep(TICK_SECONDS)
        for events in wait(list(self.workers), TICK_SECONDS):
            assert isinstance(events, Connection)
            worker = self.workers[events]
            try:
                report = events.recv()
            except (EOFError, OSError):
                self._gone(events)
                continue
            if isinstance(report, Working):
                worker.entry.working = report
            elif isinstance(report, Ended):
                worker.end = report
        for events, worker in list(self.workers.items()):
            if worker.end is None and not _alive(worker.process) and not events.poll():
                self._gone(events)

    def _gone(self, events: Connection) -> None:
        """A worker has ended: what it said last, or what its record says, decides."""
        worker = self.workers.pop(events)
        events.close()
        worker.process.join()
        entry, end = worker.entry, worker.end
        entry.working, entry.seconds = None, time.monotonic() - entry.began
        if entry.place.missing and end is not None and end.how == "finished":
            entry.place = replace(entry.place, missing=())
        if entry.place.done:
            entry.update_from_disk()
            self._learn(entry)
        elif end is None and self.board.stopping and worker.process.exitcode == -signal.SIGTERM:
            entry.status = "stopped"  # before it could say so
        elif end is None:
            entry.status = "broken"
            entry.reason = KILLED.format(status=worker.process.exitcode, log=self.conditions.log(entry))
        elif end.how == "in use":
            entry.status = "elsewhere"
        elif end.how in ("stopped", "refused", "broken"):
            entry.status, entry.reason = end.how, end.reason
        else:
            entry.status = "broken"
            entry.reason = f"its record {entry.place.folder / 'record.json'} is gone"

    def _learn(self, entry: Entry) -> None:
        """Runs of this kind are predicted from this one now, and the others better."""
        costs = self.conditions.costs
        predicted = costs.of(entry.run.recipe)
        if entry.record is None or entry.status == "failed" or not entry.whole:
            return
        if predicted is not None and predicted.basis != "measured":
            costs.compare(predicted, entry.seconds)
        costs.learn(entry.record)

    def _stop_workers(self, signals: int) -> None:
        """Make sure that every worker has been asked `signals` times to end: once it saves, twice it just ends."""
        for worker in self.workers.values():
            while worker.signals < signals:
                worker.signals += 1
                with suppress(OSError):
                    os.kill(worker.process.pid or 0, signal.SIGTERM)


def _evaluating(entry: Entry, request: Request) -> Request:
    """The request with the settings that `sslbench eval` takes, every one of the missing evaluators'."""
    values = {key: value for key, value in request.values.items() if key.startswith("machine.")}
    for part in entry.run.recipe.evaluators:
        if part.name in entry.place.missing:
            values |= {f"evaluators.{part.name}.{key}": value for key, value in part.settings.items()}
    return replace(request, values=values)


def _alive(process: BaseProcess) -> bool:
    """Whether a process is still there; the exit status alone does not tell once its parent, a server, was killed."""
    if process.exitcode is None:
        return True
    try:
        os.kill(process.pid or 0, 0)
    except OSError:
        return False
    return True
