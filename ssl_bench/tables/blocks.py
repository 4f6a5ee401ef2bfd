"""Which runs stand under one heading: those trained on one dataset, or those evaluated on one; and the heading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ssl_bench.records.record import DataRecord, RunRecord
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.grouping import Run
from ssl_bench.tables.table import Row, TableData


def runs_by_block(description: TableDescription, runs: Iterable[Run]) -> dict[TableData | None, list[Run]]:
    """The runs of each block, by the data that its heading names; None for the one block of a table without headings.

    A run that was evaluated on several datasets stands in several blocks of a table by evaluation data.
    """
    evaluators = {column.source.evaluator for column in description.column if column.source}
    blocks: dict[TableData | None, list[Run]] = {}
    for run in runs:
        places: list[TableData | None] = [None]
        if description.data == "section":
            places = [TableData.trained_on(run.record)]
        elif description.data == "evaluation":
            places = [*_evaluated_on(run.record, evaluators)]
        for place in places:
            blocks.setdefault(place, []).append(run)
    return blocks


def _evaluated_on(record: RunRecord, evaluators: set[str]) -> list[TableData]:
    """The datasets on which these evaluators measured a run, or on which they would have."""
    measured = [TableData.measured_on(one) for one in record.evaluations if one.evaluator in evaluators]
    declared = [TableData(one.name, one.fingerprint, one.synthetic) for one in record.eval_data]
    return list(dict.fromkeys(measured or declared or [TableData.trained_on(record)]))


def known_data(runs: Iterable[Run]) -> dict[str, DataRecord]:
    """Fingerprint -> what records say of the dataset; as evaluation data where it was used as such."""
    records = [run.record for run in runs]
    known = {record.data.fingerprint: record.data for record in records}
    return known | {one.fingerprint: one for record in records for one in record.eval_data}


def heading(data: TableData, known: DataRecord | None, rows: Sequence[Row]) -> str:
    """The dataset with its counts, as far as a record has them."""
    if known is None:
        return f"evaluated on {data.title}"
    classes = f"{known.classes} classes" if known.classes else "without labels"
    test = f" and {known.test_images:,} test" if known.test_images else ""
    if all(row.trained_on == data for row in rows):
        return f"{data.title}: {known.train_images:,} training{test} images, {classes}"
    counts = f"fitted on {known.train_images:,} images, {known.test_images:,} test images"
    return f"evaluated on {data.title}: {counts}, {classes}"
