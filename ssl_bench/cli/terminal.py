"""Whether a person watches, and the console to draw on if so."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def terminal() -> Console | None:
    """A console as wide as the terminal; None where stdout is a file or a pipe, which get plain text."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console(file=sys.stdout, width=shutil.get_terminal_size().columns, highlight=False)
