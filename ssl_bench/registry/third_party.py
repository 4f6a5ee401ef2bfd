"""Code of other people: whatever it does while it is imported spoils nothing but itself.

In this process what it raises, `sys.exit` included, becomes a `BrokenPlugin`, what it prints goes to stderr, and a time
limit ends what hangs. Where that is not enough, a process of its own tries it (`own_process`).
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
    """Not an `Exception`: an outsider's `except Exception` must not swallow it."""


@contextmanager
def foreign_code(before: str, after: str = "", seconds: float | None = None) -> Iterator[None]:
    """Run an outsider's code inside. Raises `BrokenPlugin`, its message `before: what was raised. after`.

    Longer than `seconds` counts as an error as well, where the system has alarms and this is the main thread. Ctrl-C
    stays Ctrl-C.
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
    """Raises `_TooSlow` with the place where the code is when the time is over."""
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
