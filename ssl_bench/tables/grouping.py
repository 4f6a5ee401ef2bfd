"""Which runs are one row: those whose recipes agree in all but the seed, on the same data, by the same plugins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ssl_bench.recipe import OUTSIDE_DIGEST
from ssl_bench.record import RunRecord
from ssl_bench.tables.description import Key, TableDescription
from ssl_bench.tables.paths import flatten, look_up, plain_text
from ssl_bench.tables.table import data_title

NOT_IN_IDENTITY = ("recipe.training.seed", *(f"recipe.data.{key}" for key in OUTSIDE_DIGEST))
"""Values of a recipe in which the runs of one row may differ."""
AT_MOST_DIFFERENCES = 3
"""How many differing recipe values a row names before it only counts the rest."""


@dataclass(frozen=True)
class Run:
    """A record, and what must agree for two of them to be averaged."""

    record: RunRecord
    plain: Mapping[str, Any]
    identity: Mapping[str, Any]


@dataclass
class Group:
    """The runs of one row."""

    keys: tuple[Any, ...]
    runs: list[Run]
    repeated: list[str] = field(default_factory=list)
    """Run ids of earlier runs of a seed that was run again; they do not count."""
    settings: str = ""
    """What tells the row from others with the same keys."""

    @property
    def first(self) -> Run:
        """Any of the runs: they agree in all but the seed."""
        return self.runs[0]

    def with_status(self, status: str) -> list[Run]:
        """The runs that ended so."""
        return [run for run in self.runs if run.record.status == status]


def as_run(record: RunRecord, description: TableDescription) -> Run:
    """A record with its identity. Evaluators are not part of it: their numbers compare by their own protocols."""
    plain = record.model_dump(mode="json")
    identity = {
        path: value
        for path, value in flatten(plain["recipe"], "recipe").items()
        if path not in NOT_IN_IDENTITY and not path.startswith("recipe.evaluators")
    }
    identity["data.fingerprint"] = record.data.fingerprint
    identity["method_plugin"] = _distribution(record.method_plugin)
    identity["backbone.plugin"] = _distribution(record.backbone.plugin)
    for key in description.distinguish:
        identity[key.path] = look_up(plain, key.path)
    return Run(record, plain, identity)


def wanted(run: Run, conditions: Mapping[str, Any]) -> bool:
    """Whether a run has, under every dotted path, one of the values that `filter` allows."""
    for path, allowed in conditions.items():
        value = look_up(run.plain, path)
        if not any(_same(value, choice) for choice in (allowed if isinstance(allowed, tuple) else (allowed,))):
            return False
    return True


def group(keys: tuple[Key, ...], runs: Iterable[Run]) -> list[Group]:
    """Runs by row keys and identity. Of two runs of one seed the one that ended later counts."""
    found: dict[str, Group] = {}
    for run in sorted(runs, key=lambda run: (run.record.finished_utc, run.record.run_id, run.record.model_dump_json())):
        values = tuple(_key_value(key, run) for key in keys)
        own = found.setdefault(canonical([values, run.identity]), Group(values, []))
        for earlier in [other for other in own.runs if other.record.seed == run.record.seed]:
            own.runs.remove(earlier)
            own.repeated.append(earlier.record.run_id)
        own.runs.append(run)
    return list(found.values())


def tell_apart(description: TableDescription, groups: list[Group]) -> str:
    """Write each group's `settings`; returns the words that all groups share.

    First what the description distinguishes by; rows that still look alike name the recipe values that differ.
    """
    common: list[str] = []
    words: list[list[str]] = [[] for _ in groups]
    for key in description.distinguish:
        texts = [key.text(look_up(own.first.plain, key.path)) for own in groups]
        for mine, text in zip([common] if len(set(texts)) == 1 else words, texts, strict=False):
            mine += [text] if text else []
    for own, mine in zip(groups, words, strict=True):
        own.settings = ", ".join(mine)
    alike: dict[str, list[Group]] = {}
    for own in groups:
        alike.setdefault(canonical([own.keys, own.settings]), []).append(own)
    for same in alike.values():
        if len(same) > 1:
            _name_differences(same)
    return "".join(f", {text}" for text in common)


def canonical(value: Any) -> str:
    """One text for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True)


def natural(value: Any) -> tuple[int, float, str]:
    """Sort key: numbers by size, then texts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, plain_text(value))


def _name_differences(groups: list[Group]) -> None:
    paths = sorted({path for own in groups for path in own.first.identity})
    differing = [path for path in paths if len({canonical(own.first.identity.get(path)) for own in groups}) > 1]
    for own in groups:
        shown = [own.settings] if own.settings else []
        for path in differing[:AT_MOST_DIFFERENCES]:
            value = plain_text(own.first.identity.get(path)) or "none"
            name = path.removeprefix("recipe.").replace(".settings.", ".")
            shown.append(f"{name}={value if len(value) <= 24 else value[:23] + '…'}")
        if len(differing) > AT_MOST_DIFFERENCES:
            shown.append(f"{len(differing) - AT_MOST_DIFFERENCES} more ({own.first.record.run_id})")
        own.settings = ", ".join(shown)


def _key_value(key: Key, run: Run) -> Any:
    if key.path == "data.name":
        return data_title(run.record.data.name, run.record.data.synthetic)
    return look_up(run.plain, key.path)


def _distribution(plugin: str) -> str:
    """Without the version: two distributions' plugins of one name are two methods, two versions are a footnote."""
    return plugin.rpartition(" ")[0] or plugin


def _same(value: Any, choice: Any) -> bool:
    return isinstance(value, bool) == isinstance(choice, bool) and bool(value == choice)
