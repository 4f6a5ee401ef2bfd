"""Output that cannot break a run: a closed pipe, a terminal that is gone, a full disk behind `> log`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class SurvivingStream:
    """A text stream that passes on what it is given, and drops everything from the first write that fails on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        """As `TextIO.write`."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """As `TextIO.flush`."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: Any) -> None:
        if self._broken:
            return
        try:
            act()
        except OSError:
            self._broken = True
            with suppress(OSError, ValueError):  # what is still in its buffer must not fail at exit either
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def surviving_output() -> Iterator[None]:
    """Inside, nothing that is printed can raise; names with bytes that are not UTF-8 are printed with escapes."""
    before = sys.stdout, sys.stderr
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if stream is None:  # closed by the caller (>&-)
            stream = open(os.devnull, "w")  # noqa: SIM115 (as long-lived as the process)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, SurvivingStream(stream))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
