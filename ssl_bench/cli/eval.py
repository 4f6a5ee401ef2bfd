"""`sslbench eval`: evaluate a finished run's weights again, with other evaluators, settings or data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.evaluations import print_evaluations
from ssl_bench.cli.options import (
    DAVIS_HELP,
    DOWNLOAD_HELP,
    RESULTS,
    VOC_HELP,
    evaluator_names,
)
from ssl_bench.errors import UserError
from ssl_bench.system.signals import interrupting_signals

if TYPE_CHECKING:
    from ssl_bench.runs.elsewhere import WeightsRequest

WEIGHT_ENDINGS = (".pth", ".pt", ".ckpt", ".tar", ".safetensors", ".bin")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "eval",
        help="Evaluate a run's kept weights again, with other evaluators, settings or data; or a file of weights.",
        epilog="Example: sslbench eval dino-deit_s16-shapes-s0-3f9c --with knn --set evaluators.knn.temperature=0.1",
    )(evaluate)


def evaluate(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|WEIGHTS",
            help="a run's id, the beginning of one, or its folder; or a file of weights, a Hugging Face folder or a "
            "published name (sslbench list weights)",
        ),
    ],
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
    arch: Annotated[
        str | None, typer.Option(help="WEIGHTS: the architecture [default: the registered one that fits]")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="WEIGHTS: which network, e.g. student [default: the paper's]")
    ] = None,
    as_: Annotated[
        str | None, typer.Option("--as", metavar="METHOD", help="WEIGHTS: the method that trained them, for tables")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="WEIGHTS: also the same architecture with random weights")
    ] = False,
    accept_mismatch: Annotated[
        bool, typer.Option("--accept-mismatch", help="WEIGHTS: load although the file says another number of heads")
    ] = False,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the evaluations as one JSON document; progress goes to stderr")
    ] = False,
) -> None:
    """Evaluate the trained network and its untrained self, or a file of weights, and write the result as a record."""
    from ssl_bench.runs.asking import mask_folders
    from ssl_bench.runs.elsewhere import WeightsRequest, is_weights
    from ssl_bench.runs.plain_names import command_line
    from ssl_bench.settings import parse_assignments

    more, values = mask_folders(voc, davis)
    chosen = evaluator_names(with_)
    names = None if chosen is None and not more else list(dict.fromkeys((*(chosen or ()), *more)))
    values |= parse_assignments(set_ or []) | ({"data.download": True} if download else {})
    if is_weights(run):
        requests = [
            WeightsRequest(Path(run), one, arch, key, as_, names, values, accept_mismatch, baseline, command_line())
            for one in data or ["shapes"]
        ]
        _evaluate_weights(requests, results, as_json=as_json)
        return
    given = [f"--{name}" for name, value in (("arch", arch), ("key", key), ("as", as_)) if value is not None]
    given += [f"--{name}" for name, value in (("baseline", baseline), ("accept-mismatch", accept_mismatch)) if value]
    folder = _run_folder(run, results, options_of_weights=given)
    _evaluate_run(folder, names, data or (), values, as_json=as_json)


def _evaluate_weights(requests: Sequence[WeightsRequest], results: Path, *, as_json: bool) -> None:
    from ssl_bench.runs.elsewhere import evaluate_weights

    evaluated = []
    for request in requests:
        with _quiet(as_json), interrupting_signals():  # a stopped evaluation leaves nothing behind
            evaluated.append(evaluate_weights(request, results, say=lambda text: print(f"  ... {text}")))
    if as_json:
        runs = [{"run": str(folder), "record": record.model_dump(mode="json")} for folder, record in evaluated]
        print_json({"runs": runs})
        return
    for folder, record in evaluated:
        print_evaluations(record.evaluations, folder)
        print(f"record  {folder / 'record.json'}")


def _run_folder(run: str, results: Path, *, options_of_weights: Sequence[str]) -> Path:
    from ssl_bench.runs.folder import find_run

    try:
        folder = find_run(run, results)
    except UserError as error:
        if options_of_weights or Path(run).suffix in WEIGHT_ENDINGS:
            raise UserError(f"{run} does not exist: give a file of weights, or a Hugging Face folder") from None
        raise UserError(f"{error} And no file of weights is called so") from None
    if options_of_weights:
        given = ", ".join(options_of_weights)
        raise UserError(f"{given} are for files of weights, and {run} is a run: leave them out")
    return folder


def _evaluate_run(
    folder: Path, names: list[str] | None, data: Sequence[str], values: Mapping[str, Any], *, as_json: bool
) -> None:
    from ssl_bench.runs.reevaluate import reevaluate

    with _quiet(as_json):
        paths, records = reevaluate(folder, names, data, values, say=lambda text: print(f"  ... {text}"))
    if as_json:
        evaluations = [record.model_dump(mode="json") for record in records]
        print_json({"run": str(folder), "evaluations": evaluations, "written": list(map(str, paths))})
        return
    print_evaluations(records, folder)
    for path in paths:
        print(f"written: {path}")


def _quiet(as_json: bool) -> AbstractContextManager[Any]:
    """Whatever is printed is no part of a JSON document."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()
