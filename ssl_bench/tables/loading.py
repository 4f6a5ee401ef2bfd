"""Reading table descriptions and the published files that they name; a mistake in them becomes a message."""

from __future__ import annotations

import csv
import io
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ssl_bench.errors import UserError, did_you_mean, unknown_name
from ssl_bench.tables.checks import check_description
from ssl_bench.tables.description import IncludedKeys, Key, Published, TableDescription
from ssl_bench.tables.variant_checks import check_runs
from ssl_bench.tables.variants import VARIANT, IncludedSizes, Runs, Size

BUILT_IN = "ssl_bench_benchmarks"
MAIN = "comparison"

Content = TypeVar("Content", bound=BaseModel)


class TableSource(NamedTuple):
    """A description with the published rows that it names, read."""

    description: TableDescription
    published: tuple[tuple[dict[str, str], ...], ...]
    """One tuple of CSV rows per entry of `description.published`."""


def shown_metrics(sources: Iterable[TableSource]) -> set[tuple[str, str]]:
    """(evaluator, metric) of all measurements that any of the tables shows, for `read_usable`."""
    return {metric for source in sources for metric in source.description.metrics}


def built_in_tables() -> dict[str, str]:
    """Name -> title of every table that comes with sslbench, the comparison of methods first."""
    folder = files(f"{BUILT_IN}.tables")
    return {name: str(_toml((folder / f"{name}.toml").read_text("utf-8")).get("title", "")) for name in _names()}


def _names() -> list[str]:
    found = [entry.name for entry in files(f"{BUILT_IN}.tables").iterdir() if entry.name.endswith(".toml")]
    return sorted((name.removesuffix(".toml") for name in found), key=lambda name: (name != MAIN, name))


@cache
def _toml(text: str) -> dict[str, Any]:
    """Parsed once: many tables include the same files, and their titles are read as well."""
    return tomllib.loads(text)


def load_table(name_or_path: str) -> TableSource:
    """Read a description by built-in name or by path, and its published files. Raises `UserError`."""
    path = Path(os.path.expanduser(name_or_path))
    if path.suffix == ".toml" or path.is_file():
        try:
            source = _load(path.read_text("utf-8"), str(path), path.parent)
        except OSError as error:
            raise UserError(f"cannot read the table description {path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"the table description {path} is not UTF-8 text: {error}") from None
        require_own_id(source.description.id, "tables", path)
        return source
    known = _names()
    if name_or_path not in known:
        raise unknown_name("table", name_or_path, known, "sslbench table --list; or give the path of a .toml file")
    resource = files(f"{BUILT_IN}.tables") / f"{name_or_path}.toml"
    return _load(resource.read_text("utf-8"), f"{name_or_path}.toml", None)


def require_own_id(name: str, built_in: str, path: Path) -> None:
    """Raises `UserError` for a user's description with the id of one of sslbench's, whose files it would replace."""
    official = files(f"{BUILT_IN}.{built_in}") / f"{name}.toml"
    if official.is_file() and not (isinstance(official, Path) and path.exists() and official.samefile(path)):
        raise UserError(
            f"{path}: id = {name!r} is one of sslbench's own {built_in}, and its files under results/ have that name. "
            f'Choose another, e.g. id = "my_{name}"'
        )


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
    runs = _with_included_sizes(description.runs, where, folder) if description.runs else None
    rows = tuple(key if key.path else key.model_copy(update={"path": f"{VARIANT}.{key.id}"}) for key in description.row)
    description = description.model_copy(update={"row": rows, "distinguish": keys, "runs": runs})
    check_description(description, where)
    check_runs(description, where)
    return description


def _with_included_sizes(runs: Runs, where: str, folder: Path | None) -> Runs:
    """The runs with the sizes of the files that they include; what the description says of a size is laid over it."""
    included: dict[str, Size] = {}
    for file in runs.include:
        text = _beside_or_built_in(file, folder, "tables", f"{where}: included file")
        included |= _parsed(IncludedSizes, text, file).size
    laid_over = {name: size.over(included.get(name)) for name, size in runs.size.items()}
    return runs.model_copy(update={"size": included | laid_over})


def _parsed(model: type[Content], text: str, where: str) -> Content:
    try:
        return model.model_validate(_toml(text))
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
    for name in [*part.where, *part.join.values(), *(column.column for column in part.columns)]:
        if name not in header:
            raise UserError(
                f"{where}: {part.file} has no column {name!r}.{did_you_mean(name, header)} It has: {', '.join(header)}"
            )
    for name, texts in part.where.items():
        found = dict.fromkeys(row[name] for row in rows)
        if unknown := [text for text in texts if text not in found]:
            raise UserError(
                f"{where}: {part.file} has no row with {name} = {unknown[0]!r}.{did_you_mean(unknown[0], found)} "
                f"It has: {', '.join(found)}"
            )
    rows = tuple(row for row in rows if all(row[name] in texts for name, texts in part.where.items()))
    keys = [tuple(row[name] for name in part.join.values()) for row in rows]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise UserError(
            f"{where}: {part.file} has more than one row with {', '.join(part.join.values())} = "
            f"{', '.join(twice[0])}; join by what tells them apart"
        )
    return rows


def _problem(model: type[BaseModel], where: str, problem: Mapping[str, Any]) -> str:
    location: Sequence[str | int] = problem["loc"]
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in location)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        return (
            f"{where}: {place!r} is not a key of a table description."
            f"{did_you_mean(str(location[-1]), known)} Known there: {', '.join(known)}"
        )
    if tuple(location) == ("runs", "variant"):
        return f"{where}: [runs] has no row: give a [[runs.variant]] with name, method and arch for each"
    if problem["type"] == "missing":
        return f"{where}: {place!r} is missing. {'It has to say what the table shows.' if len(location) == 1 else ''}"
    return f"{where}: {place!r} = {problem['input']!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _known_keys(whole: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys of the part that a location leads to, through the lists and mappings on its way."""
    model = whole
    for part in location:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = _models_in(field.annotation) if field else []
        model = inner[0] if inner else model  # an index, or the name that a mapping gives its part
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation speaks of, e.g. `Key` in `tuple[Key, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
