"""Reading figure descriptions and the tables whose rows they draw; a mistake in them becomes a message."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from ssl_bench.errors import UserError, did_you_mean, unknown_name
from ssl_bench.figures.description import FigureDescription, curve_source
from ssl_bench.tables.loading import BUILT_IN, TableSource, built_in_tables, load_table, require_own_id

CURVES = "curves"
"""`sslbench figure curves RUN...` has no description."""


class FigureSource(NamedTuple):
    """A description with its table, read."""

    description: FigureDescription
    table: TableSource


def built_in_figures() -> dict[str, str]:
    """Name -> title of every figure that comes with sslbench."""
    found = {}
    for entry in files(f"{BUILT_IN}.figures").iterdir():
        if entry.name.endswith(".toml"):
            found[entry.name.removesuffix(".toml")] = str(tomllib.loads(entry.read_text("utf-8")).get("title", ""))
    return dict(sorted(found.items()))


def load_figure(name_or_path: str) -> FigureSource:
    """Read a description by built-in name or by path, and its table. Raises `UserError`."""
    path = Path(os.path.expanduser(name_or_path))
    if path.suffix == ".toml" or path.is_file():
        try:
            source = _load(path.read_text("utf-8"), str(path), path.parent)
        except OSError as error:
            raise UserError(f"cannot read the figure description {path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"the figure description {path} is not UTF-8 text: {error}") from None
        require_own_id(source.description.id, "figures", path)
        return source
    known = built_in_figures()
    if name_or_path not in known:
        advice = "sslbench figure --list; or give the path of a .toml file"
        raise unknown_name("figure", name_or_path, [*known, CURVES], advice)
    resource = files(f"{BUILT_IN}.figures") / f"{name_or_path}.toml"
    return _load(resource.read_text("utf-8"), f"{name_or_path}.toml", None)


def _load(text: str, where: str, folder: Path | None) -> FigureSource:
    try:
        description = FigureDescription.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the figure description {where} is not TOML: {error}") from None
    except ValidationError as error:
        raise UserError(_problem(error, where)) from None
    beside = folder / description.table if folder else None
    table = load_table(str(beside) if beside is not None and beside.is_file() else _known_table(description, where))
    source = FigureSource(description, table)
    _check(source, where)
    return source


def _known_table(description: FigureDescription, where: str) -> str:
    known = built_in_tables()
    if description.table not in known:
        raise UserError(
            f"{where}: table = {description.table!r} is neither a file beside it nor one of sslbench's tables."
            f"{did_you_mean(description.table, known)} Known: {', '.join(known)}"
        )
    return description.table


def _check(source: FigureSource, where: str) -> None:
    figure, table = source.description, source.table.description
    columns, rows = [column.id for column in table.column], [key.id for key in table.row]
    _require(figure.series, rows, f"{where}: series", f"row of the table {table.id}")
    try:
        re.compile(figure.series_pattern)
    except re.error as error:
        raise UserError(
            f"{where}: series_pattern = {figure.series_pattern!r} is no regular expression: {error}"
        ) from None
    if figure.kind == "points":
        if figure.x is None:
            raise UserError(f"{where}: points need x = {{ column = ..., title = ... }}")
        _require([figure.x.column], columns, f"{where}: x.column", f"column of the table {table.id}")
    if figure.kind == "bars" and not figure.series:
        raise UserError(f"{where}: bars need series, the row ids that name the bars. Known: {', '.join(rows)}")
    printed = [column.column for part in table.published for column in part.columns]
    for name in (*(panel.published for panel in figure.panel), figure.x.published if figure.x else ""):
        if name:
            _require([name], printed, f"{where}: published", f"published column of the table {table.id}")
    for panel in figure.panel:
        if figure.kind != "lines":
            _require([panel.y], columns, f"{where}: panel.y", f"column of the table {table.id}")
        elif curve_source(panel.y) is None:
            raise UserError(
                f"{where}: panel.y = {panel.y!r} must read step:NAME for a value of steps.csv, e.g. step:loss, or "
                "epoch:EVALUATOR.METRIC for one of curves.json, e.g. epoch:knn.primary"
            )
        for reference in panel.reference:
            if (reference.value is None) == (not reference.log_of):
                raise UserError(f"{where}: the reference {reference.title!r} needs either value or log_of")


def _require(given: tuple[str, ...] | list[str], known: list[str], place: str, what: str) -> None:
    for name in given:
        if name not in known:
            raise UserError(
                f"{place} names {name!r}, which is no {what}.{did_you_mean(name, known)} Known: {', '.join(known)}"
            )


def _problem(error: ValidationError, where: str) -> str:
    texts = []
    for problem in error.errors():
        place = ".".join(str(part + 1) if isinstance(part, int) else part for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            texts.append(f"{where}: {place!r} is not a key of a figure description (docs/curves.md)")
        elif problem["type"] == "missing":
            texts.append(f"{where}: {place!r} is missing")
        else:
            texts.append(f"{where}: {place!r} = {problem['input']!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}")
    return "; ".join(texts)
