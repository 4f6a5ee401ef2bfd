"""Findings: what the comparisons of a table say, in sentences, and how many of each kind there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ssl_bench.records.outcomes import OutcomesSource
from ssl_bench.report.comparisons import Comparison, Gains, Lead, Pair, PrintedOrder, Ranking, Verdict, comparisons
from ssl_bench.tables.description import Column
from ssl_bench.tables.table import DATA, Cell, Row, Table

ORDER_WORDS: dict[Verdict, str] = {
    "better": "reproduced",
    "worse": "reversed",
    "level": "not told apart",
    "unsaid": "no interval",
}
"""What a measured difference says of a printed order."""


@dataclass(frozen=True)
class Statement:
    """One sentence or several about one column."""

    about: str
    """What they are about, e.g. "k-NN %"."""
    text: str


@dataclass(frozen=True)
class OrderFindings:
    """Printed values and measured ones, pair by pair."""

    about: str
    summary: str
    lines: tuple[tuple[str, ...], ...]
    """(better in print, worse in print, printed, measured, verdict) of each pair."""


@dataclass(frozen=True)
class Group:
    """What is said of rows that compare."""

    among: str
    statements: tuple[Statement, ...]
    orders: tuple[OrderFindings, ...]


@dataclass(frozen=True)
class BlockFindings:
    """What is said of one block of a table."""

    heading: str
    groups: tuple[Group, ...]
    ended: tuple[str, ...]
    """Rows that collapsed or failed, with their counts."""


@dataclass(frozen=True)
class TableFindings:
    """What is said of one table."""

    id: str
    title: str
    blocks: tuple[BlockFindings, ...]
    decisions: Mapping[tuple[object, ...], str]
    """What was compared -> kind and verdict, e.g. "best better": what several tables show counts once."""


def findings_of(table: Table, source: OutcomesSource) -> TableFindings:
    """The findings of a table; without blocks where nothing was measured."""
    decisions: dict[tuple[object, ...], str] = {}
    blocks = []
    for block in table.blocks:
        compared = comparisons(table, block, source)
        for one in compared:
            decisions |= _decisions(one)
        ended = {row.runs: text for row in block.rows if (text := _ended(table, row))}
        decisions |= {(runs,): "ended" for runs in ended}
        groups = tuple(_group(one) for one in compared)
        if groups or ended:
            blocks.append(BlockFindings(block.heading, groups, tuple(ended.values())))
    return TableFindings(table.description.id, table.description.title, tuple(blocks), decisions)


def at_a_glance(tables: Sequence[TableFindings]) -> list[str]:
    """The counts of all tables in a few sentences."""
    decisions = {key: decision for one in tables for key, decision in one.decisions.items()}
    counts = Counter(decisions.values())
    said = []
    if counts["best better"] + counts["best level"]:
        holding, open_ = _count(counts["best better"], "holds", "hold"), _count(counts["best level"], "does", "do")
        said.append(
            f"Comparisons with the best row of a column: {holding} beyond the 95 % interval of the difference, "
            f"{open_} not."
        )
    if gains := counts["gain better"] + counts["gain level"] + counts["gain worse"]:
        said.append(
            f"Training made {counts['gain better']:,} of {_count(gains, 'number', 'numbers')} better beyond the "
            f"interval and {counts['gain worse']:,} worse; {counts['gain level']:,} cannot be told from before."
        )
    if pairs := sum(counts[f"order {verdict}"] for verdict in ORDER_WORDS):
        words = [f"{count:,} {word}" for verdict, word in ORDER_WORDS.items() if (count := counts[f"order {verdict}"])]
        said.append(
            f"Order of {_count(pairs, 'pair', 'pairs')} of rows whose printed values differ: {', '.join(words)}."
        )
    if ended := counts["ended"]:
        said.append(f"{_count(ended, 'row has', 'rows have')} runs that collapsed or failed.")
    if single := counts["one seed"]:
        said.append(
            f"Compared numbers of one seed: {single:,} of {single + counts['several seeds']:,}. Their intervals are "
            "over test items alone, and another seed could move them further."
        )
    return said


def _count(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _decisions(one: Comparison) -> Iterable[tuple[tuple[object, ...], str]]:
    for ranking in one.rankings:
        place = (ranking.column.path, ranking.cell.conditions)
        for lead in ranking.over:
            yield ("best", *place, ranking.runs, lead.runs), f"best {lead.verdict}"
            yield (*place, lead.runs), _seeds(lead.cell)
        yield (*place, ranking.runs), _seeds(ranking.cell)
    for gains in one.gains:
        for lead in gains.rows:
            yield ("gain", gains.column.path, lead.cell.conditions, lead.runs), f"gain {lead.verdict}"
    for order in one.orders:
        for pair in order.pairs:
            place = (order.column.path, pair.lead.cell.conditions)
            yield ("order", *place, order.data, pair.better, pair.worse, pair.lead.runs), f"order {pair.lead.verdict}"


def _seeds(cell: Cell) -> str:
    return "one seed" if cell.value and cell.value.n == 1 else "several seeds"


def _ended(table: Table, row: Row) -> str:
    """How many runs of a row collapsed or failed; "" for none."""
    words = [f"{count} {word}" for count, word in ((row.collapsed, "collapsed"), (row.failed, "failed")) if count]
    if not words:
        return ""
    keys = [text for key, text in zip(table.keys, row.keys, strict=True) if key.id != DATA]
    name = row.variant or ", ".join(filter(None, (*keys, row.settings)))
    total = row.finished + row.collapsed + row.failed
    return f"{name}: {' and '.join(words)} of {_count(total, 'run', 'runs')}"


def _group(one: Comparison) -> Group:
    statements = [statement for ranking in one.rankings for statement in _ranked(ranking)]
    statements += [_gained(gains) for gains in one.gains]
    return Group(one.among, tuple(statements), tuple(map(_ordered, one.orders)))


def _ranked(ranking: Ranking) -> Iterable[Statement]:
    column, about = ranking.column, _about(ranking.column, ranking.cell)
    by: dict[Verdict, list[Lead]] = {}
    for lead in ranking.over:
        by.setdefault(lead.verdict, []).append(lead)
    if set(by) == {"unsaid"}:
        yield Statement(about, "the numbers have no intervals, so no order is stated.")
        return
    text = [f"{ranking.best} has the best mean, {_number(column, ranking.cell)}."]
    if better := by.get("better"):
        text.append(f"Behind it beyond the interval: {_leads(column, better)}.")
    if level := by.get("level"):
        text.append(f"Not told apart from it: {_leads(column, level)}.")
    if unsaid := by.get("unsaid"):
        text.append(f"Without an interval: {', '.join(lead.name for lead in unsaid)}.")
    text.append(_paired(ranking.over))
    yield Statement(about, " ".join(filter(None, text)))


def _gained(gains: Gains) -> Statement:
    words: dict[Verdict, str] = {
        "better": f"better than {gains.start} beyond the interval",
        "level": f"not told apart from {gains.start}",
        "worse": f"worse than {gains.start} beyond the interval",
        "unsaid": "without an interval",
    }
    parts = []
    for verdict, word in words.items():
        if found := [lead for lead in gains.rows if lead.verdict == verdict]:
            amounts = ", ".join(f"{lead.name} ({signed(gains.column, lead.amount)})" for lead in found)
            parts.append(f"{word}: {amounts}")
    return Statement(f"{_about(gains.column, gains.rows[0].cell)}, gain by training", "; ".join(parts) + ".")


def _ordered(order: PrintedOrder) -> OrderFindings:
    counts = Counter(pair.lead.verdict for pair in order.pairs)
    summary = ", ".join(f"{counts[verdict]} {word}" for verdict, word in ORDER_WORDS.items() if counts[verdict])
    lines = tuple(_pair_line(order.column, pair) for pair in order.pairs)
    pairs = _count(len(lines), "pair", "pairs")
    return OrderFindings(f"{order.title}, {order.data}", f"printed order of {pairs}: {summary}", lines)


def _pair_line(column: Column, pair: Pair) -> tuple[str, ...]:
    measured = signed(column, pair.lead.amount)
    if ends := pair.lead.ends:
        measured += f" ({signed(column, ends.low)} to {signed(column, ends.high)})"
    return pair.better, pair.worse, " and ".join(pair.printed), measured, ORDER_WORDS[pair.lead.verdict]


def _about(column: Column, cell: Cell) -> str:
    return " ".join(filter(None, (column.title, column.unit, f"[{cell.mark}]" * bool(cell.mark))))


def _number(column: Column, cell: Cell) -> str:
    assert cell.value is not None, "only numbers are compared"
    parts = [f"{number(column, cell.interval.low)} to {number(column, cell.interval.high)}"] if cell.interval else []
    parts.append("1 seed" if cell.value.n == 1 else f"{cell.value.n} seeds")
    parts += [f"n {cell.items:,}"] if cell.items else []
    return f"{number(column, cell.value.mean)} ({', '.join(parts)})"


def _leads(column: Column, leads: Sequence[Lead]) -> str:
    return ", ".join(
        f"{lead.name} by {number(column, lead.amount)}"
        + (f" ({number(column, lead.ends.low)} to {number(column, lead.ends.high)})" if lead.ends else "")
        for lead in leads
    )


def _paired(leads: Sequence[Lead]) -> str:
    pairs = [lead.ends.paired for lead in leads if lead.ends]
    if all(pairs):
        return "Differences are paired by test items."
    return "Differences are from each row's own interval." if not any(pairs) else "Some differences are paired."


def number(column: Column, value: float) -> str:
    """A number as the column writes it, with a true minus; what rounds to 0 has no sign."""
    text = f"{value:,.{column.decimals}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text.replace("-", "−")


def signed(column: Column, value: float) -> str:
    """A difference with its sign."""
    text = number(column, value)
    return text if text.startswith("−") or not text.strip("0.,") else f"+{text}"
