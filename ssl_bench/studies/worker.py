"""One run of a study in a process of its own: the same run as `sslbench run`, which reports its progress to `bench`.

A process per run keeps its peak memory its own, gives the memory back at its end, and lets a crash or the system's
out-of-memory killer take one run only. A server process imports torch once and each run is forked from it, so that
a run begins within a second instead of ten. (Windows has no fork: there every run starts a new interpreter.)

A worker lives no longer than `bench`: it saves its run and ends when the other end of `lifeline` is closed, which the
operating system does however `bench` ends.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.runs.folder import RunInUse
from ssl_bench.system.signals import interrupting_signals

if TYPE_CHECKING:
    from ssl_bench.training.loop import StepReport

PRELOADED = ["ssl_bench.runs.runner", "ssl_bench.studies.worker", "torchvision", "timm"]
"""What the server process imports, for all runs at once."""
REPORT_SECONDS = 0.5
"""Least time between two reports of training steps."""


@dataclass(frozen=True)
class Task:
    """What a worker does."""

    request: Request
    results: Path
    run_id: str
    resume: bool
    command: str
    """The command that does the same run alone, for the record."""
    log: Path
    """Where everything that the run prints is kept."""
    evaluate: tuple[str, ...] = ()
    """Evaluators of a finished run that are caught up on; empty: the run itself."""
    threads: int | None = None
    """Of torch; None: as many as there are cores."""


@dataclass(frozen=True)
class Working:
    """What a worker does at this moment; `step` counts only while it trains."""

    doing: str
    step: int = 0
    total_steps: int = 0
    seconds_left: float | None = None
    """Of training."""


@dataclass(frozen=True)
class Ended:
    """How a worker's run ended."""

    how: Literal["finished", "collapsed", "failed", "stopped", "in use", "refused", "broken"]
    """The first three are in its record; "refused" is a `UserError`, "broken" any other error."""
    reason: str = ""
    seconds: float = 0.0
    """Of this process, from its beginning."""


def context() -> BaseContext:
    """How worker processes are started here."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    return server


def work(task: Task, events: Connection, lifeline: Connection) -> None:
    """Do the run of `task`; sends `Working` while it is under way and one `Ended` at the end."""
    begun = time.monotonic()
    with suppress(OSError):
        os.setsid()  # Ctrl-C in the terminal goes to `bench` alone, which asks every worker to stop
    threading.Thread(target=_stop_with, args=(lifeline,), daemon=True).start()
    with _everything_into(task.log), interrupting_signals():
        try:
            end = _run(task, events)
        except KeyboardInterrupt:
            end = Ended("stopped")
        except RunInUse as error:
            end = Ended("in use", str(error))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            end = Ended("refused", str(error))
        except Exception as error:
            traceback.print_exc()
            end = Ended("broken", f"{type(error).__name__}: {error}")
    with suppress(OSError):  # nobody listens any more
        events.send(dataclasses.replace(end, seconds=time.monotonic() - begun))


def _run(task: Task, events: Connection) -> Ended:
    import torch

    from ssl_bench.runs import runner
    from ssl_bench.runs.asking import plan_run
    from ssl_bench.training.loop import Stopped

    if task.threads is not None:
        torch.set_num_threads(task.threads)
    if task.evaluate:
        return _evaluate(task, events)
    resolved, start = plan_run(
        task.request, results=task.results, run_id=task.run_id, resume=task.resume, command=task.command
    )
    with Reporting(events) as display:
        try:
            record = runner.run(resolved, start, display)
        except Stopped as stop:
            return Ended("stopped", f"saved at step {stop.step:,} of {stop.total_steps:,}")
    return Ended(record.status, record.status_reason)


def _evaluate(task: Task, events: Connection) -> Ended:
    """Catch up on evaluators of a finished run, as `sslbench eval` does."""
    from ssl_bench.runs.folder import hold
    from ssl_bench.runs.reevaluate import reevaluate

    folder = task.results / "runs" / task.run_id
    with hold(folder), Reporting(events) as display:
        reevaluate(folder, list(task.evaluate), (), task.request.values, display.say)
    return Ended("finished")


class Reporting:
    """A run's display that prints as `sslbench run` does and reports to `bench` as well."""

    def __init__(self, events: Connection) -> None:
        from ssl_bench.runs.display import TerminalDisplay

        self._events = events
        self._printed = TerminalDisplay()
        self._last = 0.0

    def __enter__(self) -> Reporting:
        return self

    def __exit__(self, *_: object) -> None:
        self._printed.close()

    def line(self, label: str, text: str) -> None:
        """One labeled line of the preflight."""
        self._printed.line(label, text)

    def say(self, text: str) -> None:
        """What is being done at this moment."""
        self._printed.say(text)
        if not text.startswith("features of"):  # a part of what was said before
            self._send(Working(text))

    def step(self, report: StepReport) -> None:
        """A training step is done."""
        self._printed.step(report)
        if report.step == report.total_steps or time.monotonic() - self._last > REPORT_SECONDS:
            self._last = time.monotonic()
            epoch = f"epoch {report.epoch + 1}/{report.epochs}"
            self._send(Working(epoch, report.step, report.total_steps, report.seconds_left))

    def _send(self, event: Working) -> None:
        with suppress(OSError):
            self._events.send(event)


def _stop_with(lifeline: Connection) -> None:
    """Wait for the end of `bench`, then stop this process as a signal would: the run is saved."""
    with suppress(EOFError, OSError):
        lifeline.recv()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _everything_into(path: Path) -> Iterator[None]:
    """Inside, what this process and those that it starts print goes to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    for standard, name in ((1, "stdout"), (2, "stderr")):  # they last as long as the process
        stream = os.fdopen(standard, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        setattr(sys, name, stream)
    yield
    for printed in (sys.stdout, sys.stderr):
        with suppress(OSError):
            printed.flush()
