"""Names and commands as a record can hold them: text, whatever bytes a path has."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssl_bench.errors import UserError
from ssl_bench.records.recipe import Recipe
from ssl_bench.system.paths import portable_text


def refuse_unwritable(recipe: Recipe, run_dir: Path) -> None:
    """Raises `UserError` for names that a record cannot hold, before anything is done."""
    for what, text in (("the run's name", run_dir.name), *_texts(recipe.model_dump())):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            shown = os.fsencode(text).decode("utf-8", "backslashreplace")
            raise UserError(
                f"{what}, {shown}, is not UTF-8 and cannot stand in a record. Rename it, or give a link with another "
                "name (ln -s)."
            ) from None


def _texts(value: Any, name: str = "the recipe") -> Iterator[tuple[str, str]]:
    """Every text in a recipe with its place."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, name)


def command_line(arguments: Sequence[str] | None = None) -> str:
    """What the user typed, for the record: without --results, which is where the record lies; paths as
    `portable_path`; bytes that are not UTF-8 as `\\xe9`."""
    given = sys.argv[1:] if arguments is None else arguments
    words = [
        word
        for before, word in zip(("", *given), given, strict=False)
        if "--results" not in (before, word) and not word.startswith("--results=")
    ]
    return os.fsencode(shlex.join(["sslbench", *map(portable_text, words)])).decode("utf-8", "backslashreplace")
