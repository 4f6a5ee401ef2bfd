"""Where each number comes from: the runs behind every row of a table, and what the record of each run says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.measurement import Measurement
from ssl_bench.records.beside import changed_files
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.record import UNSEALED_SCHEMA, EvaluationRecord, RunRecord
from ssl_bench.tables.explain import CellEvidence, RowEvidence
from ssl_bench.tables.render import cell_text, column_title
from ssl_bench.tables.table import TableData

MOST_RECIPES = 200
"""Runs whose whole recipes stand in the page; of more, recipe.toml beside each record has it."""


@dataclass(frozen=True)
class EvaluationView:
    """What one evaluator measured under one protocol."""

    title: str
    """Evaluator, network, data, and when it was made by what."""
    protocol: str
    numbers: tuple[tuple[str, ...], ...]
    """(metric, value with unit, 95 % interval, n) of each."""


@dataclass(frozen=True)
class RunView:
    """A run's record."""

    id: str
    anchor: str
    title: str
    status: str
    facts: tuple[tuple[str, str], ...]
    changed: tuple[str, ...]
    """A line for each file beside it that is not the one that the record names."""
    notes: tuple[str, ...]
    """What else a reader must know, e.g. that the record has no fingerprint."""
    evaluations: tuple[EvaluationView, ...]
    recipe: str
    """As a file for `sslbench run --recipe`; empty for weights from elsewhere, and in a page of many runs."""


@dataclass(frozen=True)
class RunSource:
    """What one run gives to a number."""

    id: str
    anchor: str
    seed: int
    status: str
    value: str
    """Before and after training."""


@dataclass(frozen=True)
class CellSources:
    """A number of a table with the runs that it is the mean of."""

    title: str
    text: str
    protocol: str
    items: str
    runs: tuple[RunSource, ...]


@dataclass(frozen=True)
class RowSources:
    """A row of a table with the runs behind each of its numbers."""

    anchor: str
    name: str
    heading: str
    cells: tuple[CellSources, ...]


def run_anchor(run_id: str) -> str:
    """The place of a run in the page: its id, or where that cannot name a place, one with a digest."""
    plain = re.sub(r"[^\w.-]", "_", run_id)
    return f"run-{plain}" if plain == run_id else f"run-{plain}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def row_anchor(table_id: str, number: int) -> str:
    """The place where the runs behind a row stand; rows are counted from 1."""
    return f"from-{table_id}-{number}"


def row_sources(table_id: str, row: RowEvidence) -> RowSources:
    """A row's numbers with their runs."""
    cells = tuple(_cell_sources(row, one) for one in row.cells)
    return RowSources(row_anchor(table_id, row.number), row.name, row.heading, cells)


def run_view(record: RunRecord, path: Path, *, with_recipe: bool) -> RunView:
    """What the page says of the record at `path`."""
    data = TableData.trained_on(record)
    return RunView(
        id=record.run_id,
        anchor=run_anchor(record.run_id),
        title=f"{record.method} on {record.backbone.name}, {data.title}, seed {record.seed}",
        status=record.status,
        facts=tuple((name, text) for name, text in _facts(record, path) if text),
        changed=tuple(changed_files(record, path.parent)),
        notes=tuple(_notes(record)),
        evaluations=tuple(view for one in record.evaluations for view in _evaluation_views(one)),
        recipe=_recipe_text(record) if with_recipe else "",
    )


def _cell_sources(row: RowEvidence, one: CellEvidence) -> CellSources:
    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:,.{one.column.decimals + 2}f}"

    runs = []
    for run in one.runs:
        before = f"{number(run.baseline)} → " if run.baseline is not None else ""
        value = before + number(run.value)
        runs.append(RunSource(run.run_id, run_anchor(run.run_id), run.seed, run.status, value))
    items = "" if one.test_items is None else f"{one.test_items:,} test items behind each value"
    text = cell_text(one.column, one.cell, row.finished)
    return CellSources(column_title(one.column), text, one.cell.conditions.text, items, tuple(runs))


def _facts(record: RunRecord, path: Path) -> Iterable[tuple[str, str]]:
    machine = record.machine
    yield "status", record.status + (f": {record.status_reason}" if record.status_reason else "")
    yield "command", record.command
    yield "commit", record.git_commit or "not recorded"
    yield "digest of recipe and data", record.digest
    yield "record", f"{path}, schema {record.schema_version}"
    changed = ", ".join(f"{name} = {value}" for name, value in (record.changed_settings or {}).items())
    yield "preset", record.preset + (f", changed: {changed}" if changed else "")
    yield "plugins", ", ".join(dict.fromkeys((record.method_plugin, record.backbone.plugin, record.data.plugin)))
    yield "data", f"{record.data.name}, fingerprint {record.data.fingerprint}"
    yield "started from", record.backbone.pretrained
    if record.training:
        yield "training", f"{record.training.steps:,} steps, {record.training.epochs:g} epochs"
    yield "machine", machine_text(record)
    yield "precision", f"{machine.precision} ({machine.precision_reason})" if machine.precision else ""
    yield "when", f"{record.started_utc} to {record.finished_utc}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())


def machine_text(record: RunRecord) -> str:
    """Device, threads and platform."""
    machine = record.machine
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    return f"{machine.device}, {threads} of {machine.cores}, {machine.platform}"


def _notes(record: RunRecord) -> Iterable[str]:
    if record.schema_version <= UNSEALED_SCHEMA:
        yield "its record is of the first schema, which has no fingerprint: an edit by hand would not be noticed"
    elif unsealed := sum(one.schema_version <= UNSEALED_SCHEMA for one in record.evaluations):
        yield f"evaluations without a fingerprint, whose edit by hand would not be noticed: {unsealed}"
    yield from dict.fromkeys([*record.notes, *(note for one in record.evaluations for note in one.notes)])
    for note in (record.backbone.inference_note, record.training.timing_note if record.training else ""):
        yield from [note] if note else []


def _evaluation_views(evaluation: EvaluationRecord) -> Iterable[EvaluationView]:
    by_protocol: dict[str, list[Measurement]] = {}
    for one in evaluation.measurements:
        by_protocol.setdefault(one.protocol.text, []).append(one)
    network = f"{evaluation.subject} network" + (f" ({evaluation.network})" if evaluation.network else "")
    title = f"{evaluation.evaluator}, {network}, on {evaluation.data}, {evaluation.made_utc}, {evaluation.plugin}"
    for protocol, numbers in by_protocol.items():
        yield EvaluationView(title, protocol, tuple(map(_number, numbers)))


def _number(one: Measurement) -> tuple[str, ...]:
    ends = f"{one.interval[0]:,.2f} to {one.interval[1]:,.2f}" if one.interval else ""
    value = f"{one.value:,.4g}" if abs(one.value) < 1 else f"{one.value:,.2f}"
    return f"{one.metric}{' (main)' if one.primary else ''}", f"{value} {one.unit_text}".strip(), ends, f"{one.n:,}"


def _recipe_text(record: RunRecord) -> str:
    return "" if "weights" in record.recipe else Recipe.model_validate(record.recipe).to_toml(record.preset)
