"""Everything that the page shows, gathered from the records under a folder of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.errors import UserError
from ssl_bench.figures.curves import RunCurves
from ssl_bench.figures.fold import fold as figure_of
from ssl_bench.figures.loading import built_in_figures, load_figure
from ssl_bench.records.outcomes import OutcomesOfRuns
from ssl_bench.records.reading import read_usable
from ssl_bench.records.record import RunRecord
from ssl_bench.registry.preset_files import presets_of
from ssl_bench.report.figures import FigureView, figure_view
from ssl_bench.report.findings import TableFindings, at_a_glance, findings_of
from ssl_bench.report.pictures import PictureView, pictures_of
from ssl_bench.report.prose import prose_html, read_prose
from ssl_bench.report.runs import MOST_RECIPES, RunView, machine_text, run_view
from ssl_bench.report.tables import TableView, table_view
from ssl_bench.tables.checks import require_measured
from ssl_bench.tables.explain import explain_all
from ssl_bench.tables.fold import fold
from ssl_bench.tables.grouping import RecordFacts
from ssl_bench.tables.intervals import HOW
from ssl_bench.tables.loading import TableSource, built_in_tables, load_table
from ssl_bench.tables.table import Table


@dataclass(frozen=True)
class Asked:
    """What was typed."""

    names: tuple[str, ...]
    """Tables by name or file; empty: each of sslbench's that there are records for."""
    results: Path
    title: str
    findings: Path | None
    command: str
    """The command that makes the page again."""


@dataclass(frozen=True)
class Contents:
    """What the page is made of."""

    title: str
    command: str
    newest: str
    """When the newest run ended."""
    facts: tuple[tuple[str, str], ...]
    glance: tuple[str, ...]
    prose: str
    """The user's own text as HTML."""
    prose_file: str
    """Name of the file that it is from."""
    findings: tuple[TableFindings, ...]
    nothing: tuple[str, ...]
    """Titles of tables that nothing, or too little to compare, was measured for."""
    tables: tuple[TableView, ...]
    figures: tuple[FigureView, ...]
    pictures: tuple[PictureView, ...]
    more_pictures: str
    runs: tuple[RunView, ...]
    intervals: tuple[str, ...]
    left_out: tuple[str, ...]
    """A line for each file that could not be used."""
    unshown: tuple[str, ...]
    """Runs that stand behind no table of the page."""
    problems: tuple[str, ...]
    """`left_out`, and files that are not what their record names."""


def gather(asked: Asked) -> Contents | None:
    """The contents of the page; None where there is no record. Raises `UserError` for an unknown table."""
    by_name = _sources(asked.names)
    sources = list(by_name.values())
    prose = read_prose(asked.findings) if asked.findings else ""
    found, problems = read_usable(asked.results)
    if not found:
        if problems:
            raise UserError(f"no record under {asked.results / 'runs'} can be used: {'; '.join(problems)}")
        return None
    records = [record for _, record in found]
    for name, source in by_name.items():
        if name.endswith(".toml"):
            require_measured(source.description, records, name)
    outcomes = OutcomesOfRuns({record.run_id: path.parent for path, record in found})
    facts = [RecordFacts(record, presets_of) for record in records]
    tables = [fold(source.description, facts, source.published, outcomes) for source in sources]
    shown = [table for table in tables if table.blocks and (asked.names or table.compares)]
    behind = {run for table in shown for block in table.blocks for row in block.rows for run in row.runs}
    findings = tuple(findings_of(table, outcomes) for table in shown)
    curves = {record.run_id: RunCurves(path.parent, record) for path, record in found}
    pictures = pictures_of([(path, record) for path, record in found if record.run_id in behind])
    views = tuple(run_view(record, path, with_recipe=len(found) <= MOST_RECIPES) for path, record in found)
    figures = tuple(_figures(sources, tables, shown, curves))
    left_out = [*problems, *(line for one in curves.values() for line in one.problems)]
    left_out += [*outcomes.problems, *pictures.problems]
    changed = [warning for view in views for warning in view.changed]
    return Contents(
        title=asked.title,
        command=asked.command,
        newest=max(record.finished_utc for record in records),
        facts=tuple(_facts(records, len(behind))),
        glance=tuple(at_a_glance(findings)),
        prose=prose_html(prose) if prose else "",
        prose_file=asked.findings.name if asked.findings else "",
        findings=tuple(one for one in findings if one.blocks),
        nothing=tuple(table.description.title for table in tables if table not in shown),
        tables=tuple(table_view(table, explain_all(table, facts)) for table in shown),
        figures=figures,
        pictures=pictures.shown,
        more_pictures=pictures.left_out,
        runs=views,
        intervals=tuple(HOW.values()),
        left_out=tuple(dict.fromkeys(left_out)),
        unshown=tuple(sorted(record.run_id for record in records if record.run_id not in behind)),
        problems=tuple(dict.fromkeys([*left_out, *changed])),
    )


def _sources(names: Sequence[str]) -> dict[str, TableSource]:
    """Name as given -> table, each once. Raises `UserError` for an unknown one, and for two of one id."""
    sources: dict[str, TableSource] = {}
    ids: dict[str, TableSource] = {}
    for name in names or built_in_tables():
        source = load_table(name)
        known = ids.setdefault(source.description.id, source)
        if known.description != source.description:
            raise UserError(f"two of these tables have the id {source.description.id!r}: give {name} another one")
        if known is source:
            sources[name] = source
    return sources


def _figures(
    sources: Sequence[TableSource], tables: Sequence[Table], shown: Sequence[Table], curves: dict[str, RunCurves]
) -> list[FigureView]:
    """sslbench's figures of the tables that are shown."""
    by_id = {table.description.id: table for table in tables if table in shown}
    known = {source.description.id: source for source in sources}
    views = []
    for name in built_in_figures():
        source = load_figure(name)
        table_id = source.table.description.id
        if table_id in by_id and known[table_id].description == source.table.description:
            figure = figure_of(source.description, by_id[table_id], curves)
            views += [figure_view(figure)] if figure.strips else []
    return views


def _facts(records: Sequence[RunRecord], behind: int) -> list[tuple[str, str]]:
    """What all records share, and in what they differ, in a few lines."""
    statuses = Counter(record.status for record in records)
    ended = ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items()))
    versions = {
        name: sorted({record.versions[name] for record in records if name in record.versions})
        for name in ("sslbench", "torch", "python")
    }
    commits = sorted({record.git_commit or "not recorded" for record in records})
    return [
        ("runs", f"{len(records):,} ({ended}), of which {behind:,} stand behind the tables"),
        ("first and last run", f"{min(r.started_utc for r in records)} to {max(r.finished_utc for r in records)}"),
        ("machines", _counted([machine_text(record) for record in records])),
        ("versions", "; ".join(f"{name} {', '.join(found)}" for name, found in versions.items() if found)),
        ("commits", f"{len(commits):,}: {', '.join(one[:12] for one in commits[:4])}" + ", ..." * (len(commits) > 4)),
    ]


def _counted(texts: Sequence[str]) -> str:
    """Each text with its number of runs, most first; the five most frequent."""
    counts = Counter(texts)
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    said = [f"{text} ({count:,})" for text, count in ordered[:5]]
    more = len(ordered) - len(said)
    return "; ".join([*said, f"and {more:,} more"] if more else said)
