"""FigureDescription: what a figure shows, as data. One TOML file a figure; its rows are those of a table.

`table` names the table whose rows are drawn: which runs count, which of them are averaged and what their rows are
called is decided there. benchmarks/figures/collapse.toml is the example to copy.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from ssl_bench.figures.values import Kind
from ssl_bench.tables.variants import DescriptionPart

STEP_VALUE, EVALUATION = "step:", "epoch:"


class CurveSource(NamedTuple):
    """Where the values of a line are: a logged value of steps.csv, or an evaluator's metric in curves.json."""

    by: Literal["step", "epoch"]
    evaluator: str
    name: str
    """The logged name, or the metric, which may be "primary"."""


def curve_source(y: str) -> CurveSource | None:
    """`step:NAME` or `epoch:EVALUATOR.METRIC` in its parts; None for anything else."""
    if y.startswith(STEP_VALUE) and len(y) > len(STEP_VALUE):
        return CurveSource("step", "", y.removeprefix(STEP_VALUE))
    evaluator, dot, metric = y.removeprefix(EVALUATION).partition(".")
    return (
        CurveSource("epoch", evaluator, metric) if y.startswith(EVALUATION) and dot and evaluator and metric else None
    )


class ReferenceDescription(DescriptionPart):
    """A horizontal line: a number, or the natural logarithm of a setting of the runs, e.g. ln K."""

    title: str
    value: float | None = None
    log_of: str = ""
    """Dotted path into the record, e.g. "recipe.method.settings.out_dim"."""


class Axis(DescriptionPart):
    """The x of points: a column of the table."""

    column: str
    title: str
    log: bool = False
    published: str = ""
    """Column of the published list with the printed value."""


class PanelDescription(DescriptionPart):
    """One quantity."""

    y: str
    """Lines: `step:NAME` for a value of steps.csv, `epoch:EVALUATOR.METRIC` for one of curves.json (METRIC may be
    primary). Points and bars: the id of a column of the table."""
    title: str = ""
    y_title: str = ""
    """What stands at the axis; empty: the title."""
    network: str = ""
    """For `epoch:`: only this network of the methods; empty: all of them."""
    reference: tuple[ReferenceDescription, ...] = ()
    published: str = ""
    """Points and bars: the column of the published list with the printed value."""


class FigureDescription(DescriptionPart):
    """A whole figure."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Names the files it is written to."""
    title: str
    source: str = ""
    """Where the figure that it regenerates stands, e.g. "thesis, Figure 5.10"."""
    table: str
    """Name of a table of sslbench's, or the path of a description, relative to this one."""
    kind: Kind
    panel: tuple[PanelDescription, ...] = Field(min_length=1)
    split: Literal["none", "row", "network"] = "none"
    """Lines of `epoch:`: a panel for each row, or for each network; none: all lines in one."""
    x: Axis | None = None
    """Of points."""
    series: tuple[str, ...] = ()
    """Points and bars: ids of the table's rows that name a line of points or the bars of one color; the other ids label
    points, or are the categories."""
    series_pattern: str = ""
    """Regular expression: what it matches of a series' name is the name, the rest goes into the label, e.g. "^[^/]+"
    makes of DeiT-S/16 the series DeiT-S and the label /16."""
    bars: tuple[str, ...] = ()
    """Bars: names of series that stand first, in this order."""
    baseline: str = ""
    """Bars: the name under which the network before training is drawn, e.g. "random"; empty: it is not."""
