"""The values of a row: numbers of one protocol, averaged over seeds; of several protocols, on lines of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ssl_bench.records.record import RunRecord
from ssl_bench.tables.description import Column, Source, parse_source
from ssl_bench.tables.grouping import Group
from ssl_bench.tables.paths import fill_in, look_up
from ssl_bench.tables.table import Cell, Statistic, data_title

ELSEWHERE = "; evaluated on "
ByProtocol = dict[str, list[float]]
"""Protocol -> the value of each run that has one."""


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and sample standard deviation; `fsum` makes them independent of the order.

    >>> statistic([1.0, 3.0])
    Statistic(mean=2.0, std=1.4142135623730951, n=2)
    """
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Statistic(mean, None, 1)
    return Statistic(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)), len(values))


def lines_of(columns: Sequence[Column], group: Group) -> list[tuple[str, tuple[Cell, ...]]]:
    """The cells of a group: one line, and a further one for every further protocol its numbers were measured under.

    Numbers of different data never share a line. Each line comes with the data it was evaluated on, "" for the
    training data's.
    """
    values = [_values(column, column.path, group) for column in columns]
    baselines = [_values(column, column.baseline, group) if column.baseline else {} for column in columns]
    protocols = _protocols(columns, values, baselines)
    measured = [(column.source is not None, met) for column, met in zip(columns, protocols, strict=True)]
    places = {_place(protocol) for judged, met in measured if judged for protocol in met} or {""}
    lines: list[tuple[str, tuple[Cell, ...]]] = []
    for place in sorted(places):
        own = [[p for p in met if _place(p) == place] if judged else met for judged, met in measured]
        for line in range(max(1, *(len(met) for met in own))):
            cells = []
            for column, here, before, met in zip(columns, values, baselines, own, strict=True):
                if line < len(met) or met == [""]:  # what has no protocol holds on every line
                    protocol = met[min(line, len(met) - 1)]
                    cells.append(_cell(column, here.get(protocol, []), before.get(protocol, []), protocol, group))
                else:
                    cells.append(_cell(column, [], [], "", group) if not lines else Cell())
            lines.append((place.partition(", fingerprint ")[0], tuple(cells)))
    return lines


def _place(protocol: str) -> str:
    """The data that a protocol's numbers were evaluated on, with its fingerprint; "" for the training data."""
    return protocol.partition(ELSEWHERE)[2]


def _protocols(columns: Sequence[Column], values: list[ByProtocol], baselines: list[ByProtocol]) -> list[list[str]]:
    """Per column the protocols met, most values first; columns of one evaluator and metric share the order."""
    counts: dict[Any, dict[str, int]] = {}
    names: list[Any] = []
    for column, here, before in zip(columns, values, baselines, strict=True):
        source = column.source
        names.append((source.evaluator, source.metric) if source else column.id)
        own = counts.setdefault(names[-1], {})
        for protocol in {*here, *before}:
            own[protocol] = own.get(protocol, 0) + len(here.get(protocol, []))
    return [[protocol for protocol, _ in sorted(counts[n].items(), key=lambda met: (-met[1], met[0]))] for n in names]


def _values(column: Column, path: str, group: Group) -> ByProtocol:
    found: ByProtocol = {}
    source = parse_source(path)
    for run in group.runs if column.any_status else group.with_status("finished"):
        if source is not None:
            measured = _measured(run.record, column, source)
        else:
            value = look_up(run.plain, path)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            number = number and not (column.evidence and look_up(run.plain, column.evidence) is None)
            measured = {fill_in(column.protocol, run.plain): value} if number else {}
        for protocol, value in measured.items():
            found.setdefault(protocol, []).append(value * column.scale)
    return found


def _measured(record: RunRecord, column: Column, source: Source) -> dict[str, float]:
    """Protocol -> value over one run's evaluations; of two under one protocol, the later.

    A run of no steps, e.g. of the method `random`, has only an untrained network: its value, with no baseline.
    """
    if record.training.steps == 0:
        source = source._replace(subject="untrained" if source.subject == "trained" else "none")
    found: dict[str, float] = {}
    for evaluation in sorted(record.evaluations, key=lambda e: (e.made_utc, e.model_dump_json())):
        subject = "untrained" if evaluation.before_training else "trained"  # a column's words for before and after
        if evaluation.evaluator != source.evaluator or subject != source.subject:
            continue
        elsewhere = evaluation.data_fingerprint != record.data.fingerprint
        if elsewhere and column.evaluated_on == "training-data":
            continue
        for measurement in evaluation.measurements:
            if measurement.metric == source.metric or (source.metric == "primary" and measurement.primary):
                protocol = measurement.protocol
                if column.unit and measurement.unit != column.unit:
                    protocol += f" [in {measurement.unit or 'no unit'}]"
                if elsewhere:
                    protocol += f"{ELSEWHERE}{data_title(evaluation.data, evaluation.synthetic)}"
                    protocol += f", fingerprint {evaluation.data_fingerprint[:8]}"
                found[protocol] = measurement.value
    return found


def _cell(column: Column, values: list[float], before: list[float], protocol: str, group: Group) -> Cell:
    if not column.any_status and not group.with_status("finished"):
        return Cell(word=" and ".join(sorted({run.record.status for run in group.runs})))
    if not all(math.isfinite(value) for value in (*values, *before)):
        return Cell(word="not finite", protocol=protocol)
    return Cell(
        value=statistic(values) if values else None,
        baseline=statistic(before) if before else None,
        protocol=protocol,
    )
