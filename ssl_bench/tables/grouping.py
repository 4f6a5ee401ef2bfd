"""Which runs are one row: those whose recipes agree in all but the seed, on the same data, by the same plugins."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel

from ssl_bench.records.recipe import OUTSIDE_DIGEST, InitialWeights
from ssl_bench.records.record import EvaluationRecord, RunRecord
from ssl_bench.records.renamed_settings import ADDED_SETTINGS
from ssl_bench.tables.description import Key, TableDescription
from ssl_bench.tables.matching import Match, Matcher
from ssl_bench.tables.paths import flatten, look_up, plain_text
from ssl_bench.tables.table import data_title
from ssl_bench.tables.todays_preset import Changes, PresetsSource, changes_of, no_presets
from ssl_bench.tables.variants import VARIANT

NOT_IN_IDENTITY = (
    "recipe.training.seed",
    "recipe.training.eval_every",
    *(f"recipe.data.{key}" for key in OUTSIDE_DIGEST),
)
"""Values of a recipe in which the runs of one row may differ."""
PRECISION = "machine.precision"
"""Decided by a measurement where the recipe says "auto", so two runs of one recipe can differ in it."""

Item = TypeVar("Item")


class RecordFacts:
    """A record, and what tables derive from it: once, however many tables show the run."""

    def __init__(self, record: RunRecord, presets: PresetsSource = no_presets) -> None:
        self.record = record
        self._presets = presets

    @cached_property
    def changes(self) -> Changes:
        """What the run changes of its preset, as the preset is today."""
        return changes_of(self.record, self._presets)

    def identity(self) -> dict[str, Any]:
        """What must agree for two runs to be averaged: path -> value.

        Evaluators and their data are not in it: numbers have their own protocols.
        """
        record = self.record
        identity = {
            path: value
            for path, value in flatten(record.recipe, "recipe").items()
            if path not in NOT_IN_IDENTITY
            and not path.startswith(("recipe.evaluators", "recipe.eval_data", "recipe.initial"))
        }
        for name, before in ADDED_SETTINGS.items():  # records made before these settings existed lack them
            if identity.get(path := f"recipe.backbone.settings.{name}") in before:
                identity.pop(path, None)
        initial = record.recipe.get("initial")
        identity["initial"] = InitialWeights.model_validate(initial).words if initial else None
        identity["data.fingerprint"] = record.data.fingerprint
        identity["method_plugin"] = _distribution(record.method_plugin)
        identity["backbone.plugin"] = _distribution(record.backbone.plugin)
        identity[PRECISION] = record.machine.precision
        return identity

    @cached_property
    def identity_digest(self) -> str:
        """The same for equal identities."""
        return hashlib.sha256(canonical(self.identity()).encode()).hexdigest()

    @cached_property
    def evaluations(self) -> tuple[EvaluationRecord, ...]:
        """By the time at which they were made, in an order that does not depend on the record's."""
        found = self.record.evaluations
        return tuple(_in_order(found, [(one.made_utc, one.evaluator, one.subject, one.data) for one in found], found))


