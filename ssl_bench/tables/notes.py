"""The notes below a table: what a reader of its numbers must know of the runs and of the figures behind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ssl_bench.records.record import UNSEALED_SCHEMA, DataRecord
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.grouping import Group
from ssl_bench.tables.intervals import HOW
from ssl_bench.tables.paths import look_up
from ssl_bench.tables.table import Row

TOP_1 = "top1"
"""How the names of top-1 accuracies begin."""


def chance(description: TableDescription, rows: Sequence[Row], known: Mapping[str, DataRecord]) -> list[str]:
    """What guessing scores, for each number of classes: the floor of an accuracy."""
    titles: dict[int, dict[str, None]] = {}
    for row in rows:
        data = known.get(row.evaluated_on.fingerprint)
        for column, cell in zip(description.column, row.cells, strict=True):
            metrics = {one.measurement.metric for one in cell.numbers if one.measurement}
            if data and data.classes and any(metric.startswith(TOP_1) for metric in metrics):
                titles.setdefault(data.classes, {})[column.title] = None
    return [
        f"chance: {100 / classes:.3g} % of top-1 ({', '.join(named)}), guessing among {classes:,} classes"
        for classes, named in titles.items()
    ]


def certainty(description: TableDescription, rows: Sequence[Row]) -> list[str]:
    """What the intervals are over, and what the mark of the best says."""
    cells = [cell for row in rows for cell in row.cells]
    found = {one.how for cell in cells for one in (cell.interval, cell.baseline_interval) if one}
    notes = []
    if found:
        notes.append(f"in parentheses: 95 % intervals, {'; '.join(text for how, text in HOW.items() if how in found)}")
    if any(cell.best for cell in cells):
        without = f"; not ranked: {', '.join(description.references)}" if any(row.reference for row in rows) else ""
        notes.append(
            "marked: the best of a column and all that the 95 % interval of their difference does not tell from it, "
            f"paired by test items where both have outcomes{without}"
        )
    return notes


def about_runs(description: TableDescription, rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
    """Of the runs in the rows: why cells are empty, what they differ in beside the keys, and which runs are missing."""
    shown = {run_id for row in rows for run_id in row.runs}
    return [
        *_left_out(description, groups),
        *_unmeasured(description, rows, groups),
        *_precisions(groups),
        *(note for one in groups for note in _of_group(one, shown)),
        *_unsealed(groups),
        *_not_run(description, groups),
    ]


def _left_out(description: TableDescription, groups: Sequence[Group]) -> list[str]:
    """Why cells are empty that a record explains, in one note per column; of several runs only the common part."""
    notes = []
    for column in description.column:
        reasons: dict[str, list[tuple[str, str]]] = {}
        for run in (run for one in groups for run in one.runs) if column.why_empty else ():
            reason = look_up(run.values, column.why_empty)
            if look_up(run.values, column.path) is None and isinstance(reason, str) and reason:
                reasons.setdefault(reason.partition(":")[0], []).append((run.record.run_id, reason))
        explained = [
            f"{len(runs)} runs: {common}" if len(runs) > 1 else ": ".join(runs[0]) for common, runs in reasons.items()
        ]
        more = "; their records say more" if any(len(runs) > 1 for runs in reasons.values()) else ""
        if explained:
            notes.append(f"{column.title} of {'; of '.join(explained)}{more}")
    return notes


def _unmeasured(description: TableDescription, rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
    """Why columns are empty as a whole: none of the finished runs was evaluated by what measures them."""
    finished = [run for one in groups for run in one.with_status("finished")]
    empty: dict[str, list[str]] = {}
    for index, column in enumerate(description.column):
        cells = [row.cells[index] for row in rows]
        if column.source and finished and not any(cell.value or cell.baseline or cell.word for cell in cells):
            empty.setdefault(column.source.evaluator, []).append(column.title)
    place = rows[0].evaluated_on.fingerprint if rows and description.data == "evaluation" else None
    measured = [one for run in finished for one in run.evaluations if place in (None, one.data_fingerprint)]
    by = ", ".join(sorted({one.evaluator for one in measured})) or "nothing"
    where = f" on {rows[0].evaluated_on.title}" if place else ""
    return [
        f"{', '.join(titles)}: empty, since these runs were evaluated by {by}{where}, not by {name}. To add it: "
        f"sslbench eval RUN --with {name}"
        for name, titles in empty.items()
        if all(one.evaluator != name for one in measured)
    ]


def _precisions(groups: Sequence[Group]) -> list[str]:
    """A note where a comparison mixes precisions: with "auto" a measurement decided, not the user."""
    trained = [run.record for group in groups for run in group.runs if run.record.steps]
    precisions = sorted({record.machine.precision for record in trained})
    if len(precisions) < 2:
        return []
    asked = {record.recipe.get("training", {}).get("precision") for record in trained}
    why = "; auto lets a measurement at the start of a run decide" if "auto" in asked else ""
    return [
        f"precision: some of these were trained in {' and some in '.join(precisions)}{why}. To compare them, give "
        "--set training.precision=fp32 to all"
    ]


def _repeated(members: Group) -> tuple[list[str], list[str]]:
    """Ids of earlier runs of a seed: evaluated on the data of the run that counts, and on other data."""
    again: list[str] = []
    elsewhere: list[str] = []
    counting = {run.record.seed: run.record for run in members.runs}
    for run in members.repeated:
        sets = [{one.fingerprint for one in record.eval_data} for record in (run.record, counting[run.record.seed])]
        (again if sets[0] == sets[1] else elsewhere).append(run.record.run_id)
    return sorted(again), sorted(elsewhere)


def _approximations(members: Group) -> list[str]:
    """Why the gradients of some runs are not those of their whole batches."""
    trained = [run.record.training for run in members.runs if run.record.training is not None]
    return sorted({part.reason for one in trained for part in one.micro_batches if not part.exact})


def _of_group(members: Group, shown: Collection[str]) -> list[str]:
    """What a reader must know of the runs behind one row; `shown` are the ids of the runs that some row names."""
    notes = []
    record = members.first.record
    name = f"{record.method} on {record.backbone.name}"
    again, elsewhere = ([one for one in ids if one not in shown] for ids in _repeated(members))
    if again:
        notes.append(f"{name}: a seed was run again, the later run counts, not {', '.join(again)}")
    if filling := sorted({run.record.run_id for run in members.repeated} & set(shown)):
        notes.append(f"{name}: what a seed that was run again was not evaluated for is of {', '.join(filling)}")
    if elsewhere:
        notes.append(
            f"{name}: a seed was run again to evaluate it on other data, the later run counts, not "
            f"{', '.join(elsewhere)} (sslbench eval RUN --data adds to a run without training it again)"
        )
    if record.backbone.pretrained:
        settings = f" ({members.settings})" if members.settings else ""
        weights = "not trained here" if record.steps == 0 else "used for the figures before the arrows"
        notes.append(f"{name}{settings}: started from pretrained weights ({record.backbone.pretrained}), {weights}")
    for reason in _approximations(members):
        notes.append(f"{name}: approximate gradients, from micro-batches: {reason}")
    versions = sorted({run.record.method_plugin for run in members.runs})
    if len(versions) > 1:
        notes.append(f"{name}: its seeds were run by different versions: {', '.join(versions)}")
    return notes


def _unsealed(groups: Sequence[Group]) -> list[str]:
    """How many records have no fingerprint that would show an edit by hand."""
    records = [run.record for one in groups for run in one.runs]
    unsealed = sum(record.schema_version <= UNSEALED_SCHEMA for record in records)
    told = f"records without a fingerprint, whose edit by hand would not be noticed: {unsealed} of {len(records)}"
    return [told] if unsealed else []


def _not_run(description: TableDescription, groups: Sequence[Group]) -> list[str]:
    """Which variants of the table have no run among these."""
    if description.runs is None or not description.of_variants:
        return []
    places = {one.place for one in groups}
    missing = [variant.name for place, variant in enumerate(description.runs.variant) if place not in places]
    return [f"not run: {', '.join(missing)}"] if missing else []
