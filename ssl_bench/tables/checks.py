"""Checks of a table description: ids, and paths into records; a mistake becomes a message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from ssl_bench import registry
from ssl_bench.errors import UserError, did_you_mean, unknown_name
from ssl_bench.records.record import RunRecord
from ssl_bench.tables.description import Column, TableDescription, parse_source
from ssl_bench.tables.paths import braced_paths
from ssl_bench.tables.table import DATA
from ssl_bench.tables.variants import VARIANT

PRIMARY = "primary"
"""The word for an evaluator's main metric."""


def check_description(description: TableDescription, where: str) -> None:
    """Raises `UserError` for the first mistake; `where` names the description in messages."""
    row_ids = description.row_ids
    if not description.column and not any(part.listed for part in description.published):
        raise UserError(f"{where}: there is no [[column]]: it has to say what the table shows")
    ids = [*row_ids, *(column.id for column in description.column)]
    if description.data != "section":
        ids.append(DATA)
    for name in ids:
        if ids.count(name) > 1:
            raise UserError(f"{where}: the id {name!r} is used twice; ids of rows and columns must differ")
    for place, names in (
        ("order_by", description.order_by),
        ("compare_within", description.compare_within),
        *((f"published.join of {p.file}", p.join) for p in description.published),
    ):
        shown = _shown_by_variants(description) if place.startswith("published") else []
        for name in names:
            if name not in (*row_ids, *shown):
                raise UserError(
                    f"{where}: {place} names {name!r}, which is no row id.{did_you_mean(name, row_ids)} "
                    f"Known: {', '.join((*row_ids, *shown))}"
                )
    for key in (*description.row, *description.distinguish):
        if not key.path or (key.of_variant and (description.runs is None or key in description.distinguish)):
            raise UserError(
                f"{where}: {key.id!r} has no `from`: give the path into the record that it shows, e.g. from = "
                '"method"; only a row whose text each [[runs.variant]] shows needs none'
            )
    for place, path in _paths(description):
        if not path.startswith(("measurement:", f"{VARIANT}.")):
            _check_path(path, f"{where}: {place}")
    for column in description.column:
        if column.path.startswith("measurement:") and column.source is None:
            raise UserError(
                f"{where}: column {column.id!r}: from = {column.path!r} must read "
                "measurement:EVALUATOR.METRIC:SUBJECT with SUBJECT trained or untrained, e.g. "
                "measurement:knn.primary:trained"
            )
        before = parse_source(column.baseline)
        if column.baseline and (before is None or column.source is None or before[:2] != column.source[:2]):
            source = column.source
            example = f", e.g. measurement:{source.evaluator}.{source.metric}:untrained" if source else ""
            raise UserError(
                f"{where}: column {column.id!r}: baseline = {column.baseline!r} must be the same evaluator and metric "
                f"as from = {column.path!r}, of the other network{example}"
            )
    for part in description.published:
        for printed in part.columns:
            _require_column(description, printed.prints, f"{where}: prints of {printed.column} in {part.file}")


def _require_column(description: TableDescription, name: str, place: str) -> None:
    known = [column.id for column in description.column]
    if name and name not in known:
        raise UserError(
            f"{place} names {name!r}, which is no column id.{did_you_mean(name, known)} Known: {', '.join(known)}"
        )


def require_measured(description: TableDescription, records: Iterable[RunRecord], where: str) -> None:
    """Raises `UserError` for a column that no record can fill: an evaluator that neither is installed nor made a
    measurement, or a metric that the measurements of its evaluator do not have."""
    metrics: dict[str, set[str]] = {}
    for evaluation in (one for record in records for one in record.evaluations):
        metrics.setdefault(evaluation.evaluator, set()).update(one.metric for one in evaluation.measurements)
    known = sorted({*registry.names("evaluator"), *metrics})
    for column in description.column:
        source = column.source
        if source is None:
            continue
        place = f"{where}: column {column.id!r}"
        if source.evaluator not in known:
            raise UserError(f"{place}: {unknown_name('evaluator', source.evaluator, known, 'sslbench list')}")
        found = {*metrics.get(source.evaluator, ())}
        if found and source.metric not in (PRIMARY, *found):
            raise UserError(
                f"{place}: {source.evaluator} measured no {source.metric!r}."
                f"{did_you_mean(source.metric, found)} The records have: {', '.join(sorted(found))}, and "
                f"{PRIMARY!r} stands for the main one"
            )


def _shown_by_variants(description: TableDescription) -> list[str]:
    """Ids for which some variant shows a text."""
    variants = description.runs.variant if description.runs else ()
    return list(dict.fromkeys(name for variant in variants for name in variant.show))


def _paths(description: TableDescription) -> list[tuple[str, str]]:
    found = [(f"row {key.id!r}", key.path) for key in description.row]
    found += [(f"distinguish {key.id!r}", key.path) for key in description.distinguish]
    found += [("filter", path) for path in description.filter]
    for column in description.column:
        found += [(f"column {column.id!r}", path) for path in _column_paths(column)]
    return found


def _column_paths(column: Column) -> list[str]:
    optional = [path for path in (column.evidence, column.why_empty) if path]
    return [column.path, *optional, *braced_paths(column.protocol)]


def _check_path(path: str, where: str) -> None:
    """Follow a dotted path through the record's models; what lies in a free mapping cannot be checked."""
    model: Any = RunRecord
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            if get_origin(model) is dict or model is Any:
                return
            raise UserError(f"{where}: {'.'.join(parts[:depth])!r} is a value, it has no {part!r}")
        if part not in model.model_fields:
            raise UserError(
                f"{where}: a record has no {path!r}.{did_you_mean(part, model.model_fields)} "
                f"Known{' there' if depth else ''}: {', '.join(model.model_fields)}"
            )
        model = model.model_fields[part].annotation
        optional = [kind for kind in get_args(model) if kind is not type(None)]
        if type(None) in get_args(model) and len(optional) == 1:
            model = optional[0]
    if isinstance(model, type) and issubclass(model, BaseModel):
        raise UserError(f"{where}: {path!r} is a part, not a value. It has: {', '.join(model.model_fields)}")
