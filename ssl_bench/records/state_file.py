"""JSON files that prove they are whole: written with a SHA-256 of their content, read strictly.

The fingerprint is the SHA-256 of the canonical JSON (keys sorted, no spaces, ASCII) of everything else in the file, so
that it does not depend on indentation and any value that changes is noticed. Reading refuses what JSON libraries let
pass and what breaks programs later: a key given twice, NaN, numbers beyond 64 bits, deep nesting, lone surrogates.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from ssl_bench.errors import UserError

FINGERPRINT = "fingerprint"
LONGEST_WHOLE = 20
"""Characters of a whole number of 64 bits, with its sign."""
MAX_DEPTH = 32
"""Levels of nesting; the deepest file of sslbench has nine."""

AnyModel = TypeVar("AnyModel", bound=BaseModel)


class DamagedFile(UserError):
    """A file is not what sslbench wrote: cut, changed, or of another program."""


def fingerprint(content: Mapping[str, Any]) -> str:
    """Hex SHA-256 of the canonical JSON of `content` without its own fingerprint."""
    rest = {key: value for key, value in content.items() if key != FINGERPRINT}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sealed(model: BaseModel, indent: int | None = 1) -> bytes:
    """The model as JSON with its fingerprint at the end, on one line where `indent` is None.

    Raises `UserError` for text that no file can hold.
    """
    try:
        content = json.loads(model.model_dump_json())
        problem = _problem(content)
    except ValueError as error:  # pydantic's error for lone surrogates is one
        problem = str(error)
    if problem:
        raise UserError(f"{type(model).__name__} cannot be written: {problem}")
    content[FINGERPRINT] = fingerprint(content)
    return (json.dumps(content, indent=indent, ensure_ascii=False) + "\n").encode("utf-8")


def parse_strictly(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. Raises `ValueError` saying what is wrong with it."""
    try:
        content = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if _nested_too_deeply(content):
        raise ValueError("nested too deeply")
    if b"\\u" in data and (problem := _problem(content)):  # half a character is only written so
        raise ValueError(problem)
    return content


def read_sealed(path: Path, newest_schema: int, *, unsealed_schema: int | None = None) -> dict[str, Any]:
    """The content of a file without its fingerprint, which is checked.

    `unsealed_schema` is the last version of the format that was written without one. Raises `DamagedFile` for a file
    that is not whole, `UserError` for one that cannot be read or is of a newer version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    content, proven = _proven(data), True
    if content is None:
        proven = False
        try:
            content = parse_strictly(data)
        except ValueError as error:
            raise DamagedFile(f"{path} is damaged (not JSON: {error}). {_advice(path)}") from None
    version = content.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedFile(f"{path} is damaged (schema_version is {version!r}). {_advice(path)}")
    if version > newest_schema:
        raise UserError(
            f"{path} was written by a newer sslbench (schema {version}; this one reads up to {newest_schema}). "
            "Update sslbench: pip install -U sslbench"
        )
    stored = content.pop(FINGERPRINT, None)
    if proven or (stored is None and unsealed_schema is not None and version <= unsealed_schema):
        return content
    what = "its fingerprint is missing" if stored is None else "its content does not have the fingerprint in it"
    raise DamagedFile(f"{path} is damaged or was edited ({what}). {_advice(path)}")


def _proven(data: bytes) -> dict[str, Any] | None:
    """The content of a file that has the fingerprint of its content, which needs no other check; None for any other.

    Equal texts of many files are one object (`cache_strings`).
    """
    try:
        content = from_json(data, allow_inf_nan=False, cache_strings="all")
        whole = isinstance(content, dict) and content.get(FINGERPRINT) == fingerprint(content)
    except (ValueError, RecursionError):
        return None
    return content if whole else None


def read_model(path: Path, model: type[AnyModel], newest_schema: int, unsealed_schema: int | None = None) -> AnyModel:
    """The model in a file; errors as `read_sealed`, and `DamagedFile` for missing, unknown or wrong fields."""
    return as_model(read_sealed(path, newest_schema, unsealed_schema=unsealed_schema), model, path)


def as_model(content: Mapping[str, Any], model: type[AnyModel], path: Path) -> AnyModel:
    """The model in the content of the file `path`. Raises `DamagedFile` for missing, unknown or wrong fields."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first, count = error.errors()[0], error.error_count()
        where = ".".join(str(part) for part in first["loc"])
        more = f", and {count - 1} more" if count > 1 else ""
        raise DamagedFile(f"{path} is damaged ({where}: {first['msg']}{more}). {_advice(path)}") from None


def _advice(path: Path) -> str:
    if path.name == "run.json":
        return "Restore it, or repeat the run with --restart."
    return "Restore it or remove its folder." if path.name == "record.json" else "Restore it or remove it."


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > LONGEST_WHOLE or abs(int(text)) >= 2**63:
        raise ValueError("a whole number is larger than 64 bits")
    return int(text)


def _nested_too_deeply(content: Any) -> bool:
    level = [content]
    for _ in range(MAX_DEPTH):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!a} is given twice")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _problem(value: Any, depth: int = 0) -> str:
    """What makes a value unfit for a file; "" for none."""
    if depth > MAX_DEPTH:
        return "nested too deeply"
    match value:
        case dict():
            return next((p for pair in value.items() for item in pair if (p := _problem(item, depth + 1))), "")
        case list():
            return next((p for item in value if (p := _problem(item, depth + 1))), "")
        case str() if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            return f"{value[:60]!a} is not text that UTF-8 can hold"
        case float() if not math.isfinite(value):
            return "a number is too large"
        case int() if abs(value) >= 2**63:
            return "a whole number is larger than 64 bits"
    return ""
