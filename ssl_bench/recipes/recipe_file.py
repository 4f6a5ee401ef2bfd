"""Reading a recipe file: TOML with a section [run] for names and one section a group of settings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.records.seal import check_recipe

SECTIONS = (
    "method", "backbone", "data", "eval_data", "optimizer", "training", "initial", "machine", "evaluators",
)  # fmt: skip


@dataclass(frozen=True)
class RecipeFile:
    """What a file says, complete or not; values are keyed `section.setting`."""

    method: str | None = None
    arch: str | None = None
    data: str | None = None
    eval_data: tuple[str, ...] | None = None
    preset: str | None = None
    evaluators: tuple[str, ...] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def read_recipe_file(path: Path) -> RecipeFile:
    """Raises `UserError` for a file that cannot be read, is not TOML, or has an unknown section, key or kind of value.

    Values of settings are checked by their own models later.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, a number of thousands of digits
        saved = path.parent / "recipe.toml"
        hint = f" The run's recipe is {saved}." if path.suffix == ".json" and saved.exists() else ""
        raise UserError(f"the recipe {path} is not TOML: {error}.{hint}") from None
    check_recipe(text, path)
    names = content.pop("run", {})
    if not isinstance(names, dict):
        raise UserError(f"'run' in {path} is {names!r:.60}, not a section. Write [run] and method = ... below it")
    return RecipeFile(**_names(names, path), values=_values(content, path))


def _names(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The section [run], with values of the right kind."""
    known = ("method", "arch", "data", "preset", "eval_data", "with")
    for key, value in given.items():
        if key not in known:
            raise UserError(f"'run.{key}' in {path} is not known.{did_you_mean(key, known)} Known: {', '.join(known)}")
        if key in ("eval_data", "with"):
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                example = '["knn"]' if key == "with" else '["~/birds"]'
                raise UserError(f"'run.{key}' in {path} is {value!r:.60}. Give a list of names, e.g. {example}")
        elif not isinstance(value, str) or not value.strip():
            raise UserError(f"'run.{key}' in {path} is {value!r:.60}. Give a name in quotes (sslbench list)")
    found: dict[str, Any] = {key: given[key] for key in known[:-2] if key in given}
    lists = {"eval_data": "eval_data", "evaluators": "with"}
    return found | {name: tuple(given[key]) for name, key in lists.items() if key in given}


def _values(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings, keyed `section.setting`, `evaluators.name.setting` or `eval_data.number.setting`."""
    values: dict[str, Any] = {}
    for section, settings in content.items():
        if section not in SECTIONS or not isinstance(settings, dict):
            hint = f" '{section}' is {settings!r:.60} there." if not isinstance(settings, dict) else ""
            raise UserError(
                f"[{section}] in {path} is not a section.{hint}{did_you_mean(section, (*SECTIONS, 'run'))} "
                f"Known: run, {', '.join(SECTIONS)}"
            )
        for key, value in settings.items():
            if section in ("evaluators", "eval_data") and isinstance(value, dict):
                values |= {f"{section}.{key}.{name}": inner for name, inner in value.items()}
            elif section != "evaluators":
                values[f"{section}.{key}"] = value
            else:
                raise UserError(
                    f"'evaluators.{key}' in {path} is {value!r:.60}, not a section. Settings of an evaluator stand "
                    f"below [evaluators.{key}], or below [evaluators.knn] for those of knn"
                )
    return values
