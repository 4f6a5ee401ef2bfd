"""Which orders of a table's rows hold beyond the 95 % intervals, and which do not: values, without words.

Rows compare within a block where they agree in what the description distinguishes by (epochs, precision, patch size,
...), in the keys that it names in `compare_within`, and in the data they were trained on; numbers where their
conditions agree. Each row is compared with the best one, with the network before its training, and with every other
row of which a value is printed. No interval is corrected for the number of comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, NamedTuple

from ssl_bench.records.outcomes import OutcomesSource
from ssl_bench.report.printed import PrintedValues
from ssl_bench.tables.description import Column
from ssl_bench.tables.intervals import DifferenceInterval, difference_interval
from ssl_bench.tables.table import Block, Cell, Conditions, Row, Table

Verdict = Literal["better", "worse", "level", "unsaid"]
"""Beyond the interval, within it, or without one."""


@dataclass(frozen=True)
class Lead:
    """By how much a number is better than another, in the column's unit: positive is better."""

    name: str
    """Of the row that is compared."""
    runs: tuple[str, ...]
    cell: Cell
    amount: float
    ends: DifferenceInterval | None
    """None where a number has no interval."""

    @property
    def verdict(self) -> Verdict:
        """What the interval says."""
        if self.ends is None:
            return "unsaid"
        return "better" if self.ends.low > 0 else "worse" if self.ends.high < 0 else "level"


@dataclass(frozen=True)
class Ranking:
    """A column's best row, and the lead of it over every other row that is no reference."""

    column: Column
    best: str
    runs: tuple[str, ...]
    cell: Cell
    over: tuple[Lead, ...]


@dataclass(frozen=True)
class Gains:
    """What training added in a column, row by row."""

    column: Column
    start: str
    """What the network is called before training."""
    rows: tuple[Lead, ...]


@dataclass(frozen=True)
class Pair:
    """Two rows whose printed values differ: `better` is the one that is better in print."""

    better: str
    worse: str
    printed: tuple[str, str]
    lead: Lead
    """The measured lead of `better`."""


@dataclass(frozen=True)
class PrintedOrder:
    """The printed values of a column, pair by pair."""

    column: Column
    title: str
    """E.g. "k-NN %, thesis"."""
    data: str
    """What the printed values are of."""
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Comparison:
    """Rows of one block that compare."""

    among: str
    """What they share beside the block's heading, e.g. "resnet18, 4 epochs"."""
    rows: tuple[str, ...]
    rankings: tuple[Ranking, ...]
    gains: tuple[Gains, ...]
    orders: tuple[PrintedOrder, ...]


def comparisons(table: Table, block: Block, source: OutcomesSource) -> list[Comparison]:
    """The comparisons of a block, in the order of its rows."""
    found = []
    printed = PrintedValues(table)
    for among, rows in _comparable(table, block).items():
        named = _named(table, rows)
        rankings: list[Ranking] = []
        gains: list[Gains] = []
        orders: list[PrintedOrder] = []
        for index, column in enumerate(table.description.column):
            if column.source is None:
                continue
            for cells in _by_conditions(named, index):
                rankings += _ranking(column, cells, source)
                gains += _gains(column, cells, source)
                orders += _orders(table, printed, column, cells, source)
        if rankings or orders or (gains and (len(rows) > 1 or not table.description.of_variants)):
            found.append(
                Comparison(among, tuple(name for name, _ in named), tuple(rankings), tuple(gains), tuple(orders))
            )
    return found


Cells = list[tuple[str, Row, Cell]]
"""(name of the row, row, its cell of a column)."""


def _comparable(table: Table, block: Block) -> dict[str, list[Row]]:
    """The rows by the words that they must share."""
    places = [index for index, key in enumerate(table.keys) if key.id in table.description.compare_within]
    found: dict[str, list[Row]] = {}
    for row in block.rows:
        words = [*(row.keys[place] for place in places), *row.distinguished]
        if row.trained_on != block.data:
            words.append(f"trained on {row.trained_on.title}")
        found.setdefault(", ".join(filter(None, words)), []).append(row)
    return found


