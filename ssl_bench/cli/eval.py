"""`sslbench eval`: evaluate a finished run's weights again, with other evaluators, settings or data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.eval_features import evaluate_given_features
from ssl_bench.cli.eval_many import evaluate_many, quiet, say
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
    from ssl_bench.runs.many import RunRequest
    from ssl_bench.runs.weights_list import ListedWeights

WEIGHT_ENDINGS = (".pth", ".pt", ".ckpt", ".tar", ".safetensors", ".bin", ".onnx")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "eval",
        help="Evaluate runs again, with other evaluators, settings or data; or weights that were trained elsewhere.",
        epilog="Example: sslbench eval dino-deit_s16-shapes-s0-3f9c --with knn --set evaluators.knn.temperature=0.1",
    )(evaluate)


def evaluate(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|WEIGHTS...",
            help="a run's id, the beginning of one, or its folder; or a file of weights, a Hugging Face folder or a "
            "published name (sslbench list weights)",
        ),
    ] = None,
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
    weights_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="all weights in a folder, described by its weights.toml or .csv if it has one"
        ),
    ] = None,
    weights_list: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the weights that a TOML or CSV file lists: file, arch, key, as")
    ] = None,
    features: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="TRAIN TEST",
            help="features and labels of any framework in place of a network: .npz, .npy, .safetensors or .pt",
        ),
    ] = None,
    accept_mismatch: Annotated[
        bool, typer.Option("--accept-mismatch", help="WEIGHTS: load although the file says another number of heads")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="fit and, on a card, cap the evaluation at, e.g. 4GB [default: no limit]"),
    ] = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where runs are kept")] = RESULTS,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the evaluations as one JSON document; progress goes to stderr")
    ] = False,
) -> None:
    """Evaluate the trained network and its untrained self, or weights, and write the result as a record.

    Several runs, weights and datasets are evaluated one after the other: what was done before is skipped, a failure
    stops nothing but itself, and a table of all ends the output. Exit status 1 when one of them failed.
    """
    from ssl_bench.planning.devices import parse_memory
    from ssl_bench.runs.asking import mask_folders
    from ssl_bench.runs.elsewhere import WeightsRequest, is_weights
    from ssl_bench.runs.many import RunRequest, requests_for_all, without_repeated
    from ssl_bench.runs.plain_names import command_line
    from ssl_bench.runs.weights_list import ListedWeights
    from ssl_bench.settings import parse_assignments

    more, values = mask_folders(voc, davis)
    chosen = evaluator_names(with_)
    names = None if chosen is None and not more else list(dict.fromkeys((*(chosen or ()), *more)))
    values |= parse_assignments(set_ or []) | ({"data.download": True} if download else {})
    if memory is not None:
        parse_memory(memory)
        values["machine.memory"] = memory
    if features is not None:
        options_given: dict[str, object] = {"a run or weights": subjects, "--key": key, "--weights-dir": weights_dir}
        options_given |= {"--weights-list": weights_list, "--baseline": baseline, "--voc": voc, "--davis": davis}
        options_given |= {"--memory": memory}
        evaluate_given_features(
            features, results, evaluators=names, data=data or (), values=values, method=as_, arch=arch,
            not_for_features=[name for name, value in options_given.items() if value], as_json=as_json,
        )  # fmt: skip
        return
    if arch is not None and arch.startswith("onnx:") and not subjects:
        subjects, arch = [arch.removeprefix("onnx:")], None
    given = list(dict.fromkeys(subjects or ()))
    listed = [ListedWeights(file=text) for text in given if is_weights(text)]
    listed += _listed(weights_dir, weights_list)
    options = {"--arch": arch, "--key": key, "--as": as_}
    flags = {"--baseline": baseline, "--accept-mismatch": accept_mismatch}
    of_weights = [name for name, value in options.items() if value is not None]
    of_weights += [name for name, value in flags.items() if value]
    folders = [_run_folder(text, results, of_weights) for text in given if not is_weights(text)]
    weights = [
        WeightsRequest(
            path=Path(one.file).expanduser(), arch=one.arch or arch, key=one.key or key, method=one.method or as_,
            evaluators=names, values={**values, **one.settings}, accept_mismatch=accept_mismatch, baseline=baseline,
            command=command_line(),
        )
        for one in listed
    ]  # fmt: skip
    requests = requests_for_all(without_repeated(weights), data or ["shapes"])
    runs = [RunRequest(folder, names, data or (), values) for folder in folders]
    if not requests and not runs:
        raise UserError(
            "nothing to evaluate: give runs, weights, --weights-dir DIR, --weights-list FILE or --features TRAIN TEST"
        )
    if len(requests) + len(runs) > 1:
        evaluate_many([*runs, *requests], results, as_json=as_json)
    elif runs:
        _evaluate_run(runs[0], as_json=as_json)
    else:
        _evaluate_weights(requests[0], results, as_json=as_json)


def _listed(weights_dir: Path | None, weights_list: Path | None) -> list[ListedWeights]:
    from ssl_bench.runs.weights_list import weights_in, weights_listed

    listed = [] if weights_dir is None else weights_in(weights_dir.expanduser())
    return listed + ([] if weights_list is None else weights_listed(weights_list.expanduser()))


def _evaluate_weights(request: WeightsRequest, results: Path, *, as_json: bool) -> None:
    from ssl_bench.runs.elsewhere import evaluate_weights

    with quiet(as_json), interrupting_signals():  # a stopped evaluation leaves nothing behind
        folder, record = evaluate_weights(request, results, say=say)
    if as_json:
        print_json({"runs": [{"run": str(folder), "record": record.model_dump(mode="json")}]})
        return
    print_evaluations(record.evaluations, folder)
    print(f"record  {folder / 'record.json'}")


def _run_folder(run: str, results: Path, options_of_weights: Sequence[str]) -> Path:
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


def _evaluate_run(request: RunRequest, *, as_json: bool) -> None:
    from ssl_bench.runs.reevaluate import reevaluate

    with quiet(as_json):
        paths, records = reevaluate(request.folder, request.evaluators, request.data, request.values, say=say)
    if as_json:
        evaluations = [record.model_dump(mode="json") for record in records]
        print_json({"run": str(request.folder), "evaluations": evaluations, "written": list(map(str, paths))})
        return
    print_evaluations(records, request.folder)
    for path in paths:
        print(f"written: {path}")
