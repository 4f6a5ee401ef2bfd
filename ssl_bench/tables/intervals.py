"""How sure a cell is: its 95 % interval, and which rows of a column can be told from the best one.

One seed: the measurement's own interval, over the test items (Wilson's for accuracies, which a bootstrap of right and
wrong only approximates near 0 and 100 %; else the bootstrap). Several seeds: `records.bootstrap`, over items and seeds,
or where a record has no outcomes beside it the measurements' own intervals with Student's t over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ssl_bench.measurement import Outcomes, newcombe_interval
from ssl_bench.records.outcomes import OutcomesSource
from ssl_bench.tables.numbers import Ends, Interval, Number, scaled
from ssl_bench.tables.table import Cell, Row

HOW = {
    "one seed": "of one seed over its test items alone",
    "bootstrap": "of several seeds by bootstrap over test items, with Student's t over seeds",
    "without outcomes": "of several seeds without outcomes beside their records from each seed's own interval, with "
    "Student's t over seeds, which is cautious",
}
"""How the intervals of a block were made, in words."""


class DifferenceInterval(NamedTuple):
    """Ends of the 95 % interval of a difference, in the column's unit, and whether test items were paired."""

    low: float
    high: float
    paired: bool


def interval_of(numbers: Sequence[Number], source: OutcomesSource) -> Interval | None:
    """The interval of the mean of one number a seed; None where a measurement has neither interval nor outcomes."""
    own = [one.interval for one in numbers]
    if len(numbers) == 1:
        return None if own[0] is None else Interval(*own[0], "one seed")
    from ssl_bench.records.bootstrap import mean_interval, seeds_interval

    if found := _all_outcomes(numbers, source):
        try:
            ends = scaled(mean_interval(found), numbers[0].scale)
            return Interval(*_possible(ends, numbers), "bootstrap")
        except ValueError:  # of different items, although data and protocol agree
            pass
    known = [one for one in own if one is not None]
    if len(known) < len(own) or not known:
        return None
    ends = seeds_interval([one.value for one in numbers], known)
    return Interval(*_possible(ends, numbers), "without outcomes")


def _possible(ends: Ends, numbers: Sequence[Number]) -> Ends:
    """Of percentages from 0 to 100 the part from 0 to 100: Student's t of two seeds may reach beyond it."""
    for one in numbers:
        if one.measurement is None or one.measurement.unit != "%" or not 0 <= one.measurement.value <= 100:
            return ends
    low, high = scaled((0.0, 100.0), numbers[0].scale)
    return max(low, ends[0]), min(high, ends[1])


def items_of(numbers: Sequence[Number]) -> int | None:
    """Test items behind every one of the numbers; None where they differ or nothing was measured over items."""
    counts = {one.measurement.n if one.measurement else None for one in numbers}
    return counts.pop() if len(counts) == 1 else None


def with_best(rows: Sequence[Row], column: int, source: OutcomesSource) -> list[Row]:
    """The rows, the best cells of a column marked: the best mean, and those that cannot be told from it.

    Rows that compare are of one protocol and no reference (floor or ceiling). None is marked where nothing can be told
    apart, and where one of them has no interval.
    """
    marked = list(rows)
    by_conditions: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        if row.cells[column].value is not None and not row.reference:
            by_conditions.setdefault(row.cells[column].conditions, []).append(index)
    for places in by_conditions.values():
        cells = [rows[index].cells[column] for index in places]
        for place in _best(cells, source):
            row = marked[places[place]]
            cells_of_row = list(row.cells)
            cells_of_row[column] = replace(cells_of_row[column], best=True)
            marked[places[place]] = replace(row, cells=tuple(cells_of_row))
    return marked


def difference_interval(one: Cell, other: Cell, source: OutcomesSource) -> DifferenceInterval | None:
    """The interval of `other - one`: paired by test items where both have outcomes, else from both intervals.

    None where neither is possible.
    """
    from ssl_bench.records.bootstrap import paired_interval

    before, after = _all_outcomes(one.numbers, source), _all_outcomes(other.numbers, source)
    if before and after:
        try:
            return DifferenceInterval(*scaled(paired_interval(before, after), one.numbers[0].scale), paired=True)
        except ValueError:
            pass
    if one.interval is None or other.interval is None or one.value is None or other.value is None:
        return None
    ends = newcombe_interval(one.value.mean, one.interval[:2], other.value.mean, other.interval[:2])
    return DifferenceInterval(*ends, paired=False)


def _best(cells: Sequence[Cell], source: OutcomesSource) -> list[int]:
    """Indices of the cells to mark."""
    higher = cells[0].conditions.higher_is_better
    if higher is None or len(cells) < 2 or any(cell.interval is None for cell in cells):
        return []
    means = [cell.value.mean for cell in cells if cell.value is not None]
    best = means.index(max(means) if higher else min(means))
    tied = []
    for index, cell in enumerate(cells):
        ends = difference_interval(cells[best], cell, source) if index != best else DifferenceInterval(0.0, 0.0, True)
        tied += [index] if ends is not None and ends.low <= 0 <= ends.high else []
    return tied if len(tied) < len(cells) else []


def _all_outcomes(numbers: Sequence[Number], source: OutcomesSource) -> list[Outcomes]:
    """Of every number; empty where one has none."""
    found = [one.outcomes(source) for one in numbers]
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else []
