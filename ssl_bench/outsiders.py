"""Code of other people: whatever it does while it is imported spoils nothing but itself.

In this process what it raises, `sys.exit` included, becomes a `BrokenPlugin`, what it prints goes to stderr, and a time
limit ends what hangs. Where that is not enough, a process of its own tries it: `why_broken`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import TYPE_CHECKING

from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.registry import Plugin

IMPORT_SECONDS = 60.0
"""An import that takes longer hangs; torch alone takes a few seconds on a slow disk."""
GRACE_SECONDS = 30.0
"""What hangs where no signal reaches it is ended from outside so much later; starting Python and torch is included."""


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


def why_broken(plugin: Plugin, seconds: float = IMPORT_SECONDS) -> str:
    """Load a plugin in a process of its own; returns why it cannot be used, or "" when it can."""
    words = [plugin.kind, plugin.name, plugin.target, plugin.distribution, plugin.version, str(seconds)]
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import _try; _try()", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # "" would be the working directory
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(timeout=seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # with what it started
        child.wait()
        return f"{plugin.target} of {plugin.origin} hangs: it is not imported after {seconds:g} s"
    if child.returncode == 0 and said.endswith(LOADS):
        return ""
    return said.strip() or f"{plugin.target} of {plugin.origin} ends the process that imports it ({child.returncode})"


LOADS = "it loads\n"


def _try() -> None:
    """What the process of `why_broken` does."""
    from ssl_bench.registry import Plugin

    kind, name, target, distribution, version, seconds = sys.argv[1:]
    said = LOADS
    try:
        Plugin(kind, name, target, distribution, version).load(float(seconds))  # type: ignore[arg-type]
    except UserError as error:
        said = str(error)
    os.write(1, said.encode())  # whatever the import made of sys.stdout
    os._exit(0)  # threads that the import started must not keep the process


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
