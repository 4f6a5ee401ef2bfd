"""Which of the runs that could fill a row fill it, and what a note says of the others.

Variants compare where their base is the same (`matching`), and a study of one base stands beside a study of another. A
run of today's preset comes before one that was made with an earlier version of it. In a table that is not
of variants, e.g. the comparison of methods, a method stands for itself: runs with other settings of the method are
rows of other tables wherever one without them is at hand.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_bench.records.renamed_settings import ADDED_SETTINGS
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.grouping import Run, canonical
from ssl_bench.tables.matching import Base, Matcher, most_covered
from ssl_bench.tables.paths import plain_text
from ssl_bench.tables.todays_preset import EPOCHS, recorded_setting

OF_THE_METHOD = ("method.", "optimizer.", "training.batch_size")
"""Beginnings of settings that make a run another one of its method."""
MOST_NAMED = 6
"""Runs or settings that one note names."""


class Chosen(NamedTuple):
    """The runs that fill a block's rows."""

    runs: list[Run]
    notes: list[str]
    """What was left out, and why."""


def choose(description: TableDescription, runs: Sequence[Run]) -> Chosen:
    """The runs of a block that its rows are of; all of them for a table that does not say which runs it needs."""
    if description.runs is None:
        return Chosen(list(runs), [])
    chosen = _of_one_base(runs) if description.of_variants else _at_their_method(runs, Matcher(description.runs))
    newest = _of_todays_preset(chosen.runs)
    return Chosen(newest.runs, [*newest.notes, *chosen.notes])


def _of_one_base(runs: Sequence[Run]) -> Chosen:
    """The runs whose base many variants share; a base with one row is no study where no change is needed for it."""
    bases: dict[Base, set[int]] = {}
    for run in runs:
        if run.match:
            bases.setdefault(run.match.base, set()).add(run.match.candidate.position)
    kept = most_covered(bases)
    if () in kept:
        kept = {base for base in kept if not base or len(bases[base]) > 1 or bases[base] - bases[()]}
    left_out = [run for run in runs if run.match and run.match.base not in kept]
    if not left_out:
        return Chosen(list(runs), [])
    words = dict.fromkeys(text for run in left_out for text in _settings(run, _base_names(run)))
    several = "runs that differ" if len(left_out) > 1 else "run that differs"
    note = f"left out: {len(left_out)} {several} from these in further settings ({_listed(words)})"
    return Chosen([run for run in runs if run not in left_out], [note])


def _at_their_method(runs: Sequence[Run], matcher: Matcher) -> Chosen:
    """The runs with the method's own settings; others where there is none on this network and data."""
    places: dict[Hashable, list[Run]] = {}
    for run in runs:
        places.setdefault(_place(run), []).append(run)
    beside: list[Run] = []
    for members in places.values():
        changed = [run for run in members if _changes_the_method(run, matcher)]
        beside += changed if len(changed) < len(members) else []
    words: dict[str, dict[str, None]] = {}
    for run in beside:
        name = f"{run.record.method} on {run.record.backbone.name}"
        words.setdefault(name, {}).update(dict.fromkeys(_settings(run, _of_the_method(run))))
    notes = [f"{name} with other settings is no row of this table: {_listed(found)}" for name, found in words.items()]
    return Chosen([run for run in runs if run not in beside], notes)


def _of_todays_preset(runs: Sequence[Run]) -> Chosen:
    """Of the runs of one row those that differ least from today's preset in what nobody set."""
    rows: dict[Hashable, list[Run]] = {}
    for run in runs:
        rows.setdefault(_row(run), []).append(run)
    earlier: list[Run] = []
    for members in rows.values():
        fewest = min(len(_older(run)) for run in members)
        earlier += [run for run in members if len(_older(run)) > fewest]
    if not earlier:
        return Chosen(list(runs), [])
    named = dict.fromkeys(f"{run.record.run_id} ({_listed(_settings(run, _older(run)))})" for run in earlier)
    note = f"left out, as the presets have changed since and newer runs are there: {_listed(named)}"
    return Chosen([run for run in runs if run not in earlier], [note])


def _place(run: Run) -> Hashable:
    """Method, network and data of a run, with what was set of them by hand."""
    record = run.record
    by_hand = [name for name in _beside_the_network(run) if name != EPOCHS and name not in _of_the_method(run)]
    network = {
        name: value
        for name, value in record.recipe.get("backbone", {}).get("settings", {}).items()
        if value is not None and name not in ADDED_SETTINGS
    }
    weights = record.weights or record.features
    return (
        *(record.method, record.backbone.name, record.preset, record.data.fingerprint),
        canonical([network, _values(run, by_hand)]),
        record.run_id if weights else record.recipe.get("initial") is not None,
    )


def _row(run: Run) -> Hashable:
    """What the description of a run says: two runs of one row may differ in what the preset was."""
    if run.match is not None:
        return run.match.candidate.position, run.match.base, run.record.data.fingerprint
    return _place(run), canonical(_values(run, _beside_the_network(run)))


def _beside_the_network(run: Run) -> list[str]:
    """What was set by hand and is no setting of the backbone that every record of such a network has."""
    added = {f"backbone.{name}" for name in ADDED_SETTINGS}
    return [name for name in run.facts.changes.by_hand if not name.startswith("backbone.") or name in added]


def _base_names(run: Run) -> list[str]:
    return [name for name, _ in run.match.base] if run.match else []


def _older(run: Run) -> frozenset[str]:
    return run.match.older if run.match is not None else run.facts.changes.older


def _of_the_method(run: Run) -> list[str]:
    return [name for name in run.facts.changes.by_hand if name.startswith(OF_THE_METHOD)]


def _changes_the_method(run: Run, matcher: Matcher) -> bool:
    """Whether a run sets what neither its preset nor the table's row in any size does."""
    if not _of_the_method(run):
        return False
    match = matcher.find(run.record, run.facts.changes)
    return match is None or any(name.startswith(OF_THE_METHOD) for name, _ in match.base)


def _values(run: Run, names: Iterable[str]) -> Mapping[str, Any]:
    return {name: recorded_setting(run.record.recipe, name) for name in names}


def _settings(run: Run, names: Iterable[str]) -> list[str]:
    """E.g. `method.local_views=0`, in the order of their names."""
    values = sorted(_values(run, names).items())
    return [f"{name}={_text(value)}" for name, value in values]


def _text(value: Any) -> str:
    return f"[{plain_text(value)}]" if isinstance(value, list | tuple) else plain_text(value) or "none"


def _listed(words: Iterable[str]) -> str:
    known = list(words)
    more = len(known) - MOST_NAMED
    return ", ".join(known[:MOST_NAMED]) + f" and {more} more" * (more > 0)
