"""Settings models: frozen, typed, printable; errors name keys and values as the user gave them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.fields import FieldInfo

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.system.paths import absolute_path, portable_path

__all__ = [  # what plugins may import; the rest serves the core
    "DATA_PATH",
    "NONE",
    "AnySettings",
    "AreaRange",
    "BlurRange",
    "DecayRates",
    "GivenList",
    "GivenPath",
    "Pair",
    "Probabilities",
    "Settings",
    "absolute_path",
    "describe",
    "parse_settings",
    "parse_text",
    "setting",
]  # fmt: skip


class Settings(BaseModel):
    """Base of every `Config`: immutable, unknown keys refused, values checked, JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


AnySettings = TypeVar("AnySettings", bound=Settings)
NONE = "none"
"""How None is written where there is no word for it: in TOML, and on the command line beside `null`."""
DATA_PATH = "path"
"""The setting of an evaluator that says where data of its own lie: in no digest, and it may change on resume."""


def setting(default: Any, meaning: str, *, unit: str = "", source: str = "", **bounds: Any) -> Any:
    """A field of a `Settings` model.

    `meaning` is one sentence for the command line, `unit` e.g. "px", "epochs" or "" for a pure number, `source` the
    paper, equation or file the default comes from. `bounds` are pydantic's `ge`, `gt`, `le`, `lt`, `multiple_of`, ...
    """
    return Field(default, description=meaning, json_schema_extra={"unit": unit, "source": source}, **bounds)


def parse_settings(model: type[AnySettings], values: Mapping[str, Any], section: str, owner: str) -> AnySettings:
    """Build `model` from `values`; raises `UserError` naming `section.key`, what was given and what is allowed.

    The text "none" stands for None wherever a setting may be left open: TOML has no null.
    """
    for key in values:
        if key not in model.model_fields:
            known = [f"{section}.{name}" for name in model.model_fields]
            listing = f" Known: {', '.join(known)}" if known else f" {owner} has no settings."
            raise UserError(
                f"'{section}.{key}' is not a setting of {owner}.{did_you_mean(f'{section}.{key}', known)}{listing}"
            )
    given = {
        key: None if value == NONE and _may_be_none(model.model_fields[key]) else value for key, value in values.items()
    }
    for key, value in given.items():
        if _has_huge_integer(value):
            raise UserError(f"'{section}.{key}' = {_short(value)}: whole numbers are below 2^63 in size.")
    try:
        return model(**given)
    except ValidationError as error:
        problems = dict.fromkeys(_problem(model, section, problem) for problem in error.errors())
        raise UserError("; ".join(problems)) from None
    except Exception as error:  # a plugin's own check that stumbles over a value
        listing = ", ".join(f"{section}.{key} = {_short(value)}" for key, value in given.items())
        raise UserError(f"{owner} cannot take {listing}: {type(error).__name__}: {error}") from error


def parse_text(text: str) -> Any:
    """A value typed on the command line: JSON where it is JSON (numbers, true, null, lists), else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a number of thousands of digits and lists in lists without end, too
        return {"True": True, "False": False, "None": None}.get(text, text)


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`["a.b=1"]` to `{"a.b": 1}`. Raises `UserError` for a text without "=" or a key given twice."""
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text!r} is not KEY=VALUE, e.g. --set method.teacher_temperature=0.05")
        if key.strip() in values:
            raise UserError(f"--set gives {key.strip()!r} twice")
        values[key.strip()] = parse_text(value.strip())
    return values


def assignment_text(key: str, value: Any) -> str:
    """The KEY=VALUE that `parse_assignments` reads as this value, e.g. "a.b=[1, 2]"."""
    plain = isinstance(value, str) and parse_text(value) == value
    return f"{key}={value if plain else json.dumps(value)}"


