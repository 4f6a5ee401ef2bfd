"""Values in a record file that cannot be shown, compared or written again: a record that has one is left out."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ssl_bench.errors import UserError
from ssl_bench.records.record import EvaluationRecord, RunRecord

DEEPEST = 30
LARGEST = 2**63
MAY_BE_NAN = ("evaluations", "training.final_logs")
"""A measurement and a log of a run that failed; tables write "not finite" for them."""

_SUSPECT = '"NaN"', 'Infinity"', "]" * 9, "}" * 9
"""What the JSON of an odd value holds, and sometimes another: no number, or deep nesting."""
_LONG = re.compile(r":-?[0-9]{19}")


def odd_value(record: BaseModel) -> str:
    """The first value of a record that cannot be used, and why; "" where all can be."""
    if _is_plain(record):
        return ""
    waiting: list[tuple[str, int, Any]] = [("", 0, record)]
    while waiting:  # not by recursion: what is nested too deeply is one of the faults
        path, depth, value = waiting.pop()
        if depth > DEEPEST:
            return f"{path[:60]}... is nested in more than {DEEPEST} levels"
        if isinstance(value, BaseModel):
            value = {name: getattr(value, name) for name in type(value).model_fields}
        if isinstance(value, dict):
            waiting += [(f"{path}.{key!s}".lstrip("."), depth + 1, inner) for key, inner in value.items()]
            value = " ".join(str(key) for key in value)
        elif isinstance(value, list | tuple):
            waiting += [(f"{path}.{index}", depth + 1, inner) for index, inner in enumerate(value)]
        if why := _why_odd(value, path):
            return f"{path or 'a name'} {why}".encode("utf-8", "backslashreplace").decode()
    return ""


def _is_plain(record: BaseModel) -> bool:
    """Whether the record's JSON shows at a glance that nothing can be odd, which holds for almost every record."""
    try:
        text = record.model_dump_json()
    except ValueError:  # e.g. half of a character
        return False
    return text.isascii() and not any(one in text for one in _SUSPECT) and _LONG.search(text) is None


def _why_odd(value: Any, path: str) -> str:
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "is an integer of more than 64 bits"
    if isinstance(value, float) and not math.isfinite(value) and not path.startswith(MAY_BE_NAN):
        return f"is {value}"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "is a text with half of a character (a lone surrogate)"
    return ""


def require_usable(record: RunRecord | EvaluationRecord, path: Path) -> None:
    """Raises `UserError` for a record that holds an odd value."""
    if odd := odd_value(record):
        raise UserError(f"{path} is damaged ({odd}). Restore it or remove its folder.")
