"""Long lines on a terminal: folded between words under their own beginning; in a file they stay whole."""

from __future__ import annotations

import shutil
import sys
import textwrap


def print_folded(lines: list[str], hang: int) -> None:
    """Print lines; on a terminal what is too long goes on in the next line, `hang` characters to the right."""
    width = shutil.get_terminal_size().columns
    terminal = sys.stdout is not None and sys.stdout.isatty() and width > 2 * hang
    print("\n".join(fold(line, width, hang) if terminal else line for line in lines))


def fold(line: str, width: int, hang: int) -> str:
    """`line` in lines of at most `width` characters, but for single words that are longer.

    >>> print(fold("  data  ten forms on clutter", 20, 8))
      data  ten forms on
            clutter
    """
    if len(line) <= width:
        return line
    return textwrap.fill(line, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False)
