"""What a run shows: a live bar on a terminal, plain lines every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:
    from ssl_bench.training.loop import StepReport

PLAIN_SECONDS = 15.0
"""Time between two lines where the output is not a terminal."""
SPREADS = ("spread", "target_spread", "key_spread", "feature_spread")
SHOWN_LOGS = ("loss", "teacher_entropy", "kl", "prototypes_used", *SPREADS)


class TerminalDisplay:
    """Implements `session.Display` for people."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = self._console.is_terminal
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last_plain = 0.0

    def __enter__(self) -> TerminalDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def title(self, text: str) -> None:
        """First line of a run."""
        self._print(text)

    def line(self, label: str, text: str) -> None:
        """One labeled line of the preflight."""
        self._print(f"  {label:9} {text}")

    def say(self, text: str) -> None:
        """What is being done at this moment."""
        self.close()
        self._print(f"  ...       {text}")

    def step(self, report: StepReport) -> None:
        """A training step is done."""
        if report.warning:
            self.line("warning", report.warning)
        done = report.step == report.total_steps
        epoch = f"{report.epoch + 1}/{report.epochs}"
        if self._live:
            if self._progress is None:
                columns = TextColumn("epoch {task.fields[epoch]}"), BarColumn(24), TextColumn("{task.fields[words]}")
                self._progress = Progress(*columns, console=self._console)
                self._task = self._progress.add_task("", total=report.total_steps, epoch="", words="")
                self._progress.start()
            assert self._task is not None
            self._progress.update(self._task, completed=report.step, epoch=epoch, words=_words(report))
            if done:
                self.close()
        elif done or time.monotonic() - self._last_plain > PLAIN_SECONDS:
            self._last_plain = time.monotonic()
            self._print(f"  epoch {epoch}  step {report.step:,}/{report.total_steps:,}  {_words(report)}")

    def _print(self, text: str) -> None:
        if self._live:
            self._console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, flush=True, file=sys.stdout)


def _words(report: StepReport) -> str:
    logs = "  ".join(f"{name.replace('_', ' ')} {report.logs[name]:.3f}" for name in SHOWN_LOGS if name in report.logs)
    left = int(report.seconds_left)
    clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
    return f"{logs}  {report.images_per_second:.0f} images/s  {clock} left"
