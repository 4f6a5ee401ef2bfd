"""`sslbench eval --features TRAIN TEST`: features that any framework made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_bench.cli.encodings import print_json
from ssl_bench.cli.eval_many import quiet, say
from ssl_bench.cli.evaluations import print_evaluations
from ssl_bench.errors import UserError
from ssl_bench.system.signals import interrupting_signals


def evaluate_given_features(
    files: tuple[Path, Path],
    results: Path,
    *,
    evaluators: Sequence[str] | None,
    data: Sequence[str],
    values: Mapping[str, Any],
    method: str | None,
    arch: str | None,
    not_for_features: Sequence[str],
    as_json: bool,
) -> None:
    """Evaluate and print. `not_for_features` are options that were given and need a network.

    Raises `UserError` for those, and for more than one dataset.
    """
    from ssl_bench.runs.features_from_files import FeaturesRequest, evaluate_features
    from ssl_bench.runs.plain_names import command_line

    if not_for_features:
        raise UserError(f"--features evaluates two files without a network: leave {', '.join(not_for_features)} out")
    if len(data) > 1:
        raise UserError("--features are of one dataset: give one --data, or none")
    request = FeaturesRequest(
        *files, data=next(iter(data), None), method=method, arch=arch, evaluators=evaluators, values=values,
        command=command_line(),
    )  # fmt: skip
    with quiet(as_json), interrupting_signals():  # a stopped evaluation leaves nothing behind
        folder, record = evaluate_features(request, results, say=say)
    if as_json:
        print_json({"runs": [{"run": str(folder), "record": record.model_dump(mode="json")}]})
        return
    print_evaluations(record.evaluations, folder)
    print(f"record  {folder / 'record.json'}")