def section_of(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The settings of one section, without its prefix."""
    prefix = section + "."
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


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
    name = str(problem["loc"][0]) if problem["loc"] else ""
    places = "".join(f"[{part}]" for part in problem["loc"][1:] if isinstance(part, int))
    field = model.model_fields.get(name)
    said = problem["msg"].removeprefix("Value error, ")
    said = f"{said[:1].lower()}{said[1:]}".removesuffix(".")
    if field is None:
        return f"the settings of '{section}': {said}."
    given = " is missing" if problem["type"] == "missing" else f" = {_short(problem['input'])}"
    if problem["type"] in ("tuple_type", "list_type"):
        said = "input should be a list"
    words = "it has no default" if problem["type"] == "missing" else said
    allowed = f" Allowed: {_allowed(field)}." if problem["type"] in _WRONG_KIND else ""
    meaning = f" It means: {field.description.removesuffix('.')}." if field.description else ""
    return f"'{section}.{name}{places}'{given}: {words}.{meaning}{allowed}"


_WRONG_KIND = ("tuple_type", "list_type", "missing", "too_short", "too_long", "dict_type", "model_type")
"""Problems whose words do not say what is allowed."""


def _allowed(field: FieldInfo) -> str:
    """What a setting takes, e.g. "a list of 2 numbers, e.g. [0.1, 2.0], or none"."""
    choices = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    words = [_kind_in_words(choice) for choice in choices if choice is not NoneType]
    example = "" if field.is_required() or field.default is None else f", e.g. {json.dumps(_plain(field.default))}"
    return " or ".join(words) + example + (", or none" if NoneType in choices else "")


def _kind_in_words(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _kind_in_words(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) in (tuple, list):
        inner = get_args(kind)
        count = "" if get_origin(kind) is list or Ellipsis in inner else f"{len(inner)} "
        return f"a list of {count}{'whole numbers' if inner and inner[0] is int else 'values'}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "a value")


def _has_huge_integer(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(one, int) and abs(one) >= 2**63 for one in values)


def _may_be_none(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in (Union, UnionType) and NoneType in get_args(field.annotation)


def _short(value: Any) -> str:
    """The value as text of at most 60 characters, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        text = f"a value of type {type(value).__name__} too long to show"
    return text if len(text) <= 60 else f"{text[:57]}..."


Pair = tuple[float, float]


def _list_path(text: str) -> str:
    is_path = "/" in text or text.startswith("~") or (text.endswith(".txt") and Path(text).is_file())
    return absolute_path(text) if is_path else text


def _ordered(pair: Pair) -> Pair:
    if pair[0] > pair[1]:
        raise ValueError(f"the first number is larger than the second. Give [{pair[1]:g}, {pair[0]:g}]")
    return pair


def _areas(pair: Pair) -> Pair:
    if not all(1e-9 <= share <= 1 for share in pair):
        raise ValueError("give two shares of the image's area above 0 and up to 1, e.g. [0.2, 1.0]")
    return _ordered(pair)


def _widths(pair: Pair) -> Pair:
    if not all(0 <= width <= 1e6 for width in pair):
        raise ValueError("give two widths of 0 px or more, e.g. [0.1, 2.0]")
    return _ordered(pair)


def _decay_rates(pair: Pair) -> Pair:
    if not all(0 <= rate < 1 for rate in pair):
        raise ValueError("give two rates from 0 up to, but not including, 1, e.g. [0.9, 0.999]")
    return pair


def _probabilities(pair: Pair) -> Pair:
    if not all(0 <= probability <= 1 for probability in pair):
        raise ValueError("give two probabilities between 0 and 1, e.g. [1.0, 0.1]")
    return pair


AreaRange = Annotated[Pair, AfterValidator(_areas)]
"""Smallest and largest area of a crop, as shares of the image's."""
BlurRange = Annotated[Pair, AfterValidator(_widths)]
"""Smallest and largest standard deviation of a blur, in pixels."""
Probabilities = Annotated[Pair, AfterValidator(_probabilities)]
"""One probability for each of two views."""
DecayRates = Annotated[Pair, AfterValidator(_decay_rates)]
"""Two decay rates of moving averages."""
GivenPath = Annotated[str, AfterValidator(absolute_path), PlainSerializer(portable_path)]
"""A file or folder that the user named: an absolute path here, `portable_path` in records and recipes."""
GivenList = Annotated[str, AfterValidator(_list_path), PlainSerializer(portable_path)]
"""The name of a list that comes with a dataset, or as `GivenPath` a list file that the user named."""
