"""Fold: description + records -> table. Pure: the same records in any order give the same table.

What is averaged is decided once for all tables: only runs whose recipes agree in everything but the seed, on the same
data by fingerprint, by plugins of the same distributions (`grouping`), and only numbers of one protocol (`cells`). A
run that collapsed or failed stands as that word and never enters a mean; a repeated seed counts once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from ssl_bench.records.outcomes import OutcomesSource, no_outcomes
from ssl_bench.records.record import UNSEALED_SCHEMA, DataRecord, RunRecord
from ssl_bench.tables.blocks import heading, known_data, runs_by_block
from ssl_bench.tables.cells import lines_of
from ssl_bench.tables.competing import choose
from ssl_bench.tables.description import Key, TableDescription
from ssl_bench.tables.grouping import Group, RecordFacts, Run, as_runs, canonical, group, natural, wanted
from ssl_bench.tables.intervals import HOW, with_best
from ssl_bench.tables.naming import tell_apart
from ssl_bench.tables.paths import look_up
from ssl_bench.tables.published import PublishedRows, beside, published_list, published_notes
from ssl_bench.tables.table import ANY_CONDITIONS, DATA, Block, Cell, Conditions, Row, Table, TableData
from ssl_bench.tables.yardsticks import yardsticks

TOP_1 = "top1"
"""How the names of top-1 accuracies begin."""


def fold(
    description: TableDescription,
    records: Iterable[RunRecord | RecordFacts],
    published: PublishedRows = (),
    outcomes: OutcomesSource = no_outcomes,
) -> Table:
    """The table of `records`; `published` holds the CSV rows of each entry of `description.published`.

    `outcomes` finds what lies beside the records: intervals over test items and seeds, and paired comparisons.
    """
    records = records if description.column else ()  # what nothing measures is only listed
    if not published:
        published = tuple(() for _ in description.published)
    keys = description.row
    if description.data != "section":
        title = "data" if description.data == "column" else "trained on"
        keys = (*keys, Key.model_validate({"id": DATA, "title": title, "from": "data.name"}))
    evaluator = description.evaluated_by
    measuring = any(column.source for column in description.column)
    facts = (one if isinstance(one, RecordFacts) else RecordFacts(one) for one in records)
    counted = [
        one
        for one in facts
        if not (evaluator and all(evaluation.evaluator != evaluator for evaluation in one.record.evaluations))
        and not (measuring and is_speed_alone(one.record))
    ]
    runs = [run for run in as_runs(description, counted) if wanted(run, description.filter)]
    sections = runs_by_block(description, runs)
    names = [data.name for data in sections if data]
    known = known_data(runs)
    blocks = tuple(
        _block(description, keys, data, sections[data], published, known, names, outcomes, counted)
        for data in sorted(sections, key=lambda data: (data.synthetic, data.name, data.fingerprint) if data else ())
    )
    lists = tuple(
        published_list(description, index, published) for index, p in enumerate(description.published) if p.listed
    )
    return Table(description, keys, blocks, lists)


def is_speed_alone(record: RunRecord) -> bool:
    """Whether a record holds the speed of a network and nothing else, as `sslbench throughput` writes it."""
    return record.status == "finished" and record.method == "random" and not record.evaluations


def letter(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa."""
    tail = chr(ord("a") + number % 26)
    return letter(number // 26 - 1) + tail if number >= 26 else tail


def _block(
    description: TableDescription,
    keys: tuple[Key, ...],
    data: TableData | None,
    runs: list[Run],
    published: PublishedRows,
    known: Mapping[str, DataRecord],
    names: Sequence[str],
    outcomes: OutcomesSource,
    everything: Sequence[RecordFacts],
) -> Block:
    chosen = choose(description, runs)
    groups = group(keys, chosen.runs)
    common, unsaid = tell_apart(description, keys, groups)
    order = [key.id for key in keys]
    positions = [order.index(name) for name in description.order_by]
    positions += [position for position in range(len(keys)) if position not in positions]
    groups.sort(
        key=lambda g: (g.place, [natural(g.keys[p]) for p in positions], g.settings, canonical(g.first.identity))
    )
    rows = [row for one in groups for row in _rows(description, keys, one, data, published, outcomes)]
    for column in range(len(description.column)):
        rows = with_best(rows, column, outcomes)
    rows, notes = _mark(description, rows)
    notes += _chance(description, rows, known)
    if data is not None:
        records = [run.record for one in groups for run in one.runs]
        notes += yardsticks(description, rows, records, everything, data)
    notes += _certainty(description, rows)
    notes += [*unsaid, *_left_out(description, groups), *_unmeasured(description, rows, groups), *_precisions(groups)]
    shown = {run_id for row in rows for run_id in row.runs}
    notes += [note for one in groups for note in _notes(one, shown)]
    notes += [*_unsealed(groups), *_not_run(description, groups)]
    notes += chosen.notes
    notes += published_notes(description, rows)
    if data is None:
        return Block(f"Measured{common}", None, tuple(rows), tuple(notes))
    twice = f", fingerprint {data.fingerprint[:8]}" * (names.count(data.name) > 1)
    return Block(heading(data, known.get(data.fingerprint), rows) + common + twice, data, tuple(rows), tuple(notes))


def _rows(
    description: TableDescription,
    keys: tuple[Key, ...],
    one: Group,
    data: TableData | None,
    published: PublishedRows,
    outcomes: OutcomesSource,
) -> list[Row]:
    texts = {key.id: key.text(value) for key, value in zip(keys, one.keys, strict=True)}
    joining = (one.first.match.candidate.texts if one.first.match else {}) | texts
    trained_on = TableData.trained_on(one.first.record)
    block = data or trained_on
    return [
        Row(
            keys=tuple(texts.values()),
            settings=one.settings,
            trained_on=trained_on,
            evaluated_on=place or block,
            start=one.first.record.backbone.start,
            finished=len(one.with_status("finished")),
            collapsed=len(one.with_status("collapsed")),
            failed=len(one.with_status("failed")),
            cells=cells,
            published=tuple(
                beside(part, lines, joining) for part, lines in zip(description.published, published, strict=True)
            ),
            runs=tuple(sorted({run.record.run_id for run in one.runs} | _contributing(cells))),
            reference=one.first.record.method in description.references,
            variant=one.first.match.candidate.texts["name"] if one.first.match else "",
            distinguished=one.distinguished,
        )
        for place, cells in lines_of(
            description.column, one, block, outcomes, elsewhere=description.data != "evaluation"
        )
    ]


def _contributing(cells: Sequence[Cell]) -> set[str]:
    """Ids of the runs that some number is of."""
    return {number.record.run_id for cell in cells for number in cell.numbers if number.record}


def _unsealed(groups: list[Group]) -> list[str]:
    """How many records have no fingerprint that would show an edit by hand."""
    records = [run.record for one in groups for run in one.runs]
    unsealed = sum(record.schema_version <= UNSEALED_SCHEMA for record in records)
    told = f"records without a fingerprint, whose edit by hand would not be noticed: {unsealed} of {len(records)}"
    return [told] if unsealed else []


def _not_run(description: TableDescription, groups: list[Group]) -> list[str]:
    """Which variants of the table have no run among these."""
    if description.runs is None or not description.of_variants:
        return []
    places = {one.place for one in groups}
    missing = [variant.name for place, variant in enumerate(description.runs.variant) if place not in places]
    return [f"not run: {', '.join(missing)}"] if missing else []


def _mark(description: TableDescription, rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Letters where the conditions of one column differ, with their footnotes; one plain note where they agree.

    Columns that share conditions share their note.
    """
    titles: dict[tuple[Conditions, bool], list[str]] = {}
    differing = set()
    for index, column in enumerate(description.column):
        found = dict.fromkeys(row.cells[index].conditions for row in rows)
        found.pop(ANY_CONDITIONS, None)
        differing |= {index} if len(found) > 1 else set()
        for conditions in found:
            titles.setdefault((conditions, len(found) > 1), []).append(column.title)
    letters = {conditions: letter(n) for n, (conditions, _) in enumerate(key for key in titles if key[1])}
    notes = [
        (f"[{letters[conditions]}] " if marked else "") + f"{', '.join(named)}: {conditions.text}"
        for (conditions, marked), named in titles.items()
    ]
    lettered = [
        replace(
            row,
            cells=tuple(
                replace(cell, mark=letters.get(cell.conditions, "") if index in differing else "")
                for index, cell in enumerate(row.cells)
            ),
        )
        for row in rows
    ]
    return lettered, notes


def _chance(description: TableDescription, rows: Sequence[Row], known: Mapping[str, DataRecord]) -> list[str]:
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


def _certainty(description: TableDescription, rows: Sequence[Row]) -> list[str]:
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


def _left_out(description: TableDescription, groups: Sequence[Group]) -> list[str]:
    """Why cells are empty that a record explains, in one note per column."""
    notes = []
    for column in description.column:
        reasons: dict[str, list[str]] = {}
        for run in (run for one in groups for run in one.runs) if column.why_empty else ():
            reason = look_up(run.values, column.why_empty)
            if look_up(run.values, column.path) is None and isinstance(reason, str) and reason:
                reasons.setdefault(reason, []).append(run.record.run_id)
        if reasons:
            explained = "; ".join(f"{', '.join(runs)}: {reason}" for reason, runs in reasons.items())
            notes.append(f"{column.title} of {explained}")
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


def _precisions(groups: list[Group]) -> list[str]:
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


def _notes(members: Group, shown: Collection[str]) -> list[str]:
    """`shown` are the ids of the runs that some row names."""
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
