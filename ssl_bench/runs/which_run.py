"""Which run a word names: a new one, or one that was stopped."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.settings import DATA_PATH
from ssl_bench.system.hints import command

if TYPE_CHECKING:
    from ssl_bench.recipes.request import Request
    from ssl_bench.recipes.resolve import Resolved
    from ssl_bench.records.recipe import Recipe


def folder_of_run(text: str, resume: bool, results: Path, *, alone: bool = False) -> Path | None:
    """The folder of the run that the argument METHOD names, or None where it names a method.

    A registered method wins over a folder of its name; only with --resume is a folder of a run taken for one. With
    --resume and nothing that a new run needs (`alone`) a method's name is the beginning of a run's.
    """
    from ssl_bench import registry
    from ssl_bench.runs.folder import find_run
    from ssl_bench.runs.restart import is_run_folder

    if not text.strip():
        return None
    path = Path(text).expanduser()
    if resume and is_run_folder(path):
        return path
    if text in registry.names("method"):
        return find_run(text, results, stopped=True) if resume and alone else None
    if is_run_folder(path):
        raise UserError(f"{text!r} is a run's folder, not a method. To resume it: {command('run', '--resume', text)}")
    known = registry.names("method")
    if path.is_file() and path.suffix == ".toml":
        raise UserError(f"{text!r} is a recipe file, not a method. To run it: {command('run', '--recipe', text)}")
    if "/" in text or path.is_dir():
        found = "a folder without a run in it (run.json)" if path.is_dir() else "no folder that exists"
        raise UserError(
            f"no method is called {text!r}.{did_you_mean(text, known)} Known: {', '.join(known)} (sslbench list). As a "
            f"path it is {found}; to resume a run: sslbench run --resume results/runs/RUN"
        )
    if resume:
        try:
            return find_run(text, results, stopped=True)
        except UserError as error:
            raise UserError(f"no method is called {text!r}.{did_you_mean(text, known)} And {error}") from None
    return None


def source_of_weights(text: str, results: Path) -> Path:
    """What `--init` names: a file or folder that exists, published weights, else a run by its name or the beginning.

    Raises `UserError` where it is neither.
    """
    from ssl_bench.runs.folder import find_run
    from ssl_bench.runs.restart import is_run_folder
    from ssl_bench.weights.named.finding import is_name
    from ssl_bench.weights.reading import CONFIG

    path = Path(text).expanduser()
    if is_name(text):
        return Path(text)
    if text.strip() and (path.is_file() or is_run_folder(path) or (path / CONFIG).is_file()):
        return path.absolute()
    try:
        return find_run(text, results).absolute()
    except UserError as error:
        raise UserError(f"--init takes a finished run, a file of weights or a published name: {error}") from None


def free_run_id(recipe: Recipe, results: Path, taken: Collection[str] = ()) -> str:
    """The recipe's run id, with more characters of the digest where another recipe has that folder already.

    `taken` are names of runs that have not begun yet.
    """
    from ssl_bench.runs.folder import digest_of

    names = [recipe.name_with(characters) for characters in (4, 8, 16, 64)]
    free = [name for name in names if digest_of(results / "runs" / name) in (None, recipe.digest)]
    return next(name for name in free if name not in taken)


def named_as_before(run_dir: Path, resolved: Resolved) -> Resolved:
    """A resumed run with its data named as when it was started, wherever they lie now."""
    import dataclasses

    from ssl_bench.runs.state import read_run_state

    before, recipe = read_run_state(run_dir).recipe, resolved.recipe
    if len(before.eval_data) != len(recipe.eval_data):
        return resolved  # another recipe, which is refused later
    pairs = zip((before.data, *before.eval_data), (recipe.data, *recipe.eval_data), strict=True)
    data, *eval_data = [now.model_copy(update={"name": earlier.name}) for earlier, now in pairs]
    for dataset, part in zip((resolved.dataset, *resolved.eval_data), (data, *eval_data), strict=True):
        dataset.name = part.name
    recipe = recipe.model_copy(update={"data": data, "eval_data": tuple(eval_data)})
    return dataclasses.replace(resolved, recipe=recipe)


def request_of_run(run_dir: Path, given: Request) -> Request:
    """The request of a stopped run, with the machine settings and moved folders that were given. Raises `UserError`
    for anything else."""
    import dataclasses

    from ssl_bench.recipes.request import request_of
    from ssl_bench.runs.state import read_run_state

    if given.arch or given.preset or given.recipe_file or given.evaluators is not None:
        raise UserError(
            "--resume FOLDER takes everything from the run; leave --arch, --preset, --recipe and --with out"
        )
    for key in given.values:
        if not key.startswith("machine.") and not _may_have_moved(key):
            raise UserError(f"--resume continues the run's own recipe; only machine.* can change, not {key!r}")
    if (run_dir / "record.json").exists():
        raise UserError(f"the run {run_dir.name} is finished; see it with: {command('show', run_dir)}")
    if not (run_dir / "run.json").exists():
        raise UserError(f"{run_dir} holds no run that can be resumed: run.json is missing")
    state = read_run_state(run_dir)
    moved = {key: path for key, path in given.values.items() if _may_have_moved(key)}
    changes = {key.partition(".")[2]: value for key, value in given.values.items() if key not in moved}
    request = request_of(state.recipe, {**state.machine.model_dump(mode="json"), **changes})
    for key in moved:
        if key not in request.values:
            raise UserError(
                f"--resume continues the run as it began, and {key!r} is of none of its evaluators"
                if _is_evaluators_path(key)
                else "--resume continues the run as it began, from random weights: leave --init out"
            )
    request = dataclasses.replace(request, values={**request.values, **moved})
    if given.data is not None:
        request = dataclasses.replace(request, data=given.data)
    if given.eval_data is None:
        return request
    sets = len(state.recipe.eval_data)
    if len(given.eval_data) != sets:
        was = f"was evaluated on {sets} sets" if sets else "is evaluated on its training data"
        raise UserError(
            f"--resume with --eval-data says where evaluation data lie now: the run {was}, and {len(given.eval_data)} "
            "are given. To evaluate on others, finish the run, then: sslbench eval RUN --eval-data PATH"
        )
    return dataclasses.replace(request, eval_data=given.eval_data)


def _is_evaluators_path(key: str) -> bool:
    """Whether a setting says where an evaluator's data lie, which may change while a run is stopped."""
    return key.startswith("evaluators.") and key.endswith(f".{DATA_PATH}")


def _may_have_moved(key: str) -> bool:
    """Whether a setting says where files lie that the run began with."""
    return key == "initial.source" or _is_evaluators_path(key)


def checked_run_id(run_id: str) -> str:
    """Raises `UserError` unless `--run-id` is the name of a folder."""
    if run_id in ("", ".", "..") or "/" in run_id or "\\" in run_id:
        raise UserError(f"--run-id {run_id!r} is not a folder name; use letters, digits, '-', '_' and '.'")
    return run_id
