"""`sslbench table`: fold the records under results/ into tables, on screen and as files."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.run import RESULTS
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.tables.table import Table

FIRST_RUN = "sslbench run dino --arch deit_s16"


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
    ) -> None:
        """Fold the records under results/ into tables.

        Prints Markdown and writes DIR/tables/ID.md and ID.csv. Mean and standard deviation are over seeds; published
        figures stand in columns of their own. Exit status 1 when a record could not be read; the others are tabulated.
        """
        from ssl_bench.record import read_all
        from ssl_bench.tables.fold import fold
        from ssl_bench.tables.loading import built_in_tables, load_table

        if list_tables:
            for known, title in built_in_tables().items():
                typer.echo(f"{known}  {title}")
            return
        sources = [load_table(name)] if name else [load_table(known) for known in built_in_tables()]
        found, problems = read_all(results)
        records = [record for _, record in found]
        tables = [fold(source.description, records, source.published) for source in sources]
        filled = [table for table in tables if table.blocks]
        for table in filled or tables[:1]:
            # what is printed in papers is long and always the same: on screen only while there is nothing else to show
            typer.echo(_for_screen(table, published_lists=not table.blocks))
        for table in filled:
            _write(table, results / "tables")
        if records and not filled:
            typer.echo(f"none of the {len(records)} records under {results / 'runs'} counts for this table")
        elif not records:
            typer.echo(f"no record under {results / 'runs'} yet, nothing written. Make the first: {FIRST_RUN}")
        for problem in problems:
            typer.echo(f"warning: left out: {problem}", err=True)
        if problems:
            raise typer.Exit(1)


def _write(table: Table, folder: Path) -> None:
    from ssl_bench.record import write_atomically
    from ssl_bench.tables.render import to_csv, to_markdown

    _make(folder)
    markdown, csv = folder / f"{table.description.id}.md", folder / f"{table.description.id}.csv"
    write_atomically(markdown, to_markdown(table).encode())
    write_atomically(csv, to_csv(table).encode())
    for published in table.published:
        typer.echo(f"published: {len(published.rows)} printed rows ({published.data}) stand in {markdown}")
    typer.echo(f"written: {markdown}, {csv}")


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
    if not sys.stdout.isatty() or max(len(line) for line in text.splitlines()) <= width:
        return text
    if any(len(line) > width for line in text.splitlines() if line.startswith("|")):
        text = to_markdown(folded, published_lists=published_lists, write_grid=lambda grid: folded_grid(grid, width))
    return "\n".join(line if len(line) <= width else _wrapped(line, width) for line in text.splitlines())


def _wrapped(line: str, width: int) -> str:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
