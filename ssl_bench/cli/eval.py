"""`sslbench eval`: evaluate a finished run's weights again, with other evaluators, settings or data."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.options import (
    DAVIS_HELP,
    DOWNLOAD_HELP,
    RESULTS,
    VOC_HELP,
    evaluator_names,
    parse_assignments,
)
from ssl_bench.cli.result import interval_text


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "eval",
        help="Evaluate a run's kept weights again, with other evaluators, settings or data.",
        epilog="Example: sslbench eval dino-deit_s16-shapes-s0-3f9c --with knn --set evaluators.knn.temperature=0.1",
    )(evaluate)


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run's id, the beginning of one, or its folder")],
    with_: Annotated[
        str | None,
        typer.Option("--with", metavar="NAME,NAME", help="evaluators [default: the run's, or --voc's and --davis's]"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", "--eval-data", metavar="NAME|PATH", help="other data, seen at the run's image size; repeatable"
        ),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help=DOWNLOAD_HELP)] = False,
    voc: Annotated[Path | None, typer.Option(metavar="DIR", help=VOC_HELP)] = None,
    davis: Annotated[Path | None, typer.Option(metavar="DIR", help=DAVIS_HELP)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="evaluators.NAME.SETTING, data.* or machine.*"),
    ] = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the evaluations as one JSON document; progress goes to stderr")
    ] = False,
) -> None:
    """Evaluate the trained network and its untrained self, and write the result beside the run's record."""
    from ssl_bench.runs.asking import mask_folders
    from ssl_bench.runs.folder import find_run
    from ssl_bench.runs.reevaluate import reevaluate

    folder = find_run(run, results)
    more, values = mask_folders(voc, davis)
    chosen = evaluator_names(with_)
    names = None if chosen is None else list(chosen)
    if more:
        names = list(dict.fromkeys((*(names or ()), *more)))
    values |= parse_assignments(set_ or []) | ({"data.download": True} if download else {})
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # whatever a plugin prints is no part of it
        paths, records = reevaluate(folder, names, data or (), values, say=lambda text: print(f"  ... {text}"))
    if as_json:
        evaluations = [record.model_dump(mode="json") for record in records]
        print_json({"run": str(folder), "evaluations": evaluations, "written": list(map(str, paths))})
        return
    width = max((len(one.metric) for record in records for one in record.measurements), default=0)
    named = max((len(record.evaluator) for record in records), default=0)
    for record in records:
        for one in record.measurements:
            digits = 2 if one.unit == "%" else 3
            ends = f"({words}) " if (words := interval_text(one)) else ""
            print(
                f"  {record.evaluator:{named}} {record.subject:10} {one.metric:{width}} {one.value:8.{digits}f} "
                f"{one.unit}  {ends}n {one.n:,}, {record.data}"
            )
        for picture in record.pictures:
            print(f"  picture {folder / picture}")
    for path in paths:
        print(f"written: {path}")
