"""Guarding the import of third-party code, so that a broken plugin affects only itself.

Whatever it raises, `sys.exit` included, becomes a `BrokenPlugin`; what it prints goes to stderr; a time limit ends an
import that hangs. Where that is not enough, a separate process loads it (`own_process`).
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType

from ssl_bench.errors import UserError

IMPORT_SECONDS = 60.0
"""An import that takes longer hangs; torch alone takes a few seconds on a slow disk."""


class BrokenPlugin(UserError):
    """A plugin is registered but cannot be used; the message names its distribution and the reason."""


class _TooSlow(BaseException):
    """Not an `Exception`: an `except Exception` in third-party code must not swallow it."""


@contextmanager
def foreign_code(before: str, after: str = "", seconds: float | None = None) -> Iterator[None]:
    """Run third-party code inside. Raises `BrokenPlugin` with the message `before: what was raised. after`.

    Taking longer than `seconds` is an error as well, on systems with alarms and in the main thread. Ctrl-C still raises
    `KeyboardInterrupt`.
    """
    try:
        with redirect_stdout(sys.stderr), _time_limit(seconds):
            yield
    except _TooSlow as slow:
        raise BrokenPlugin(f"{before}: it hangs, {slow}. {after}".rstrip()) from None
    except BaseException as error:
        if type(error) is KeyboardInterrupt:
            raise
        raise BrokenPlugin(f"{before}: {type(error).__name__}: {error}. {after}".rstrip()) from error


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raises `_TooSlow`, with the line that is being executed, when the time is over."""
    if seconds is None or not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        place = f" at {frame.f_code.co_filename}, line {frame.f_lineno}" if frame else ""
        raise _TooSlow(f"it is not imported after {seconds:g} s{place}")

    previous = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
