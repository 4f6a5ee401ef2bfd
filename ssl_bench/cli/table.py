"""`sslbench table`: fold the records under results/ into tables, on screen and as files."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.options import RESULTS
from ssl_bench.errors import UserError
from ssl_bench.hints import command

if TYPE_CHECKING:
    from ssl_bench.tables.table import Table


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: sslbench table comparison")
    def table(
        name: Annotated[
            str | None,
            typer.Argument(
                metavar="NAME|FILE",
                help="a table of sslbench's (--list), or a description of your own (.toml) "
                "[default: each of sslbench's that there are records for]",
            ),
        ] = None,
        results: Annotated[
            Path, typer.Option(metavar="DIR", help="where runs/ is read and tables/ is written")
        ] = RESULTS,
        list_tables: Annotated[bool, typer.Option("--list", help="show which tables there are and stop")] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="print one JSON document: every number in full precision")
        ] = False,
    ) -> None:
        """Fold the records under results/ into tables.

        Prints Markdown and writes DIR/tables/ID.md and ID.csv. Mean and standard deviation are over seeds; published
        figures stand in columns of their own. Exit status 1 when a record could not be read; the others are tabulated.
        """
        from ssl_bench.records.odd_values import read_usable
        from ssl_bench.tables.fold import fold
        from ssl_bench.tables.loading import built_in_tables, load_table

        if list_tables:
            known = built_in_tables()
            if as_json:
                print_json({"tables": [{"id": one, "title": title} for one, title in known.items()]})
            else:
                print("\n".join(f"{one}  {title}" for one, title in known.items()))
            return
        sources = [load_table(name)] if name else [load_table(known) for known in built_in_tables()]
        found, problems = read_usable(results)
        records = [record for _, record in found]
        tables = [fold(source.description, records, source.published) for source in sources]
        filled = [table for table in tables if table.blocks]
        written = [path for table in filled for path in _write(table, results / "tables")]  # before a pipe can close
        if as_json:
            from ssl_bench.tables.plain import to_plain

            shown = [to_plain(table) for table in filled or tables[:1]]
            print_json({"tables": shown, "written": list(map(str, written)), "left_out": problems})
        else:
            _print(tables, filled, written)
            if records and not filled:
                print(f"none of the {len(records)} records under {results / 'runs'} counts for this table")
            elif not records:
                first = command("run", "dino", "--arch", "deit_s16", results=results)
                print(f"no record under {results / 'runs'} yet, nothing written. Make the first: {first}")
        for problem in problems:
            print(f"warning: left out: {problem}", file=sys.stderr)
        if problems:
            raise typer.Exit(1)


def _print(tables: list[Table], filled: list[Table], written: list[Path]) -> None:
    for table in filled or tables[:1]:
        # what is printed in papers is long and always the same: on screen only while there is nothing else to show
        print(_for_screen(table, published_lists=not table.blocks))
    for table, markdown, csv in zip(filled, written[::2], written[1::2], strict=True):
        for published in table.published:
            print(f"published: {len(published.rows)} printed rows ({published.data}) stand in {markdown}")
        print(f"written: {markdown}, {csv}")


def _write(table: Table, folder: Path) -> tuple[Path, Path]:
    from ssl_bench.files import write_atomically
    from ssl_bench.tables.render import to_csv, to_markdown

    _make(folder)
    markdown, csv = folder / f"{table.description.id}.md", folder / f"{table.description.id}.csv"
    write_atomically(markdown, to_markdown(table).encode())
    write_atomically(csv, to_csv(table).encode())
    return markdown, csv


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}. Choose another with --results DIR"
        ) from None


def _for_screen(folded: Table, published_lists: bool) -> str:
    """Markdown; in a terminal that is too narrow for it, words fold within the cells instead of across the table."""
    from ssl_bench.tables.render import folded_grid, to_markdown

    text = to_markdown(folded, published_lists=published_lists)
    width = shutil.get_terminal_size().columns
    if sys.stdout is None or not sys.stdout.isatty() or max(len(line) for line in text.splitlines()) <= width:
        return text
    if any(len(line) > width for line in text.splitlines() if line.startswith("|")):
        text = to_markdown(folded, published_lists=published_lists, write_grid=lambda grid: folded_grid(grid, width))
    return "\n".join(line if len(line) <= width else _wrapped(line, width) for line in text.splitlines())


def _wrapped(line: str, width: int) -> str:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
