"""Settings that earlier versions spelled differently or did not have.

Recipes, records and assignments with an earlier name are read as if they had today's. Digests are computed over what
earlier versions wrote, so that those of recorded runs stay valid and an equal new run has the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_bench.errors import UserError

_GRAY = {"grey_probability": "gray_probability"}
_COLOR = {"colour_strength": "color_strength"}

RENAMED_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "method.byol": _GRAY | {"solarise_probability": "solarize_probability"},
    "method.dino": _GRAY,
    "method.mocov2": _GRAY,
    "method.simclr": _GRAY | _COLOR,
    "method.swav": _GRAY | _COLOR,
    "evaluators.knn": {"neighbours": "neighbors"},
    "evaluators.linear-probe": {"standardise": "standardize"},
}
"""Earlier name -> today's name, by plugin: a third-party plugin's settings keep the names it gives them."""

ADDED_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "positions": ("timm", None),
    "weights": (None,),
    "pool": ("timm", None),
    "stem_padding": (None,),
}
"""Settings of backbones that older recipes lack: name -> values that mean what every run did before it existed."""


def with_current_names(plugin: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` of a plugin, e.g. "method.dino" or "evaluators.knn", under today's names."""
    current = RENAMED_SETTINGS.get(plugin, {})
    return {current.get(name, name): value for name, value in settings.items()}


def with_earlier_names(plugin: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `with_current_names`, for digests."""
    earlier = {new: old for old, new in RENAMED_SETTINGS.get(plugin, {}).items()}
    return {earlier.get(name, name): value for name, value in settings.items()}


def without_added_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's settings without those that older recipes lack, where they have the older meaning."""
    return {name: value for name, value in settings.items() if value not in ADDED_SETTINGS.get(name, ())}


def assignments_with_current_names(values: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Values keyed `method.NAME` or `evaluators.EVALUATOR.NAME` under today's names; `method` is the one that runs.

    Raises `UserError` where a setting is given under both of its names.
    """
    current: dict[str, Any] = {}
    for key, value in values.items():
        name = _current_key(key, method)
        if name in current:
            raise UserError(f"{name!r} is given twice, once under its earlier name: leave one of the two out")
        current[name] = value
    return current


def _current_key(key: str, method: str) -> str:
    section, _, name = key.rpartition(".")
    plugin = f"method.{method}" if section == "method" else section
    return f"{section}.{RENAMED_SETTINGS.get(plugin, {}).get(name, name)}" if section else key
