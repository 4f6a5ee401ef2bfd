"""`sslbench report`: one HTML file of all that records say, which opens without a network."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ssl_bench.cli.options import RESULTS
from ssl_bench.errors import UserError
from ssl_bench.system.hints import command

FILE = "report.html"
ENDINGS = (".html", ".htm")
MOST_WARNINGS = 10


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: sslbench report --findings results/README.md")
    def report(
        names: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="NAME|FILE",
                help="tables of sslbench's (sslbench table --list), or descriptions of your own (.toml) "
                "[default: each of sslbench's that there are records for]",
            ),
        ] = None,
        results: Annotated[Path, typer.Option(metavar="DIR", help="where runs/ is read")] = RESULTS,
        out: Annotated[
            Path | None, typer.Option(metavar="FILE.html", help=f"what is written [default: DIR/{FILE}]")
        ] = None,
        title: Annotated[str, typer.Option(metavar="TEXT", help="the page's title")] = "sslbench report",
        findings: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE.md", help="your own text, as Markdown, beside the findings made from the tables"
            ),
        ] = None,
        check: Annotated[
            bool, typer.Option("--check", help="write nothing; exit status 1 if the page is not what the records give")
        ] = False,
    ) -> None:
        """Write one HTML file of findings, tables, figures, pictures, and the runs behind each number.

        It holds everything it shows, so that it opens offline and can be sent as it is. The same records give the same
        file. Exit status 1 when a record could not be read or a file beside one was changed; the page lists them.
        """
        from ssl_bench.report.contents import Asked, gather
        from ssl_bench.report.page import page

        place = _place(out.expanduser() if out else results / FILE)
        given = ["--title", title] if title != "sslbench report" else []
        given += ["--findings", str(findings)] if findings else []
        again = command("report", *(names or ()), *given, results=results)
        contents = gather(Asked(tuple(names or ()), results, title, findings, again))
        if contents is None:
            first = command("run", "dino", "--arch", "deit_s16", results=results)
            print(f"no record under {results / 'runs'} yet, nothing written. Make the first: {first}")
            return
        text = page(contents)
        if check:
            differs = not place.is_file() or place.read_text("utf-8", "replace") != text
            print(f"{place} is {'not ' if differs else ''}what the records give" + f": {again}" * differs)
        else:
            differs = False
            _write(place, text)
            print(
                f"written: {place} ({len(text.encode()) / 1e6:.1f} MB, {len(contents.tables)} tables, "
                f"{len(contents.figures)} figures, {len(contents.pictures)} pictures)"
            )
            own = results / "README.md"
            if findings is None and own.is_file():
                print(
                    f"your own text beside it: {command('report', *(names or ()), '--findings', own, results=results)}"
                )
        _warn(contents.problems)
        if differs or contents.problems:
            raise typer.Exit(1)


def _warn(problems: Sequence[str]) -> None:
    for problem in problems[:MOST_WARNINGS]:
        print(f"warning: {problem}", file=sys.stderr)
    if len(problems) > MOST_WARNINGS:
        print(f"warning: {len(problems) - MOST_WARNINGS:,} more; the page has all of them", file=sys.stderr)


def _place(path: Path) -> Path:
    """Raises `UserError` for a place where no page can or should be written."""
    from ssl_bench.report.page import MARK

    if path.is_dir():
        raise UserError(f"--out {path} is a folder. Give a file, e.g. --out {path / FILE}")
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {path} does not end in .html, as what is written does. Give e.g. --out {path}.html")
    if path.exists():
        with path.open("rb") as stream:
            if MARK.encode() not in stream.read(4096):
                raise UserError(f"{path} is not a page that sslbench report wrote, so it is kept. Give another --out")
    return path


def _write(path: Path, text: str) -> None:
    from ssl_bench.system.files import write_atomically

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent}: {error.strerror}. Choose another with --out") from None
    write_atomically(path, text.encode())
