"""From what a user asked for, in a shell or from Python, to a run that can begin: its recipe and its folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import Resolved, resolve
from ssl_bench.records.reading import read_record
from ssl_bench.runs.folder import Start
from ssl_bench.runs.which_run import (
    checked_run_id,
    folder_of_run,
    free_run_id,
    named_as_before,
    request_of_run,
    source_of_weights,
)
from ssl_bench.settings import DATA_PATH


def named_values(
    *, epochs: int | None, batch_size: int | None, seed: int | None, eval_every: int | None, memory: str | None = None
) -> dict[str, int | str]:
    """Options that stand for settings, under the settings' names; those not given are left out."""
    named = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "eval_every": eval_every}
    limit = {} if memory is None else {"machine.memory": memory}
    return {f"training.{name}": value for name, value in named.items() if value is not None} | limit


def mask_folders(voc: Path | None, davis: Path | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """The evaluators that the folders of VOC and DAVIS ask for, and these folders as settings."""
    given = {name: str(path) for name, path in (("voc-jaccard", voc), ("davis", davis)) if path is not None}
    return tuple(given), {f"evaluators.{name}.{DATA_PATH}": path for name, path in given.items()}


def plan_run(
    request: Request,
    *,
    results: Path,
    run_id: str | None = None,
    resume: bool = False,
    restart: bool = False,
    accept_changed_data: bool = False,
    command: str = "",
) -> tuple[Resolved, Start]:
    """The complete recipe of a request and how its run begins, in `results`/runs/RUN; nothing is written.

    With `resume`, `request.method` may name the stopped run. A new run's folder is `run_id`, else made from the recipe.
    Raises `UserError` for every wrong name and value, and for options that exclude each other.
    """
    if resume and restart:
        raise UserError("--resume continues a run and --restart replaces it: give one of them")
    if accept_changed_data and not resume:
        raise UserError(
            "--accept-changed-data is for a stopped run: sslbench run --resume FOLDER --accept-changed-data"
        )
    request = _with_recorded_precision(_with_start(request, results))
    alone = request.arch is None and request.recipe_file is None
    folder = None if request.method is None else folder_of_run(request.method, resume, results, alone=alone)
    if folder is not None:
        if run_id is not None:
            raise UserError(f"--resume continues the run {folder.name} in its own folder: leave --run-id out")
        resolved = named_as_before(folder, resolve(request_of_run(folder, request)))
        return resolved, Start(folder, resume, command, restart, accept_changed_data)
    resolved = resolve(request)
    folder = results / "runs" / (free_run_id(resolved.recipe, results) if run_id is None else checked_run_id(run_id))
    began_here = (folder / "run.json").exists()
    if run_id is None and not restart and (folder / "record.json").exists() and not began_here:
        folder = folder.with_name(f"{folder.name}-again")  # that record came with the checkout
    elif resume and began_here:
        resolved = named_as_before(folder, resolved)
    return resolved, Start(folder, resume, command, restart, accept_changed_data)


def _with_start(request: Request, results: Path) -> Request:
    """The run or file that `init` names as the setting `initial.source`."""
    if request.init is None:
        return request
    source = str(source_of_weights(request.init, results))
    return dataclasses.replace(request, init=None, values={**request.values, "initial.source": source})


def _with_recorded_precision(request: Request) -> Request:
    """With the precision that "auto" became in the run whose recipe file is given, so that it is the same again.

    Nothing changes where the file stands beside no record, or the user says how precise to be.
    """
    if request.recipe_file is None or {"training.precision", "machine.auto_precision"} & request.values.keys():
        return request
    path = request.recipe_file.expanduser().with_name("record.json")
    try:
        record = read_record(path)
    except UserError:  # no record, or one that says nothing
        return request
    if record.recipe.get("training", {}).get("precision") != "auto" or not record.steps:
        return request
    return dataclasses.replace(request, values={**request.values, "machine.auto_precision": record.machine.precision})
