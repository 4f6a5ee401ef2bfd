"""TableDescription: what a table shows, as data. One TOML file per table; `fold` makes the table from records alone.

A description names what tells rows apart (`row`), what is shown (`column`), which records count (`filter`) and which
published numbers stand beside them (`published`). Values come from a record by a dotted path (`backbone.name`,
`recipe.method.settings.local_views`) or from an evaluation by `measurement:EVALUATOR.METRIC:SUBJECT`, where METRIC
may be `primary` and SUBJECT is `trained` or `untrained`. benchmarks/tables/comparison.toml is the example to copy.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from pydantic import AliasChoices, Field

from ssl_bench.tables.paths import plain_text, singular
from ssl_bench.tables.variants import VARIANT, DescriptionPart, Runs

Scalar = str | int | float | bool
_MEASUREMENT = re.compile(r"measurement:([^.:]+)\.([^:]+):(trained|untrained)")


class Source(NamedTuple):
    """An evaluator's number: which evaluator, which metric ("primary" or a name), of which network."""

    evaluator: str
    metric: str
    subject: str


def parse_source(path: str) -> Source | None:
    """`measurement:knn.primary:trained` in its parts; None for anything else."""
    found = _MEASUREMENT.fullmatch(path)
    return Source(*found.groups()) if found else None


class Key(DescriptionPart):
    """Something that tells rows apart; its text is shown."""

    id: str
    title: str = ""
    """Header of its column; the id when empty."""
    path: str = Field("", alias="from")
    """Dotted path into the record. In a table with `[runs]` also `variant.name`, or empty for the text that each
    variant shows, which is `variant.ID` once the description is loaded."""
    show: str = "{}"
    """How the value is written, e.g. "{} epochs"."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Words for values, e.g. { "0" = "no", "*" = "yes" }; "*" stands for every other value."""

    @property
    def of_variant(self) -> bool:
        """Whether it is the text of a variant, which only runs of a variant have."""
        return self.path.startswith(f"{VARIANT}.")

    def text(self, value: Any) -> str:
        """The value in words: `labels` first, then `show`; empty for None."""
        plain = plain_text(value)
        if plain in self.labels:
            return self.labels[plain]
        if "*" in self.labels:
            return self.labels["*"]
        return singular(self.show.replace("{}", plain)) if plain else ""


class Column(DescriptionPart):
    """One measured value: mean and sample standard deviation over the seeds of a row."""

    id: str
    title: str
    path: str = Field(alias="from")
    """`measurement:EVALUATOR.METRIC:SUBJECT`, or a dotted path to a number."""
    baseline: str = ""
    """A second measurement of the same evaluator and metric, shown before an arrow: usually the untrained network."""
    unit: str = ""
    scale: float = 1.0
    """Factor on the stored value, e.g. 1e-6 for millions."""
    decimals: int = Field(1, ge=0, le=9)
    protocol: str = ""
    """For a dotted path: what decides whether two values compare, with paths in braces, e.g.
    "{backbone.inference_batch} images per forward on {machine.device}". A measurement brings its own."""
    evidence: str = ""
    """For a dotted path: a second path; the value counts only in records that have one there, too."""
    why_empty: str = ""
    """For a dotted path: the path of a text that says why a record has no value; a note below the table repeats it."""
    any_status: bool = False
    """True for what holds for a collapsed run too, e.g. the number of parameters."""
    evaluated_on: Literal["training-data", "any"] = "training-data"
    """Whether only evaluations on the block's own data count, or any (which the row names then)."""

    @property
    def source(self) -> Source | None:
        """The measurement that `from` names, or None for a dotted path."""
        return parse_source(self.path)


class PublishedColumn(DescriptionPart):
    """One column of a published CSV file."""

    column: str
    title: str
    beside: str = ""
    """The word before the figure in the rows of measured runs, e.g. "k-NN"; empty: only in the published list."""
    prints: str = ""
    """Id of the table's column that it is a printed value of: the report compares the order of both."""


class Published(DescriptionPart):
    """Printed numbers: a CSV file, how its rows meet the table's, and what they are numbers of."""

    file: str
    """Name of a file in benchmarks/published, or a path relative to the description."""
    data: str
    """The dataset they are for, e.g. "ImageNet-1k"; part of every header that shows them."""
    data_names: tuple[str, ...] = ()
    """Names under which runs on that very data are recorded, e.g. ["imagenet"]."""
    source: str
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Column of the CSV file -> the texts that it has in the rows that count; empty: all rows."""
    join: dict[str, str]
    """Row id -> column of the CSV file. A variant may show texts for ids that are no row: they join alone."""
    columns: tuple[PublishedColumn, ...]
    listed: bool = False
    """Whether the file's rows stand in a list of their own; other files join that list."""


class IncludedKeys(DescriptionPart):
    """A file that descriptions include."""

    distinguish: tuple[Key, ...] = Field(min_length=1)


class TableDescription(DescriptionPart):
    """A whole table."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Names the files it is written to."""
    title: str
    source: str = ""
    """Where the table that it regenerates stands, e.g. "thesis, Table 5.1"."""
    about: str = ""
    data: Literal["section", "column", "evaluation"] = "section"
    """"section": a block for each dataset that was trained on; "evaluation": for each that was evaluated on, so that
    what compares stands together whatever it was trained on; "column": one block with the training data as a column.
    Both datasets of a row are always named."""
    filter: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    """Dotted path -> the value or values that a record must have to count."""
    include: tuple[str, ...] = ()
    """Files with `distinguish` keys that several tables share, beside the description or in benchmarks/tables. A key
    of the description replaces the included one of the same id."""
    evaluated_by: str = Field("", validation_alias=AliasChoices("evaluated_by", "judged_by"))
    """Name of an evaluator: only records with an evaluation by it count; empty: all. Formerly `judged_by`."""
    row: tuple[Key, ...] = Field(min_length=1)
    distinguish: tuple[Key, ...] = ()
    """Shown in words where rows differ in it, in the block's heading where they agree. What else differs between
    two recipes whose rows would look alike is shown by itself."""
    column: tuple[Column, ...] = ()
    """None only for a table that lists what is printed, since nothing measures it yet."""
    published: tuple[Published, ...] = ()
    references: tuple[str, ...] = ("random", "supervised")
    """Methods that are floor or ceiling of a comparison: their rows are never marked as the best."""
    order_by: tuple[str, ...] = ()
    """Row ids by which rows are sorted first."""
    compare_within: tuple[str, ...] = ()
    """Row ids in which two rows must agree for the report to compare them, e.g. ["arch"]."""
    runs: Runs | None = None
    """The runs that fill the table. Where a row is of the variants, only their runs count."""

    @property
    def row_ids(self) -> list[str]:
        """Ids of its rows."""
        return [key.id for key in self.row]

    @property
    def joining_ids(self) -> list[str]:
        """Ids by which published rows join that are no row: the variants show a text for them."""
        ids = dict.fromkeys(name for part in self.published for name in part.join)
        return [name for name in ids if name not in self.row_ids] if self.runs else []

    @property
    def of_variants(self) -> bool:
        """Whether only runs of a variant count, one row or more for each."""
        return any(key.of_variant for key in self.row)

    @property
    def metrics(self) -> set[tuple[str, str]]:
        """(evaluator, metric) of all measurements that it shows; "primary" for an evaluator's main one."""
        return {(one.source.evaluator, one.source.metric) for one in self.column if one.source}
