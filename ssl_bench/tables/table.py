"""A table as values: what `fold` makes and `render` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ssl_bench.protocol import NO_PROTOCOL, Protocol
from ssl_bench.tables.description import Key, TableDescription


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (None for n = 1) over n seeds."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class EvaluationData:
    """A data set that numbers were measured on."""

    name: str
    fingerprint: str
    synthetic: bool

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
    evaluated_on: EvaluationData | None = None
    """None: the training data."""

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


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone."""

    keys: tuple[str, ...]
    settings: str
    """What tells it from rows with the same keys."""
    data: str
    """Name, fingerprint and `synthetic` are the training data's."""
    fingerprint: str
    synthetic: bool
    finished: int
    collapsed: int
    failed: int
    cells: tuple[Cell, ...]
    published: tuple[tuple[str, ...], ...]
    """Per published source, the text of each of its columns; empty texts where nothing is printed."""
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Rows that stand under one heading."""

    heading: str
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


def data_title(name: str, synthetic: bool) -> str:
    """The data set's name as tables print it: synthetic says so."""
    return f"{name} (synthetic)" if synthetic else name
