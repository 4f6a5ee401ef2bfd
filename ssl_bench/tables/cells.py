"""The values of a row: numbers of the same conditions, averaged over seeds; of several, on lines of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssl_bench.measurement import Protocol
from ssl_bench.records.outcomes import OutcomesSource, no_outcomes
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.description import Column, Source, parse_source
from ssl_bench.tables.grouping import Group, Run
from ssl_bench.tables.intervals import interval_of, items_of
from ssl_bench.tables.numbers import Number
from ssl_bench.tables.paths import fill_in, look_up
from ssl_bench.tables.table import ANY_CONDITIONS, Cell, Conditions, Statistic, TableData

ByConditions = dict[Conditions, list[Number]]
"""Conditions -> the value of each run that has one."""
Line = tuple[TableData | None, tuple[Cell, ...]]
"""What it was evaluated on, None for the data of the block, and its cells."""


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and sample standard deviation; `fsum` makes them independent of the order.

    >>> statistic([1.0, 3.0])
    Statistic(mean=2.0, std=1.4142135623730951, n=2)
    """
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Statistic(mean, None, 1)
    return Statistic(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)), len(values))


def lines_of(
    columns: Sequence[Column],
    group: Group,
    block: TableData,
    outcomes: OutcomesSource = no_outcomes,
    *,
    elsewhere: bool = True,
) -> list[Line]:
    """The cells of a group: one line, and a further one for all further conditions its numbers were measured under.

    Numbers of different data never share a line. Those on other data than the block's count where a column says
    "any", and never without `elsewhere`.
    """
    view = View(block, elsewhere)
    values = [_values(column, column.path, group, view) for column in columns]
    baselines = [_values(column, column.baseline, group, view) if column.baseline else {} for column in columns]
    conditions = _conditions(columns, values, baselines)
    places = {
        one.evaluated_on for column, found in zip(columns, conditions, strict=True) if column.source for one in found
    }
    lines: list[Line] = []
    for place in sorted(places or {None}, key=_place_order):
        found_there = [
            [one for one in found if one.evaluated_on == place] if column.source else found
            for column, found in zip(columns, conditions, strict=True)
        ]
        for number in range(max(1, *(len(found) for found in found_there))):
            cells = []
            for column, value, baseline, found in zip(columns, values, baselines, found_there, strict=True):
                if number < len(found) or found == [ANY_CONDITIONS]:  # what holds under any holds on every line
                    one = found[min(number, len(found) - 1)]
                    cells.append(_cell(column, value.get(one, []), baseline.get(one, []), one, group, outcomes))
                else:
                    cells.append(Cell() if lines else _cell(column, [], [], ANY_CONDITIONS, group, outcomes))
            lines.append((place, tuple(cells)))
    return lines


class View(NamedTuple):
    """Which evaluations a block shows."""

    block: TableData
    elsewhere: bool

    def place(self, evaluation: EvaluationRecord) -> TableData | None:
        """What an evaluation is on, None for the data of the block."""
        same = evaluation.data_fingerprint == self.block.fingerprint
        return None if same else TableData.measured_on(evaluation)


def _place_order(place: TableData | None) -> tuple[str, str]:
    return (place.title, place.fingerprint) if place else ("", "")


def _conditions(
    columns: Sequence[Column], values: list[ByConditions], baselines: list[ByConditions]
) -> list[list[Conditions]]:
    """Per column the conditions found, most values first; columns of one evaluator and metric share the order."""
    counts: dict[Any, dict[Conditions, int]] = {}
    names: list[Any] = []
    for column, value, baseline in zip(columns, values, baselines, strict=True):
        source = column.source
        names.append((source.evaluator, source.metric) if source else column.id)
        counted = counts.setdefault(names[-1], {})
        for one in {**value, **baseline}:
            counted[one] = counted.get(one, 0) + len(value.get(one, []))
    return [sorted(counts[name], key=lambda one: (-counts[name][one], one.text)) for name in names]


def _values(column: Column, path: str, group: Group, view: View) -> ByConditions:
    """What each run has for a column; of a seed that was run again, what only the earlier run was evaluated for."""
    found: ByConditions = {}
    source = parse_source(path)
    for run in group.runs if column.any_status else group.with_status("finished"):
        if source is not None:
            numbers = measured(run, column, source, view)
            earlier = iter(group.earlier(run))
            while not numbers and (before := next(earlier, None)):
                numbers = measured(before, column, source, view)
        else:
            value = look_up(run.values, path)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            number = number and not (column.evidence and look_up(run.values, column.evidence) is None)
            conditions = Conditions(Protocol(text=fill_in(column.protocol, run.values)))
            numbers = {conditions: Number(value * column.scale)} if number else {}
        for conditions, one in numbers.items():
            found.setdefault(conditions, []).append(one)
    return found


def measured(run: Run, column: Column, source: Source, view: View) -> dict[Conditions, Number]:
    """Conditions -> value over one run's evaluations; of two under the same conditions, the later.

    A run of no steps, e.g. of the method `random`, has only an untrained network: its value, with no baseline.
    """
    training = run.record.training
    if training is not None and training.steps == 0:
        source = source._replace(subject="untrained" if source.subject == "trained" else "none")
    found: dict[Conditions, Number] = {}
    for evaluation in run.evaluations:
        subject = "untrained" if evaluation.before_training else "trained"  # a column's words for before and after
        if evaluation.evaluator != source.evaluator or subject != source.subject:
            continue
        place = view.place(evaluation)
        if place is not None and not (view.elsewhere and column.evaluated_on == "any"):
            continue
        for measurement in evaluation.measurements:
            if measurement.metric == source.metric or (source.metric == "primary" and measurement.primary):
                unit = measurement.unit if column.unit and measurement.unit != column.unit else None
                conditions = Conditions(measurement.protocol, unit, place, measurement.higher_is_better)
                value = measurement.value * column.scale
                found[conditions] = Number(value, column.scale, run.record, evaluation, measurement)
    return found


def _cell(
    column: Column,
    numbers: list[Number],
    before: list[Number],
    conditions: Conditions,
    group: Group,
    outcomes: OutcomesSource,
) -> Cell:
    if not column.any_status and not group.with_status("finished"):
        return Cell(word=" and ".join(sorted({run.record.status for run in group.runs})))
    if not all(math.isfinite(one.value) for one in (*numbers, *before)):
        return Cell(word="not finite", conditions=conditions)
    return Cell(
        value=statistic([one.value for one in numbers]) if numbers else None,
        baseline=statistic([one.value for one in before]) if before else None,
        conditions=conditions,
        interval=interval_of(numbers, outcomes) if numbers else None,
        baseline_interval=interval_of(before, outcomes) if before else None,
        items=items_of(numbers or before),
        numbers=tuple(numbers),
        baseline_numbers=tuple(before),
    )
