"""Files beside a record whose SHA-256 it holds: whether they are the ones that were written with it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ssl_bench.records.record import RunRecord


def changed_files(record: RunRecord, folder: Path) -> list[str]:
    """A line for each file in the run's folder that is not the one that the record names.

    A missing file is no change: records are kept and read without what lies beside them.
    """
    parts = (record.curves, record.step_curves, *(one.outcomes for one in record.evaluations))
    lines = []
    for part in parts:
        path = folder / part.file if part else None
        if part is None or path is None or not path.is_file():
            continue
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            lines.append(f"cannot read {path}: {error.strerror}")
            continue
        if found != part.sha256:
            lines.append(f"{path} was changed: it is not the file that the record beside it names. Restore it.")
    return lines
