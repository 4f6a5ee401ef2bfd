"""The files of tables under results/tables: written, or compared with what the records give now."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ssl_bench.errors import UserError
from ssl_bench.system.files import write_atomically
from ssl_bench.tables.render import to_csv, to_markdown
from ssl_bench.tables.table import Table

LONGEST_DIFFERENCE = 40
"""Lines of a difference that are shown."""
WIDEST_LINE = 240
"""Characters of such a line that are shown."""


def file_texts(table: Table, folder: Path) -> dict[Path, str]:
    """Path -> text of the files that hold a table: Markdown, then CSV."""
    name = table.description.id
    return {folder / f"{name}.md": to_markdown(table), folder / f"{name}.csv": to_csv(table)}


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write every table to its two files; returns them in the order of the tables. Raises `UserError`."""
    texts = {path: text for table in tables for path, text in file_texts(table, folder).items()}
    if not texts:
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}. Choose another with --results DIR"
        ) from None
    for path, text in texts.items():
        write_atomically(path, text.encode())
    return list(texts)


def drift(tables: Sequence[Table], folder: Path) -> dict[Path, list[str]]:
    """Path -> how the file differs from what the records give, as lines of a unified difference; nothing is written.

    A table without rows should have no files.
    """
    found = {}
    for table in tables:
        for path, expected in file_texts(table, folder).items():
            wanted = expected if table.blocks else None
            try:
                text = path.read_bytes().decode("utf-8", "replace") if path.exists() else None
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}") from None
            if text != wanted and not (text is None and not table.compares):
                found[path] = _difference(text, wanted)
    return found


def _difference(text: str | None, wanted: str | None) -> list[str]:
    if text is None:
        return ["it is missing"]
    if wanted is None:
        return ["no record counts for this table"]
    lines = list(
        difflib.unified_diff(
            text.splitlines(), wanted.splitlines(), "in the file", "from the records", n=0, lineterm=""
        )
    )
    if not lines:
        return ["line ends differ"]
    lines = [line if len(line) <= WIDEST_LINE else f"{line[:WIDEST_LINE]} ..." for line in lines]
    more = len(lines) - LONGEST_DIFFERENCE
    return lines if more <= 0 else [*lines[:LONGEST_DIFFERENCE], f"... {more} more lines"]
