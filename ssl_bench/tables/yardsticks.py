"""What the rows of a table are measured against where no row says it: raw pixels below, supervised training above."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    found: dict[str, dict[str, dict[int, float]]] = {}
    for one in sorted(facts, key=lambda one: one.record.finished_utc):  # of a seed that was run again, the later
        name = _name(one.record, shown)
        for place, column in enumerate(description.column) if name else ():
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


def _name(record: RunRecord, shown: Sequence[RunRecord]) -> str:
    """Which yardstick of these rows a run is; "" for none."""
    if record.status != "finished" or any(one.run_id == record.run_id for one in shown):
        return ""
    networks = {(one.backbone.name, one.backbone.parameters) for one in shown}
    if record.backbone.name == RAW_PIXELS:
        return "raw pixels" if RAW_PIXELS not in {name for name, _ in networks} else ""
    changed = record.changed_settings
    plain = changed is not None and all(name.startswith(MAY_CHANGE) for name in changed)
    if record.method != SUPERVISED or SUPERVISED in {one.method for one in shown} or not plain:
        return ""
    same = (record.backbone.name, record.backbone.parameters) in networks
    return "supervised training of the same network" if same else ""