def _named(table: Table, rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Short names: the variant's, else the keys in which rows may differ; further settings where two would be alike."""
    within = {*table.description.compare_within, "data"}
    names = []
    for row in rows:
        texts = [text for key, text in zip(table.keys, row.keys, strict=True) if key.id not in within and text]
        names.append(row.variant if table.description.of_variants else ", ".join(texts))
    runs: dict[str, set[tuple[str, ...]]] = {}
    for name, row in zip(names, rows, strict=True):
        runs.setdefault(name, set()).add(row.runs)
    return [
        (name if name and len(runs[name]) == 1 else _with_settings(name, row), row)
        for name, row in zip(names, rows, strict=True)
    ]


def _with_settings(name: str, row: Row) -> str:
    own = row.settings.removeprefix(", ".join(row.distinguished)).removeprefix(", ")
    return f"{name} ({own})" if name and own else name or own or " ".join(row.runs)


def _by_conditions(named: Sequence[tuple[str, Row]], index: int) -> Iterable[Cells]:
    found: dict[Conditions, Cells] = {}
    for name, row in named:
        cell = row.cells[index]
        if cell.value is not None:
            found.setdefault(cell.conditions, []).append((name, row, cell))
    return found.values()


def _lead(name: str, row: Row, cell: Cell, over: Cell, source: OutcomesSource) -> Lead:
    """By how much `cell` is better than `over`."""
    amount, ends = _mean(cell) - _mean(over), difference_interval(over, cell, source)
    if cell.conditions.higher_is_better is False:
        amount = -amount
        ends = DifferenceInterval(-ends.high, -ends.low, ends.paired) if ends else None
    return Lead(name, row.runs, cell, amount, ends)


def _mean(cell: Cell) -> float:
    assert cell.value is not None, "only numbers are compared"
    return cell.value.mean


def _ranking(column: Column, cells: Cells, source: OutcomesSource) -> Iterator[Ranking]:
    ranked = [one for one in cells if not one[1].reference]
    higher = cells[0][2].conditions.higher_is_better
    if higher is None or len({_mean(cell) for _, _, cell in ranked}) < 2:  # one row, or what no row influences
        return
    ranked.sort(key=lambda one: -_mean(one[2]) if higher else _mean(one[2]))
    (name, row, best), *others = ranked
    over = tuple(
        replace(_lead(other, row_of_other, best, cell, source), cell=cell) for other, row_of_other, cell in others
    )
    yield Ranking(column, name, row.runs, best, over)


def _gains(column: Column, cells: Cells, source: OutcomesSource) -> Iterator[Gains]:
    before = [one for one in cells if one[2].baseline is not None and one[2].conditions.higher_is_better is not None]
    if before:
        starts = dict.fromkeys(row.start for _, row, _ in before)
        leads = tuple(_lead(name, row, cell, cell.before, source) for name, row, cell in before)
        yield Gains(column, " or ".join(starts), leads)


def _orders(
    table: Table, printed: PrintedValues, column: Column, cells: Cells, source: OutcomesSource
) -> Iterator[PrintedOrder]:
    """Those of the first printed column that has a pair, one for each network that the values are printed for."""
    higher = cells[0][2].conditions.higher_is_better
    for place, part in enumerate(table.description.published):
        for number, one in enumerate(part.columns):
            if one.prints != column.id or higher is None:
                continue
            known: dict[str, list[_Printed]] = {}
            for name, row, cell in cells:
                texts, network = printed.texts(row, place, part)
                if number_in(texts[number]) is not None:
                    known.setdefault(network, []).append(_Printed(name, row, cell, texts[number]))
            orders = []
            for network, rows in known.items():
                if pairs := [_pair(*pair, higher, source) for pair in combinations(rows, 2) if _differ(*pair)]:
                    title = f"{one.title}, printed for {network}" if network else one.title
                    orders.append(PrintedOrder(column, title, part.data, tuple(pairs)))
            if orders:
                yield from orders
                return


class _Printed(NamedTuple):
    """A row with its printed value."""

    name: str
    row: Row
    cell: Cell
    text: str


def _differ(one: _Printed, other: _Printed) -> bool:
    return float(one.text) != float(other.text)


def _pair(one: _Printed, other: _Printed, higher: bool, source: OutcomesSource) -> Pair:
    better, worse = (one, other) if (float(one.text) > float(other.text)) == higher else (other, one)
    lead = _lead(better.name, better.row, better.cell, worse.cell, source)
    return Pair(better.name, worse.name, (better.text, worse.text), lead)


def number_in(text: str) -> float | None:
    """A printed number; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
