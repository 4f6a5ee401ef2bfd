"""A folder that is there with all that belongs in it, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_bench.errors import UserError
from ssl_bench.runs.folder import hold
from ssl_bench.runs.restart import LOCK


@contextmanager
def whole_or_not_at_all(folder: Path) -> Iterator[Path]:
    """A hidden folder to evaluate in, which becomes `folder` at the end: an evaluation that is stopped or killed leaves
    no run that lacks its record. What a killed one left hidden is replaced. Raises `UserError` where `folder` holds
    anything else, or another process does the same evaluation."""
    if folder.exists() and not {entry.name for entry in folder.iterdir()} <= {LOCK, "evaluations"}:
        raise UserError(f"{folder} holds files and no record.json: move them elsewhere")
    part = folder.with_name(f".{folder.name}.part")
    with hold(part):
        clear(part)
        try:
            yield part
        except BaseException:
            clear(part)
            raise
        if folder.exists():  # what an evaluation that was killed left in earlier versions
            shutil.rmtree(folder)
    part.rename(folder)


def clear(part: Path) -> None:
    """Remove everything in the folder but its lock."""
    for entry in part.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
