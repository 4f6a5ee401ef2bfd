"""Reading table descriptions and the published files that they name; a mistake in them becomes a message."""

from __future__ import annotations

import csv
import io
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ssl_bench.errors import UserError, did_you_mean, unknown_name
from ssl_bench.records.record import RunRecord
from ssl_bench.tables.description import (
    Column,
    IncludedKeys,
    Key,
    Published,
    PublishedColumn,
    TableDescription,
    parse_source,
)
from ssl_bench.tables.paths import braced_paths
from ssl_bench.tables.table import DATA

BUILT_IN = "ssl_bench_benchmarks"

Content = TypeVar("Content", bound=BaseModel)


class TableSource(NamedTuple):
    """A description with the published rows that it names, read."""

    description: TableDescription
    published: tuple[tuple[dict[str, str], ...], ...]
    """One tuple of CSV rows per entry of `description.published`."""


def built_in_tables() -> dict[str, str]:
    """Name -> title of every table that comes with sslbench."""
    found = {}
    for entry in files(f"{BUILT_IN}.tables").iterdir():
        if entry.name.endswith(".toml"):
            found[entry.name.removesuffix(".toml")] = str(tomllib.loads(entry.read_text("utf-8")).get("title", ""))
    return dict(sorted(found.items()))


def load_table(name_or_path: str) -> TableSource:
    """Read a description by built-in name or by path, and its published files. Raises `UserError`."""
    path = Path(os.path.expanduser(name_or_path))
    if path.suffix == ".toml" or path.is_file():
        try:
            return _load(path.read_text("utf-8"), str(path), path.parent)
        except OSError as error:
            raise UserError(f"cannot read the table description {path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"the table description {path} is not UTF-8 text: {error}") from None
    known = built_in_tables()
    if name_or_path not in known:
        raise unknown_name("table", name_or_path, known, "sslbench table --list; or give the path of a .toml file")
    resource = files(f"{BUILT_IN}.tables") / f"{name_or_path}.toml"
    return _load(resource.read_text("utf-8"), f"{name_or_path}.toml", None)


def parse_description(text: str, where: str, folder: Path | None = None) -> TableDescription:
    """The description in `text`, with what it includes; `where` names it in messages, `folder` is the one it stands in.

    Raises `UserError` naming key and nearest match.
    """
    description = _parsed(TableDescription, text, where)
    included: dict[str, Key] = {}
    for file in description.include:
        part = _beside_or_built_in(file, folder, "tables", f"{where}: included file")
        included |= {key.id: key for key in _parsed(IncludedKeys, part, file).distinguish}
    replacing = {key.id: key for key in description.distinguish}
    added = [key for key in description.distinguish if key.id not in included]
    keys = (*(replacing.get(name, key) for name, key in included.items()), *added)
    description = description.model_copy(update={"distinguish": keys})
    _check(description, where)
    return description


def _parsed(model: type[Content], text: str, where: str) -> Content:
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the table description {where} is not TOML: {error}") from None
    except ValidationError as error:
        raise UserError("; ".join(_problem(model, where, problem) for problem in error.errors())) from None


def _load(text: str, where: str, folder: Path | None) -> TableSource:
    description = parse_description(text, where, folder)
    return TableSource(description, tuple(_published_rows(part, where, folder) for part in description.published))


def _beside_or_built_in(file: str, folder: Path | None, built_in: str, what: str) -> str:
    """Text of `file` in the description's folder, or else in the folder `built_in` of sslbench's benchmarks."""
    beside = folder / file if folder else None
    if beside is not None and beside.is_file():
        return beside.read_text("utf-8")
    place = files(f"{BUILT_IN}.{built_in}").joinpath(*Path(file).parent.parts)
    try:
        return (place / Path(file).name).read_text("utf-8")
    except OSError:
        names = [entry.name for entry in place.iterdir()] if place.is_dir() else []
        known = sorted(str(Path(file).with_name(name)) for name in names if name.endswith((".csv", ".toml")))
        raise UserError(
            f"{what} {file!r} is neither beside the description nor one of sslbench's."
            f"{did_you_mean(file, known)} Known: {', '.join(known) or 'none'}"
        ) from None


def _published_rows(part: Published, where: str, folder: Path | None) -> tuple[dict[str, str], ...]:
    text = _beside_or_built_in(part.file, folder, "published", f"{where}: published file")
    reader = csv.DictReader(io.StringIO(text))
    rows = tuple({key: value or "" for key, value in row.items() if key} for row in reader)
    header = list(reader.fieldnames or ())
    for name in [*part.join.values(), *(column.column for column in part.columns)]:
        if name not in header:
            raise UserError(
                f"{where}: {part.file} has no column {name!r}.{did_you_mean(name, header)} It has: {', '.join(header)}"
            )
    keys = [tuple(row[name] for name in part.join.values()) for row in rows]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise UserError(
            f"{where}: {part.file} has more than one row with {', '.join(part.join.values())} = "
            f"{', '.join(twice[0])}; join by what tells them apart"
        )
    return rows


def _check(description: TableDescription, where: str) -> None:
    row_ids = [key.id for key in description.row]
    ids = [*row_ids, *(column.id for column in description.column)]
    if description.data != "section":
        ids.append(DATA)
    for name in ids:
        if ids.count(name) > 1:
            raise UserError(f"{where}: the id {name!r} is used twice; ids of rows and columns must differ")
    for place, names in (
        ("order_by", description.order_by),
        *((f"published.join of {p.file}", p.join) for p in description.published),
    ):
        for name in names:
            if name not in row_ids:
                raise UserError(
                    f"{where}: {place} names {name!r}, which is no row id.{did_you_mean(name, row_ids)} "
                    f"Known: {', '.join(row_ids)}"
                )
    for place, path in _paths(description):
        if not path.startswith("measurement:"):
            _check_path(path, f"{where}: {place}")
    for column in description.column:
        if column.path.startswith("measurement:") and column.source is None:
            raise UserError(
                f"{where}: column {column.id!r}: from = {column.path!r} must read "
                "measurement:EVALUATOR.METRIC:SUBJECT with SUBJECT trained or untrained, e.g. "
                "measurement:knn.primary:trained"
            )
        before = parse_source(column.baseline)
        if column.baseline and (before is None or column.source is None or before[:2] != column.source[:2]):
            raise UserError(
                f"{where}: column {column.id!r}: baseline = {column.baseline!r} must be the same evaluator and metric "
                "as from, of the other network, e.g. measurement:knn.primary:untrained"
            )


def _paths(description: TableDescription) -> list[tuple[str, str]]:
    found = [(f"row {key.id!r}", key.path) for key in description.row]
    found += [(f"distinguish {key.id!r}", key.path) for key in description.distinguish]
    found += [("filter", path) for path in description.filter]
    for column in description.column:
        found += [(f"column {column.id!r}", path) for path in _column_paths(column)]
    return found


def _column_paths(column: Column) -> list[str]:
    return [column.path, *([column.evidence] if column.evidence else []), *braced_paths(column.protocol)]


def _check_path(path: str, where: str) -> None:
    """Follow a dotted path through the record's models; what lies in a free mapping cannot be checked."""
    model: Any = RunRecord
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            if get_origin(model) is dict or model is Any:
                return
            raise UserError(f"{where}: {'.'.join(parts[:depth])!r} is a value, it has no {part!r}")
        if part not in model.model_fields:
            raise UserError(
                f"{where}: a record has no {path!r}.{did_you_mean(part, model.model_fields)} "
                f"Known{' there' if depth else ''}: {', '.join(model.model_fields)}"
            )
        model = model.model_fields[part].annotation
        optional = [kind for kind in get_args(model) if kind is not type(None)]
        if type(None) in get_args(model) and len(optional) == 1:
            model = optional[0]
    if isinstance(model, type) and issubclass(model, BaseModel):
        raise UserError(f"{where}: {path!r} is a part, not a value. It has: {', '.join(model.model_fields)}")


def _problem(model: type[BaseModel], where: str, problem: Mapping[str, Any]) -> str:
    location: Sequence[str | int] = problem["loc"]
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in location)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        return (
            f"{where}: {place!r} is not a key of a table description."
            f"{did_you_mean(str(location[-1]), known)} Known there: {', '.join(known)}"
        )
    if problem["type"] == "missing":
        return f"{where}: {place!r} is missing. {'It has to say what the table shows.' if len(location) == 1 else ''}"
    return f"{where}: {place!r} = {problem['input']!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _known_keys(whole: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    parts: dict[str, type[BaseModel]] = {
        "row": Key,
        "distinguish": Key,
        "column": Column,
        "published": Published,
        "columns": PublishedColumn,
    }
    names = [part for part in location if isinstance(part, str)]
    model = parts[names[-1]] if names else whole
    return [field.alias or name for name, field in model.model_fields.items()]
