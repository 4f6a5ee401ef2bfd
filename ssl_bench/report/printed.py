"""The printed value of a row: that of its own network, or of the larger one that its network stands for.

A table's sizes say which small network stands for which printed one, e.g. deit_ti16 of four blocks for deit_s16. A row
whose method is changed (an ablation) stands for none.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssl_bench.records.record import RunRecord
from ssl_bench.registry.preset_files import presets_of
from ssl_bench.tables.description import Published
from ssl_bench.tables.matching import Match, Matcher
from ssl_bench.tables.table import Row, Table
from ssl_bench.tables.todays_preset import changes_of

CHANGED_METHOD = "method."
"""Begins the settings of a method that a run may not change to stand for the printed one."""


class PrintedValues:
    """Finds the printed values of a table's rows."""

    def __init__(self, table: Table) -> None:
        description = table.description
        self._listed = [part for part in description.published if part.listed]
        self._lists = table.published
        self._matcher = Matcher(description.runs) if description.runs and not description.of_variants else None

    def texts(self, row: Row, place: int, part: Published) -> tuple[tuple[str, ...], str]:
        """(text of each column of the published part at `place`, the printed network where it is not the row's own)."""
        if any(row.published[place]) or part not in self._listed:
            return row.published[place], ""
        match = self._match(row)
        if match is None:
            return row.published[place], ""
        variant = match.candidate.run.variant
        wanted = {"method": variant.method, "arch": variant.arch}
        for line in self._lists[self._listed.index(part)].rows:
            if _joins(part, line, wanted):
                return tuple(line.get(column.column, "") for column in part.columns), variant.arch
        return row.published[place], ""

    def _match(self, row: Row) -> Match | None:
        record = _record(row)
        match = self._matcher.find(record, changes_of(record, presets_of)) if self._matcher and record else None
        if match is None or any(name.startswith(CHANGED_METHOD) for name, _ in match.base):
            return None
        return match


def _joins(part: Published, line: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return bool(part.join) and all(line.get(row_id) == wanted.get(row_id) for row_id in part.join)


def _record(row: Row) -> RunRecord | None:
    """The record of one of the row's runs, which agree in all but the seed."""
    return next((number.record for cell in row.cells for number in cell.numbers if number.record), None)
