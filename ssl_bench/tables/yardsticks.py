"""What the rows of a table are measured against where no row says it: raw pixels below, supervised training above."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ssl_bench.records.record import RunRecord
from ssl_bench.tables.cells import View, measured, statistic
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.grouping import RecordFacts, Run
from ssl_bench.tables.table import Row, TableData

RAW_PIXELS = "pixels"
SUPERVISED = "supervised"
MAY_CHANGE = ("backbone.", "training.seed", "training.eval_every", "training.precision", "data.")
"""What a supervised run may change of its preset: the network, the data, and what decides a result only by chance."""


def yardsticks(
    description: TableDescription,
    rows: Sequence[Row],
    shown: Sequence[RunRecord],
    facts: Iterable[RecordFacts],
    block: TableData,
) -> list[str]:
    """A note with the figures of raw pixels and of supervised training of the rows' networks, measured as the rows are.

    `shown` are the rows' records, `facts` all there are. What is a row itself is not repeated.
    """
    runs, methods = {one.run_id for one in shown}, {one.method for one in shown}
    networks = {(one.backbone.name, one.backbone.parameters) for one in shown}
    named = [(name, one) for one in facts if (name := _name(one.record, methods, networks))]
    found: dict[str, dict[str, dict[int, float]]] = {}
    for name, one in sorted(named, key=lambda pair: pair[1].record.finished_utc):  # of a seed run again, the later
        if one.record.run_id in runs:
            continue
        for place, column in enumerate(description.column):
            if column.source is not None and column.unit:
                numbers = measured(Run(one, (), None), column, column.source, View(block, elsewhere=False))
                for conditions in {row.cells[place].conditions for row in rows} & numbers.keys():
                    figures = found.setdefault(name, {}).setdefault(column.title, {})
                    figures[one.record.seed] = numbers[conditions].value
    texts = []
    for name in sorted(found):
        told = []
        for column in description.column:
            if values := [*found[name].get(column.title, {}).values()]:
                seeds = f" ({len(values)} seeds)" if len(values) > 1 else ""
                told.append(f"{column.title} {statistic(values).mean:.{column.decimals}f}{seeds}")
        texts.append(f"{name}: {', '.join(told)}")
    return [f"to compare with, on the same data: {'; '.join(texts)}"] if texts else []


def _name(record: RunRecord, methods: Collection[str], networks: Collection[tuple[str, int]]) -> str:
    """Which yardstick a run is of rows with these methods and networks (name, parameters); "" for none."""
    if record.status != "finished":
        return ""
    if record.backbone.name == RAW_PIXELS:
        return "raw pixels" if all(name != RAW_PIXELS for name, _ in networks) else ""
    if record.method != SUPERVISED or SUPERVISED in methods:
        return ""
    changed = record.changed_settings
    plain = changed is not None and all(name.startswith(MAY_CHANGE) for name in changed)
    same = (record.backbone.name, record.backbone.parameters) in networks
    return "supervised training of the same network" if plain and same else ""
