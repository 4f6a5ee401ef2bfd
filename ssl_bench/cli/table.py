"""`sslbench table`: fold the records under results/ into tables, on screen and as files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.options import RESULTS
from ssl_bench.cli.terminal import terminal
from ssl_bench.errors import UserError, unknown_name
from ssl_bench.system.hints import command
from ssl_bench.system.memory import cycles_uncollected

if TYPE_CHECKING:
    from ssl_bench.tables.grouping import RecordFacts
    from ssl_bench.tables.loading import TableSource
    from ssl_bench.tables.table import Table

FORMATS = ("md", "csv", "latex", "html")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: sslbench table comparison --where method=dino --sort knn")
    @cycles_uncollected()
    def table(
        name: Annotated[
            str | None,
            typer.Argument(
                metavar="NAME|FILE",
                help="a table of sslbench's (--list), or a description of your own (.toml) "
                "[default: each of sslbench's that there are records for]",
            ),
        ] = None,
        where: Annotated[
            list[str] | None,
            typer.Option(
                metavar="KEY=VALUE",
                help="only runs with this method, arch, data, seed, status or setting, e.g. method=dino or "
                "training.epochs=3; repeatable",
            ),
        ] = None,
        sort: Annotated[
            str | None,
            typer.Option(metavar="COLUMN", help="sort rows by this column, best first; -COLUMN: worst first"),
        ] = None,
        style: Annotated[
            str | None,
            typer.Option(
                "--format", metavar="md|csv|latex|html", help="what is printed [default: md; drawn on a terminal]"
            ),
        ] = None,
        results: Annotated[
            Path, typer.Option(metavar="DIR", help="where runs/ is read and tables/ is written")
        ] = RESULTS,
        explain: Annotated[
            str | None,
            typer.Option(
                metavar="ROW",
                help="show the records behind each cell of a row instead: its number from 1, or words that stand in it",
            ),
        ] = None,
        list_tables: Annotated[bool, typer.Option("--list", help="show which tables there are and stop")] = False,
        check: Annotated[
            bool,
            typer.Option(
                "--check", help="write nothing; exit status 1 if a table under DIR/tables is not what the records give"
            ),
        ] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="print one JSON document: every number in full precision")
        ] = False,
    ) -> None:
        """Fold the records under results/ into tables.

        Draws them on a terminal, prints Markdown elsewhere, and writes DIR/tables/ID.md and ID.csv, unless --where or
        --sort asks for another view. Mean and standard deviation are over seeds; published figures stand in columns of
        their own. Exit status 1 when a record could not be read or a file beside one was changed; the others are
        tabulated. --check is for continuous integration: it compares and shows what differs.
        """
        from ssl_bench.tables.checks import require_measured
        from ssl_bench.tables.choosing import sorted_by, sorting_names
        from ssl_bench.tables.loading import built_in_tables, load_table
        from ssl_bench.tables.written import drift, write_tables

        if style is not None and style not in FORMATS:
            raise unknown_name("format", style, FORMATS, "sslbench table --help")
        if explain is not None and name is None:
            raise UserError(f"--explain {explain!r}: say of which table, e.g. sslbench table comparison --explain 1")
        if list_tables:
            known = built_in_tables()
            if as_json:
                print_json({"tables": [{"id": one, "title": title} for one, title in known.items()]})
            else:
                print("\n".join(f"{one}  {title}" for one, title in known.items()))
            return
        sources = [load_table(name)] if name else [load_table(known) for known in built_in_tables()]
        own = name is not None and name.endswith(".toml")
        if check and (where or sort):
            raise UserError("--check compares whole tables: leave --where and --sort out")
        read = _Read(results, sources, every_metric=own)
        records, problems, changed = read.records, read.problems, read.changed
        if name and own:
            require_measured(sources[0].description, [record for _, record in read.found], name)
        tables = read.tables(where or ())
        if check:
            drifted = drift(tables, results / "tables")
            if as_json:
                differences = {str(path): lines for path, lines in drifted.items()}
                print_json({"differ": differences, "left_out": problems, "changed_files": changed})
            else:
                _print_drift(tables, drifted, results)
            _warn(problems, changed)
            raise typer.Exit(1 if drifted or problems or changed else 0)
        filled = [table for table in tables if table.blocks and (name or table.compares)]
        if sort:
            sortable = [table for table in filled if sort.removeprefix("-") in sorting_names(table)] or filled[-1:]
            filled = [sorted_by(table, sort) if table in sortable else table for table in filled]
        if explain is not None:
            _explain((filled or tables)[0], records, explain, as_json)
            _warn(problems, changed)
            raise typer.Exit(1 if problems or changed else 0)
        whole = [] if where or sort else filled  # the files hold all runs, in the description's order
        written = write_tables(whole, results / "tables")  # before a pipe can close
        if as_json:
            from ssl_bench.tables.plain import to_plain

            shown = [to_plain(table) for table in filled or tables[:1]]
            print_json(
                {"tables": shown, "written": list(map(str, written)), "left_out": problems, "changed_files": changed}
            )
        elif style == "csv":
            _print_csv(filled or tables[:1])
        elif style in ("latex", "html"):
            _print_for_documents(filled or tables[:1], style)
        else:
            _print(filled or tables[:1], drawn=style is None)
            _print_written(whole, written)
            if records and not filled:
                print(f"none of the {len(records)} records under {results / 'runs'} counts for this table")
            elif not records:
                first = command("run", "dino", "--arch", "deit_s16", results=results)
                print(f"no record under {results / 'runs'} yet, nothing written. Make the first: {first}")
        _warn(problems, changed)
        if problems or changed:
            raise typer.Exit(1)


class _Read:
    """The records under `results` for some tables, and what is wrong with their files."""

    def __init__(self, results: Path, sources: list[TableSource], *, every_metric: bool = False) -> None:
        from ssl_bench.records.beside import changed_files
        from ssl_bench.records.reading import read_usable
        from ssl_bench.registry.preset_files import presets_of
        from ssl_bench.tables.grouping import RecordFacts
        from ssl_bench.tables.loading import shown_metrics

        self.sources = sources
        self.found, self.problems = read_usable(results, None if every_metric else shown_metrics(sources))
        self.records = [RecordFacts(record, presets_of) for _, record in self.found]
        self.changed = [line for path, record in self.found for line in changed_files(record, path.parent)]

    def tables(self, where: Sequence[str] = ()) -> list[Table]:
        """Each folded from the records that `where` leaves."""
        from ssl_bench.records.outcomes import OutcomesOfRuns
        from ssl_bench.tables.choosing import narrowed
        from ssl_bench.tables.fold import fold

        outcomes = OutcomesOfRuns({record.run_id: path.parent for path, record in self.found})
        return [
            fold(narrowed(one.description, self.records, where), self.records, one.published, outcomes)
            for one in self.sources
        ]


def show_tables(sources: list[TableSource], results: Path) -> None:
    """Print and write tables of all records under `results`, as `sslbench table` does without options."""
    from ssl_bench.tables.written import write_tables

    read = _Read(results, sources)
    filled = [table for table in read.tables() if table.blocks]
    written = write_tables(filled, results / "tables")
    _print(filled, drawn=True)
    _print_written(filled, written)
    _warn(read.problems, read.changed)


def _print(tables: list[Table], *, drawn: bool) -> None:
    """What is printed in papers is long and always the same: shown only while there is nothing else to show."""
    console = terminal() if drawn else None
    for table in tables:
        if console is None:
            from ssl_bench.tables.render import to_markdown

            print(to_markdown(table, published_lists=not table.blocks))
        else:
            from ssl_bench.tables.terminal import draw

            draw(console, table, published_lists=not table.blocks)


def _print_for_documents(tables: list[Table], style: str) -> None:
    from ssl_bench.tables.html import to_html
    from ssl_bench.tables.latex import to_latex

    written = to_latex if style == "latex" else to_html
    print("\n".join(written(table, published_lists=not table.blocks) for table in tables), end="")


def _explain(table: Table, records: list[RecordFacts], row: str, as_json: bool) -> None:
    from ssl_bench.tables.explain import as_text, explain, to_plain

    evidence = explain(table, records, row)
    if as_json:
        print_json({"table": table.description.id, "rows": to_plain(evidence)})
    else:
        print(as_text(evidence))


def _print_csv(tables: list[Table]) -> None:
    from ssl_bench.tables.render import to_csv

    if len(tables) > 1:
        names = ", ".join(table.description.id for table in tables)
        raise UserError(f"--format csv prints one table, and there are records for {names}: name one of them")
    print(to_csv(tables[0]), end="")


def _print_written(tables: list[Table], written: list[Path]) -> None:
    for table, markdown, csv in zip(tables, written[::2], written[1::2], strict=True):
        for published in table.published:
            print(f"published: {len(published.rows)} printed rows ({published.data}) stand in {markdown}")
        print(f"written: {markdown}, {csv}")


def _print_drift(tables: list[Table], drifted: Mapping[Path, list[str]], results: Path) -> None:
    for path, lines in drifted.items():
        print("\n".join([f"{path} is not what the records give:", *(f"  {line}" for line in lines)]))
    if drifted:
        print(f"write {'it' if len(drifted) == 1 else 'them'} again with: {command('table', results=results)}")
        return
    filled = sum(bool(table.blocks) for table in tables)
    print(f"tables under {results / 'tables'} that are as the records give them: {filled}")


def _warn(left_out: list[str], changed: list[str]) -> None:
    for line in (*(f"left out: {problem}" for problem in left_out), *changed):
        print(f"warning: {line}", file=sys.stderr)
