"""A table as values: what `fold` makes and `render` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ssl_bench.measurement import NO_PROTOCOL, Protocol
from ssl_bench.records.record import EvaluationRecord, RunRecord
from ssl_bench.tables.description import Key, TableDescription
from ssl_bench.tables.numbers import Interval, Number

DATA = "data"
"""Id of the column that names the training data."""


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (None for n = 1) over n seeds."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class TableData:
    """A dataset that a run was trained on, or that numbers were measured on."""

    name: str
    fingerprint: str
    synthetic: bool

    @classmethod
    def trained_on(cls, record: RunRecord) -> TableData:
        """A run's training data."""
        return cls(record.data.name, record.data.fingerprint, record.data.synthetic)

    @classmethod
    def measured_on(cls, evaluation: EvaluationRecord) -> TableData:
        """What an evaluator read."""
        return cls(evaluation.data, evaluation.data_fingerprint, evaluation.synthetic)

    @property
    def title(self) -> str:
        """Its name as tables print it."""
        return data_title(self.name, self.synthetic)


@dataclass(frozen=True)
class Conditions:
    """What the numbers of one cell share. Footnotes are written from it; nothing is read from their text."""

    protocol: Protocol = NO_PROTOCOL
    unit: str | None = None
    """Their unit where it is not the column's."""
    evaluated_on: TableData | None = None
    """None: the data of the block."""

    higher_is_better: bool | None = None
    """None: neither, e.g. a number of parameters."""

    @property
    def text(self) -> str:
        """Their footnote in one line; "" for a value that holds under any conditions."""
        unit = "" if self.unit is None else f" [in {self.unit or 'no unit'}]"
        on = self.evaluated_on
        place = f"; evaluated on {on.title}, fingerprint {on.fingerprint[:8]}" if on else ""
        return f"{self.protocol}{unit}{place}"


ANY_CONDITIONS = Conditions()


@dataclass(frozen=True)
class Cell:
    """One value of a row. All empty: nothing was measured."""

    value: Statistic | None = None
    baseline: Statistic | None = None
    conditions: Conditions = ANY_CONDITIONS
    word: str = ""
    """"collapsed", "failed" or "not finite" in the place of a number."""
    mark: str = ""
    """Letter of the footnote, where conditions differ within the block's column."""
    interval: Interval | None = None
    """Of `value`; None for what was not measured over test items."""
    baseline_interval: Interval | None = None
    items: int | None = None
    """Test items behind each seed's value."""
    best: bool = False
    """Whether it is the best of its column, or cannot be told from it (`intervals.with_best`)."""
    numbers: tuple[Number, ...] = field(default=(), repr=False, compare=False)
    """The values that `value` is the mean of."""
    baseline_numbers: tuple[Number, ...] = field(default=(), repr=False, compare=False)
    """The values that `baseline` is the mean of."""

    @property
    def before(self) -> Cell:
        """The baseline as a cell of its own, which can be compared with this one."""
        return Cell(
            self.baseline,
            conditions=self.conditions,
            interval=self.baseline_interval,
            items=self.items,
            numbers=self.baseline_numbers,
        )


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone."""

    keys: tuple[str, ...]
    settings: str
    """What tells it from rows with the same keys."""
    trained_on: TableData
    evaluated_on: TableData
    start: Literal["untrained", "pretrained"]
    """What the network is before the first step."""
    finished: int
    collapsed: int
    failed: int
    cells: tuple[Cell, ...]
    published: tuple[tuple[str, ...], ...]
    """Per published source, the text of each of its columns; empty texts where nothing is printed."""
    runs: tuple[str, ...]
    reference: bool = False
    """Floor or ceiling of a comparison, e.g. an untrained network: never marked as the best."""
    variant: str = ""
    """Name of the variant that it is, in a table of variants."""
    distinguished: tuple[str, ...] = ()
    """The first words of `settings`: those of the description's `distinguish`. Rows that agree in them compare."""


@dataclass(frozen=True)
class Block:
    """Rows that stand under one heading."""

    heading: str
    data: TableData | None
    """What all rows were trained on, or evaluated on where the description says so; None for a block of any data."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PublishedList:
    """Rows as printed; nothing in it was measured here."""

    heading: str
    data: str
    header: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    """Row ids, then CSV columns, to text."""


@dataclass(frozen=True)
class Table:
    """All that a renderer needs."""

    description: TableDescription
    keys: tuple[Key, ...]
    blocks: tuple[Block, ...]
    published: tuple[PublishedList, ...]

    @property
    def compares(self) -> bool:
        """Whether it is worth showing unasked: one of certain runs only, once it has half of its rows, and two."""
        description = self.description
        if description.runs is None or not description.of_variants:
            return True
        enough = max(2, len(description.runs.variant) / 2)
        return any(len({row.keys for row in block.rows}) >= enough for block in self.blocks)


def data_title(name: str, synthetic: bool) -> str:
    """The dataset's name as tables print it: synthetic says so."""
    return f"{name} (synthetic)" if synthetic else name
