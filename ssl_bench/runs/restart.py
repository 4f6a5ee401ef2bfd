"""`--restart`: the earlier run is moved aside and deleted only once the new one has begun; else it comes back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_bench.errors import UserError
from ssl_bench.runs.state import RUN_FILE

LOCK = ".lock"


def is_run_folder(folder: Path) -> bool:
    """Whether a run left the folder: its state or its record lies there."""
    return any((folder / name).exists() for name in (RUN_FILE, "record.json"))


def can_be_replaced(folder: Path) -> bool:
    """Whether a run may begin in the folder: a run left it, or nothing lies in it."""
    return is_run_folder(folder) or not _entries(folder)


class NothingReplaced(KeyboardInterrupt):
    """Stopped before the new run began: the earlier one is back in its place."""


@contextmanager
def replacing(folder: Path, *, keep_interrupted: bool) -> Iterator[None]:
    """Start a run in a locked folder: what lies in it is moved to a hidden folder beside it, deleted when the block
    ends well, and moved back when it fails, with what the block wrote removed.

    A run that was interrupted in the block keeps its files where nothing lay there before, or with
    `keep_interrupted` (what was there was never begun either). Raises `UserError` for a folder that is not a run's.
    """
    if not can_be_replaced(folder):
        raise UserError(f"{folder} is not a run's folder, and nothing in it is touched: give another --run-id")
    earlier = _entries(folder)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.replaced-", dir=folder.parent))
    try:
        for entry in earlier:
            entry.rename(aside / entry.name)
        yield
    except KeyboardInterrupt:
        if keep_interrupted or not earlier:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _bring_back(folder, aside)
        raise NothingReplaced from None
    except BaseException:
        _bring_back(folder, aside)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _bring_back(folder: Path, aside: Path) -> None:
    for entry in _entries(folder):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for entry in _entries(aside):
        entry.rename(folder / entry.name)
    aside.rmdir()


def _entries(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.name != LOCK]
