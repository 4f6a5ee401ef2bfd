"""Fold: description + records -> table. Pure: the same records in any order give the same table.

What is averaged is decided once for all tables: only runs whose recipes agree in everything but the seed, on the same
data by fingerprint, by plugins of the same distributions (`grouping`), and only numbers of one protocol (`cells`). A
run that collapsed or failed stands as that word and never enters a mean; a repeated seed counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ssl_bench.records.outcomes import OutcomesSource, no_outcomes
from ssl_bench.records.record import DataRecord, RunRecord
from ssl_bench.tables.blocks import heading, known_data, runs_by_block
from ssl_bench.tables.cells import lines_of
from ssl_bench.tables.competing import choose
from ssl_bench.tables.description import Key, TableDescription
from ssl_bench.tables.grouping import Group, RecordFacts, Run, as_runs, canonical, group, natural, wanted
from ssl_bench.tables.intervals import with_best
from ssl_bench.tables.naming import tell_apart
from ssl_bench.tables.notes import about_runs, certainty, chance
from ssl_bench.tables.published import PublishedRows, beside, published_list, published_notes
from ssl_bench.tables.table import ANY_CONDITIONS, DATA, Block, Cell, Conditions, Row, Table, TableData
from ssl_bench.tables.yardsticks import yardsticks


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
    groups = _in_order(description, keys, groups)
    rows = [row for one in groups for row in _rows(description, keys, one, data, published, outcomes)]
    for column in range(len(description.column)):
        rows = with_best(rows, column, outcomes)
    rows, notes = _mark(description, rows)
    notes += chance(description, rows, known)
    if data is not None:
        records = [run.record for one in groups for run in one.runs]
        notes += yardsticks(description, rows, records, everything, data)
    notes += [*certainty(description, rows), *unsaid, *about_runs(description, rows, groups)]
    notes += [*chosen.notes, *published_notes(description, rows)]
    if data is None:
        return Block(f"Measured{common}", None, tuple(rows), tuple(notes))
    twice = f", fingerprint {data.fingerprint[:8]}" * (names.count(data.name) > 1)
    return Block(heading(data, known.get(data.fingerprint), rows) + common + twice, data, tuple(rows), tuple(notes))


def _in_order(description: TableDescription, keys: tuple[Key, ...], groups: list[Group]) -> list[Group]:
    """Variants as the description lists them, then by `order_by` and by the other keys."""
    order = [key.id for key in keys]
    positions = [order.index(name) for name in description.order_by]
    positions += [position for position in range(len(keys)) if position not in positions]
    return sorted(
        groups,
        key=lambda g: (g.place, [natural(g.keys[p]) for p in positions], g.settings, canonical(g.first.identity)),
    )


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
