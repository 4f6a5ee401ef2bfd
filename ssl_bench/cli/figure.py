"""`sslbench figure`: draw what tables and curves hold, with the values as CSV beside the picture."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.options import RESULTS
from ssl_bench.errors import UserError, unknown_name
from ssl_bench.system.hints import command
from ssl_bench.system.memory import cycles_uncollected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssl_bench.figures.curves import RunCurves
    from ssl_bench.figures.loading import FigureSource
    from ssl_bench.figures.values import Figure
    from ssl_bench.tables.grouping import RecordFacts

STYLES = ("png", "svg", "pdf")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(
        epilog="Example, after `sslbench run dino --arch deit_s16 --eval-every 1`: sslbench figure curves dino"
    )
    @cycles_uncollected()
    def figure(
        name: Annotated[
            str | None,
            typer.Argument(
                metavar="NAME|FILE|curves",
                help="a figure of sslbench's (--list), a description of your own (.toml), or curves for those of "
                "runs [default: each of sslbench's that there are records for]",
            ),
        ] = None,
        runs: Annotated[
            list[str] | None,
            typer.Argument(metavar="[RUN]...", help="for curves: runs by name, the beginning of one, or folder"),
        ] = None,
        style: Annotated[str, typer.Option("--format", metavar="png|svg|pdf", help="kind of picture")] = "png",
        where: Annotated[
            list[str] | None,
            typer.Option(metavar="KEY=VALUE", help="only runs with this value, as in sslbench table; repeatable"),
        ] = None,
        values: Annotated[
            str | None,
            typer.Option(metavar="NAME,NAME", help="for curves: which ones, e.g. knn,loss [default: all]"),
        ] = None,
        out: Annotated[
            Path | None, typer.Option(metavar="DIR", help="where to write [default: figures/ in --results]")
        ] = None,
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs/ is read")] = RESULTS,
        list_figures: Annotated[bool, typer.Option("--list", help="show which figures there are and stop")] = False,
    ) -> None:
        """Draw a figure from the records under results/, and write its values as CSV beside it.

        Writes DIR/ID.png (or .svg, .pdf) and DIR/ID.csv. Lines and bars are means over seeds, with one standard
        deviation; printed values stand in panels that say so. Exit status 1 when a file could not be read.
        """
        from ssl_bench.figures.loading import CURVES, built_in_figures

        if style not in STYLES:
            raise unknown_name("format", style, STYLES, "sslbench figure --help")
        if list_figures:
            known = built_in_figures() | {CURVES: "Logged values and accuracies of any runs over training"}
            print("\n".join(f"{one}  {title}" for one, title in known.items()))
            return
        folder = out or results / "figures"
        if name == CURVES:
            if where:
                raise UserError("--where is for figures of tables; figure curves takes the runs themselves")
            problems = _draw_runs(runs or [], values, results, folder, style)
        elif runs:
            raise UserError(f"only figure curves takes runs: sslbench figure {CURVES} {' '.join(runs)}")
        elif values is not None:
            raise UserError("--values is for sslbench figure curves RUN...")
        else:
            problems = _draw_tables(name, where or [], results, folder, style)
        for problem in problems:
            print(f"warning: left out: {problem}", file=sys.stderr)
        if problems:
            raise typer.Exit(1)


def _draw_runs(texts: Sequence[str], values: str | None, results: Path, folder: Path, style: str) -> list[str]:
    from ssl_bench.figures.curves import RunCurves
    from ssl_bench.figures.of_runs import curves_figure
    from ssl_bench.records.reading import read_record
    from ssl_bench.runs.folder import find_run

    if not texts:
        raise UserError("figure curves needs runs, e.g. sslbench figure curves dino (sslbench show RUN prints one)")
    found: dict[Path, RunCurves] = {}
    for text in texts:
        run_dir = find_run(text, results)
        path = run_dir / "record.json"
        found[run_dir] = RunCurves(run_dir, read_record(path) if path.exists() else None)
    chosen = None if values is None else [one.strip() for one in values.split(",") if one.strip()]
    if chosen == []:
        raise UserError("--values names no curve, e.g. --values knn,loss")
    figure = curves_figure(list(found.values()), chosen)
    name = f"curves-{next(iter(found)).name}" if len(found) == 1 else "curves"
    _write(figure, folder, name, style)
    return [problem for run in found.values() for problem in run.problems]


def _draw_tables(name: str | None, where: Sequence[str], results: Path, folder: Path, style: str) -> list[str]:
    from ssl_bench.figures.curves import RunCurves
    from ssl_bench.figures.loading import built_in_figures, load_figure
    from ssl_bench.records.reading import read_usable
    from ssl_bench.registry.preset_files import presets_of
    from ssl_bench.tables.grouping import RecordFacts
    from ssl_bench.tables.loading import shown_metrics

    sources = [load_figure(name)] if name else [load_figure(known) for known in built_in_figures()]
    found, problems = read_usable(results, shown_metrics(source.table for source in sources))
    runs = {record.run_id: RunCurves(path.parent, record) for path, record in found}
    records = [RecordFacts(record, presets_of) for _, record in found]
    figures = [_folded(source, records, runs, where, asked=name is not None) for source in sources]
    drawn = [figure for figure in figures if figure and figure.strips]
    suffix = "".join(f"-{re.sub(r'[^A-Za-z0-9_.=-]+', '_', text)}" for text in where)
    for figure in drawn:
        _write(figure, folder, f"{figure.id}{suffix}", style)
    if not found:
        first = command("run", "dino", "--arch", "deit_s16", results=results)
        print(f"no record under {results / 'runs'} yet, nothing drawn. Make the first: {first}")
    elif not drawn:
        print(f"none of the {len(found)} records under {results / 'runs'} has what {name or 'a figure'} shows")
    return [*problems, *(problem for run in runs.values() for problem in run.problems)]


def _folded(
    source: FigureSource,
    records: Sequence[RecordFacts],
    runs: dict[str, RunCurves],
    where: Sequence[str],
    *,
    asked: bool,
) -> Figure | None:
    """None for a figure of a table that is not worth showing unasked."""
    from ssl_bench.figures.fold import fold as figure_of
    from ssl_bench.figures.fold import require_curves
    from ssl_bench.tables.choosing import narrowed
    from ssl_bench.tables.fold import fold

    description, published = source.table
    table = fold(narrowed(description, records, where), records, published)
    if not asked and not table.compares:
        return None
    if asked:
        require_curves(source.description, table, runs)
    return figure_of(source.description, table, runs)


def _write(figure: Figure, folder: Path, name: str, style: str) -> None:
    from ssl_bench.figures.csv_text import to_csv
    from ssl_bench.figures.drawing import FORMATS, draw
    from ssl_bench.system.files import write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}. Choose another with --out DIR") from None
    written = folder / f"{name}.csv", folder / f"{name}.{style}"
    write_atomically(written[0], to_csv(figure).encode())
    write_atomically(written[1], draw(figure, FORMATS[FORMATS.index(style)]))
    print(f"written: {written[1]}, {written[0]}")
