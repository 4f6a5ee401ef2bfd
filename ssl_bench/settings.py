"""Settings models: frozen, typed, printable; a wrong key or value is answered in the user's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from ssl_bench.errors import UserError, did_you_mean


class Settings(BaseModel):
    """Base of every `Config`: immutable, unknown keys refused, values checked, JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


AnySettings = TypeVar("AnySettings", bound=Settings)


def setting(default: Any, meaning: str, *, unit: str = "", source: str = "", **bounds: Any) -> Any:
    """A field of a `Settings` model.

    `meaning` is one sentence for the command line, `unit` e.g. "px", "epochs" or "" for a pure number, `source` the
    paper, equation or file the default comes from. `bounds` are pydantic's `ge`, `gt`, `le`, `lt`, `multiple_of`, ...
    """
    return Field(default, description=meaning, json_schema_extra={"unit": unit, "source": source}, **bounds)


def parse_settings(model: type[AnySettings], values: Mapping[str, Any], section: str, owner: str) -> AnySettings:
    """Build `model` from `values`; raises `UserError` naming `section.key`, what was given and what is allowed."""
    for key in values:
        if key not in model.model_fields:
            known = [f"{section}.{name}" for name in model.model_fields]
            listing = f" Known: {', '.join(known)}" if known else f" {owner} has no settings."
            raise UserError(
                f"'{section}.{key}' is not a setting of {owner}.{did_you_mean(f'{section}.{key}', known)}{listing}"
            )
    try:
        return model(**values)
    except ValidationError as error:
        problems = [_problem(model, section, problem) for problem in error.errors()]
        raise UserError("; ".join(problems)) from None


def parse_text(text: str) -> Any:
    """A value typed on the command line: JSON where it is JSON (numbers, true, null, lists), else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def describe(model: type[Settings]) -> list[tuple[str, str, str, str, str]]:
    """Rows (name, default, unit, meaning, source) of a settings model, in its own order, for the command line."""
    rows = []
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        meaning = f"{field.description or ''} One of: {', '.join(map(str, choices))}." if choices else field.description
        default = "required" if field.is_required() else json.dumps(_plain(field.default))
        rows.append((name, default, str(extra.get("unit", "")), meaning or "", str(extra.get("source", ""))))
    return rows


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _problem(model: type[Settings], section: str, problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    field = model.model_fields.get(str(problem["loc"][0])) if problem["loc"] else None
    said = problem["msg"].removeprefix("Value error, ")
    meaning = f" It means: {field.description}" if isinstance(field, FieldInfo) and field.description else ""
    where = f"'{section}.{location}'" if location else f"the settings of '{section}'"
    given = "" if not location else f" = {problem['input']!r}"
    return f"{where}{given}: {said[:1].lower()}{said[1:]}.{meaning}"
