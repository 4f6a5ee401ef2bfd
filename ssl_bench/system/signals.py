"""What the signals that ask a run to end do: Ctrl-C, `kill`, a closed terminal, a scheduler's warning (Slurm's USR1).

Training answers the first one at its next step, with everything saved. Everywhere else, and at the second one, they
raise `KeyboardInterrupt` at once; a save that this interrupts leaves the checkpoint before it. Worker processes get
the same signals when they are sent to the process group, and must not die of them before the main process has saved.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)  # Windows has the first two


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Inside, the first signal turns the yielded question true; the second one raises `KeyboardInterrupt`."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    with _handled_by(handle):
        yield lambda: asked


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """Inside, every one of the signals raises `KeyboardInterrupt`, as Ctrl-C does."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(handle):
        yield


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Signals wait until the end; processes started inside never get them (where processes are forked)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """For worker processes that are not forked: the main process stops the run and ends them."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    owner = os.getpid()

    def in_this_process(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:  # a forked worker inherits the handler
            handle(number, frame)

    previous = {}
    try:
        for number in ENDING:
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started by nohup
            previous[number] = signal.signal(number, in_this_process)
    except ValueError:  # not in the main thread: signals go elsewhere
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
