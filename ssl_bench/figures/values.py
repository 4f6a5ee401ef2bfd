"""A figure as values: what `fold` makes of records, `csv_text` writes and `drawing` draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssl_bench.measurement import unit_text


def in_brackets(unit: str) -> str:
    """A unit as axes write it, e.g. "(%)"; empty for a pure number."""
    return f"({text})" if (text := unit_text(unit)) else ""


Kind = Literal["lines", "points", "bars"]
"""Lines over training, points with an x of their own, or bars by category."""


@dataclass(frozen=True)
class Point:
    """One value: mean over `n` seeds, and their sample standard deviation (None for n = 1 and printed values)."""

    x: float
    """Of a bar the index of its category."""
    y: float
    std: float | None = None
    n: int = 1
    label: str = ""
    """What stands beside a point, e.g. "patch 8"; of a bar its category."""


@dataclass(frozen=True)
class Line:
    """Values that belong together: a curve, points that a line joins, or the bars of one color."""

    name: str
    points: tuple[Point, ...]
    style: int = 0
    """Color, dashes and marker: equal in all panels where lines mean the same."""
    runs: tuple[str, ...] = ()
    """Ids of the runs behind it; none for printed values."""
    unit: str = ""


@dataclass(frozen=True)
class Reference:
    """A horizontal line that a theory gives, e.g. ln K."""

    title: str
    value: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    kind: Kind
    title: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    references: tuple[Reference, ...] = ()
    categories: tuple[str, ...] = ()
    """Of bars: the texts below them."""
    log_x: bool = False
    published: str = ""
    """Where printed values come from; empty: everything in the panel was measured here."""


@dataclass(frozen=True)
class Strip:
    """Panels side by side under one heading."""

    heading: str
    panels: tuple[Panel, ...]
    share_y: bool = False
    """Whether all panels have one scale, because they show one quantity."""


@dataclass(frozen=True)
class Figure:
    """All that is drawn."""

    id: str
    title: str
    source: str
    strips: tuple[Strip, ...]
    notes: tuple[str, ...] = ()
