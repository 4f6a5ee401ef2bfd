"""Dotted paths into a record as plain nested values, and recorded values in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel


def look_up(values: dict[str, Any] | BaseModel, path: str) -> Any:
    """The value under a dotted path such as `recipe.method.settings.local_views`; None where nothing stands.

    The path leads through dicts and through the parts of a record.
    """
    value: Any = values
    for part in path.split("."):
        if isinstance(value, BaseModel):
            value = vars(value)
        elif not isinstance(value, dict):
            return None
        value = value.get(part)
    return [_plain(one) for one in value] if isinstance(value, tuple) else _plain(value)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of nested dicts under its dotted path; lists stay values.

    >>> flatten({"method": {"name": "dino", "crops": [2, 8]}}, "recipe")
    {'recipe.method.name': 'dino', 'recipe.method.crops': [2, 8]}
    """
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        path = _below(prefix, key) if prefix else key
        if isinstance(value, dict):
            flat |= flatten(value, path)
        else:
            flat[path] = value
    return flat


@lru_cache(maxsize=4096)
def _below(prefix: str, key: str) -> str:
    """One object for equal paths of many records."""
    return f"{prefix}.{key}"


def braced_paths(template: str) -> list[str]:
    """The dotted paths in braces of a template."""
    return re.findall(r"\{([^{}]+)\}", template)


def fill_in(template: str, values: dict[str, Any]) -> str:
    """`template` with every `{dotted.path}` replaced by its value in words."""
    return singular(re.sub(r"\{([^{}]+)\}", lambda found: plain_text(look_up(values, found.group(1))), template))


def singular(text: str) -> str:
    """Plurals after a 1 without their s.

    >>> singular("1 threads, 21 epochs, 0.1 epochs, 1 blocks")
    '1 thread, 21 epochs, 0.1 epochs, 1 block'
    """
    return re.sub(r"(?<![\d.,])1 (thread|epoch|block|image|core|seed|step)s\b", r"1 \1", text)


def plain_text(value: Any) -> str:
    """A recorded value as a reader writes it: true, 12, 0.996; lists with commas; nothing for None.

    >>> plain_text([0.4, 1e-6, True]), plain_text(0.1234567)
    ('0.4, 1e-06, true', '0.1234567')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)  # two values never share a text
    if isinstance(value, list | tuple):
        return ", ".join(plain_text(item) for item in value)
    return str(value)
