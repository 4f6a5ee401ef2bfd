"""The checksum line of a recipe file: one changed by accident must not run as if it were the recorded recipe.

Whoever edits a recipe on purpose deletes the line; a file without it is taken as it stands.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ssl_bench.errors import UserError

_LINE = re.compile(r"# sha256 ([0-9a-f]{64}) of the lines below; delete this line in a recipe that you edit\n")


def sealed_recipe(text: str) -> str:
    """`text` below the line that holds its SHA-256."""
    return f"# sha256 {_digest(text)} of the lines below; delete this line in a recipe that you edit\n{text}"


def check_recipe(text: str, path: Path) -> None:
    """Raises `UserError` for a recipe that has a checksum line and not the content it is of."""
    line = _LINE.match(text)
    if line is None and text.startswith("# sha256 "):
        raise UserError(f"the checksum line of the recipe {path} is damaged. {_ADVICE}")
    if line is not None and _digest(text[line.end() :]) != line[1]:
        raise UserError(
            f"the recipe {path} was changed after it was written: its content does not match its checksum. {_ADVICE}"
        )


_ADVICE = "If you edited it on purpose, delete its first line (# sha256 ...); else restore it."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