@dataclass(frozen=True)
class Run:
    """A record as a run of a table."""

    facts: RecordFacts
    distinguish: tuple[str, ...]
    """Paths of what the table says two rows differ in, beyond their identity."""
    match: Match | None
    """The variant of the table that it is."""

    @property
    def record(self) -> RunRecord:
        """The record itself."""
        return self.facts.record

    @property
    def evaluations(self) -> tuple[EvaluationRecord, ...]:
        """In the order in which they were made."""
        return self.facts.evaluations

    @cached_property
    def values(self) -> dict[str, Any]:
        """What paths lead into: the record's parts, and the texts of its variant."""
        return {**vars(self.record), VARIANT: self.match.candidate.texts if self.match else {}}

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What must agree for two runs to be averaged in this table: path -> value."""
        return {**self.facts.identity(), **{path: look_up(self.values, path) for path in self.distinguish}}


@dataclass
class Group:
    """The runs of one row."""

    keys: tuple[Any, ...]
    runs: list[Run]
    repeated: list[Run] = field(default_factory=list)
    """Earlier runs of a seed that was run again; they count only for what the later one was not evaluated for."""
    settings: str = ""
    """What tells the row from others, and what it changes of its preset."""
    distinguished: tuple[str, ...] = ()
    """Those of these words that the description's `distinguish` names."""

    @property
    def place(self) -> int:
        """The place of its variant in the table."""
        return self.first.match.candidate.position if self.first.match else 0

    @property
    def first(self) -> Run:
        """Any of the runs: they agree in all but the seed."""
        return self.runs[0]

    def earlier(self, run: Run) -> list[Run]:
        """The finished runs of its seed that it took the place of, the latest first."""
        same = [one for one in self.repeated if one.record.seed == run.record.seed and one.record.status == "finished"]
        return same[::-1]

    def with_status(self, status: str) -> list[Run]:
        """The runs that ended so."""
        return [run for run in self.runs if run.record.status == status]


def _in_order(items: Sequence[Item], keys: Sequence[Any], contents: Sequence[BaseModel]) -> list[Item]:
    """Items sorted by their keys, those of one key by all that they hold: in whatever order they come."""
    counts = Counter(keys)
    order = [
        (key, content.model_dump_json() if counts[key] > 1 else "") for key, content in zip(keys, contents, strict=True)
    ]
    return [items[place] for place in sorted(range(len(items)), key=order.__getitem__)]


def as_runs(
    description: TableDescription, records: Iterable[RunRecord | RecordFacts], *, of_no_variant: bool = False
) -> Iterator[Run]:
    """The records that can count, each with its variant; with `of_no_variant` all of them."""
    matcher = Matcher(description.runs) if description.runs and description.of_variants else None
    distinguish = tuple(key.path for key in description.distinguish)
    for one in records:
        facts = one if isinstance(one, RecordFacts) else RecordFacts(one)
        match = matcher.find(facts.record, facts.changes) if matcher else None
        if match or of_no_variant or not matcher:
            yield Run(facts, distinguish, match)


def wanted(run: Run, conditions: Mapping[str, Any]) -> bool:
    """Whether a run has, under every dotted path, one of the values that `filter` allows."""
    for path, allowed in conditions.items():
        value = look_up(run.values, path)
        if not any(_same(value, choice) for choice in (allowed if isinstance(allowed, tuple) else (allowed,))):
            return False
    return True


def group(keys: tuple[Key, ...], runs: Sequence[Run]) -> list[Group]:
    """Runs by row keys and identity. Of two runs of one seed the one that ended later counts."""
    found: dict[str, Group] = {}
    ended = [(run.record.finished_utc, run.record.run_id) for run in runs]
    for run in _in_order(runs, ended, [run.record for run in runs]):
        values = tuple(_key_value(key, run) for key in keys)
        distinguished = {path: look_up(run.values, path) for path in run.distinguish}
        same = canonical([values, distinguished, run.facts.identity_digest])
        members = found.setdefault(same, Group(values, []))
        for earlier in [other for other in members.runs if other.record.seed == run.record.seed]:
            members.runs.remove(earlier)
            members.repeated.append(earlier)
        members.runs.append(run)
    return list(found.values())


def canonical(value: Any) -> str:
    """One text for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True)


def natural(value: Any) -> tuple[int, float, str]:
    """Sort key: numbers by size, then texts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, plain_text(value))


def _key_value(key: Key, run: Run) -> Any:
    if key.path == "data.name":
        return data_title(run.record.data.name, run.record.data.synthetic)
    return look_up(run.values, key.path)


def _distribution(plugin: str) -> str:
    """Without the version: two distributions' plugins of one name are two methods, two versions are a footnote."""
    return plugin.rpartition(" ")[0] or plugin


def _same(value: Any, choice: Any) -> bool:
    return isinstance(value, bool) == isinstance(choice, bool) and bool(value == choice)
