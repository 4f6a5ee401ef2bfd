"""`ssl_bench.run` and `ssl_bench.evaluate`: what `sslbench run` and `sslbench eval` do, for notebooks and scripts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.records.reading import read_record
from ssl_bench.records.record import EvaluationRecord, RunRecord
from ssl_bench.runs.asking import mask_folders, named_values, plan_run
from ssl_bench.runs.folder import find_run
from ssl_bench.runs.which_run import free_run_id
from ssl_bench.system import hints
from ssl_bench.system.paths import portable_text

if TYPE_CHECKING:
    from ssl_bench.training.loop import StepReport

PathLike = str | os.PathLike[str]


def run(
    method: str | None = None,
    arch: str | None = None,
    *,
    data: PathLike | None = None,
    eval_data: PathLike | Sequence[PathLike] | None = None,
    preset: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    with_: str | Sequence[str] | None = None,
    voc: PathLike | None = None,
    davis: PathLike | None = None,
    eval_every: int | None = None,
    log: str | Sequence[str] | None = None,
    memory: str | None = None,
    recipe: PathLike | None = None,
    results: PathLike = hints.RESULTS,
    run_id: str | None = None,
    resume: PathLike | None = None,
    restart: bool = False,
    reuse: bool = False,
    verbose: bool = False,
) -> RunRecord:
    """Train a method, evaluate it beside its untrained self, and record the run in `results`/runs/RUN_ID.

    Arguments are the options of `sslbench run`; what is left out is decided as there. `settings` are those of `--set`,
    e.g. `{"method.local_views": 0, "evaluators.knn.neighbors": [20]}`; `with_` names evaluators, `log` loggers.

    resume: a stopped run, by name, beginning of a name, or folder; then `method` and the rest are the run's own.
    reuse: return the record of a finished run of the same recipe instead of raising `UserError`: a notebook or a sweep
        can be executed again and trains only what is new.
    verbose: print what the command prints while it works; otherwise warnings of the run are Python warnings.

    Returns the record, also of a run that collapsed or failed (`status`). Raises `UserError` for wrong names and values
    before anything is trained, `KeyboardInterrupt` after an interrupt, with everything saved and a message that says
    how to resume.
    """
    given = _plain(dict(locals()))
    from ssl_bench.runs import runner
    from ssl_bench.runs.display import TerminalDisplay
    from ssl_bench.training.loop import Stopped

    if resume is not None and method is not None:
        raise UserError(f"resume={os.fspath(resume)!r} takes the method from the run: leave {method!r} out")
    more_evaluators, paths = mask_folders(_path(voc), _path(davis))
    loggers = _names(log)
    named = _plain(named_values(epochs=epochs, batch_size=batch_size, seed=seed, eval_every=eval_every, memory=memory))
    request = Request(
        method=method if resume is None else os.fspath(resume),
        arch=arch,
        data=None if data is None else os.fspath(data),
        eval_data=_places(eval_data),
        preset=preset,
        evaluators=_names(with_),
        more_evaluators=more_evaluators,
        values=named | paths | ({"machine.log": list(loggers)} if loggers else {}) | _plain(settings or {}),
        recipe_file=_path(recipe),
    )
    results_dir = Path(results).expanduser()
    resolved, start = plan_run(
        request, results=results_dir, run_id=run_id, resume=resume is not None, restart=restart, command=_call(given)
    )
    if reuse and not restart:
        name = run_id or free_run_id(resolved.recipe, results_dir)
        earlier = results_dir / "runs" / name / "record.json"
        if earlier.exists() and (record := read_record(earlier)).digest == resolved.recipe.digest:
            return record
    try:
        if not verbose:
            return runner.run(resolved, start, WarningsOnly())
        with TerminalDisplay() as display:
            return runner.run(resolved, start, display)
    except Stopped as stop:
        raise KeyboardInterrupt(
            f"saved at step {stop.step:,} of {stop.total_steps:,}. Resume with: "
            f"ssl_bench.run(resume={os.fspath(start.run_dir)!r})"
        ) from None


def evaluate(
    run: PathLike | None = None,
    *,
    features: tuple[PathLike | Mapping[str, Any], PathLike | Mapping[str, Any]] | None = None,
    with_: str | Sequence[str] | None = None,
    data: PathLike | Sequence[PathLike] | None = None,
    voc: PathLike | None = None,
    davis: PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    results: PathLike = hints.RESULTS,
    verbose: bool = False,
) -> list[EvaluationRecord]:
    """Evaluate the kept networks of a finished run, trained and untrained, and write the results beside its record.

    `run` is a name, the beginning of one, or a folder; the arguments are the options of `sslbench eval`. An evaluation
    that was done before is read, not done again. Raises `UserError` for a run without weights and for wrong names.

    In place of a run, `features` are those of a training and a test split, made by any framework: two files as
    `sslbench eval --features` takes them, or two mappings {"features": (n, dim), "labels": (n,)}. `data` then names the
    dataset that they are of. The results are a record of their own.
    """
    if (run is None) == (features is None):
        raise UserError("evaluate takes a run or features=(train, test): give one of them")
    if features is not None:
        return _evaluate_features(features, with_, data, settings, Path(results).expanduser(), verbose)
    assert run is not None
    from ssl_bench.runs.reevaluate import reevaluate

    folder = find_run(os.fspath(run), Path(results).expanduser())
    more, values = mask_folders(_path(voc), _path(davis))
    names = _names(with_)
    chosen = list(dict.fromkeys((*(names or ()), *more))) if names is not None or more else None
    say = print if verbose else lambda text: None
    return reevaluate(folder, chosen, _places(data) or (), values | _plain(settings or {}), say=say)[1]


def _evaluate_features(
    features: tuple[PathLike | Mapping[str, Any], PathLike | Mapping[str, Any]],
    with_: str | Sequence[str] | None,
    data: PathLike | Sequence[PathLike] | None,
    settings: Mapping[str, Any] | None,
    results: Path,
    verbose: bool,
) -> list[EvaluationRecord]:
    from ssl_bench.runs.features_from_files import FeaturesRequest, evaluate_features

    if not isinstance(features, tuple | list) or len(features) != 2:
        raise UserError("features=(train, test): two files, or two mappings with 'features' and 'labels'")
    train, test = (one if isinstance(one, Mapping) else Path(one) for one in features)
    places = _places(data) or ()
    if len(places) > 1:
        raise UserError("features are of one dataset: give one in data, or none")
    request = FeaturesRequest(
        train, test, data=next(iter(places), None), evaluators=_names(with_), values=_plain(settings or {}),
        command="ssl_bench.evaluate(features=...)",
    )  # fmt: skip
    return list(evaluate_features(request, results, say=print if verbose else lambda text: None)[1].evaluations)


class WarningsOnly:
    """A run's display that prints nothing; its warnings are Python warnings."""

    def line(self, label: str, text: str) -> None:
        """One labeled line of the preflight."""
        if label == "warning":
            warnings.warn(text, stacklevel=2)

    def say(self, text: str) -> None:
        """What is being done at this moment."""

    def step(self, report: StepReport) -> None:
        """A training step is done."""
        if report.warning:
            warnings.warn(report.warning, stacklevel=2)


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


def _places(data: PathLike | Sequence[PathLike] | None) -> tuple[str, ...] | None:
    """One dataset, or several."""
    if isinstance(data, str | os.PathLike):
        return (os.fspath(data),)
    return None if data is None else tuple(os.fspath(one) for one in data)


def _names(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Evaluators as a list or as `--with` takes them, "knn,linear-probe"."""
    if isinstance(names, str):
        return tuple(name.strip() for name in names.split(",") if name.strip())
    return None if names is None else tuple(names)


def _plain(value: Any) -> Any:
    """Paths as text, NumPy's numbers as Python's, also inside lists and mappings: what a recipe can hold."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _call(arguments: Mapping[str, Any]) -> str:
    """The call as it can be typed again, for the record: only what was given, without what does not change the run."""
    given = {name: value for name, value in arguments.items() if value is not None and value is not False}
    if given["results"] == os.fspath(hints.RESULTS):
        del given["results"]
    shown = [f"{name}={value!r}" for name, value in given.items() if name not in ("reuse", "verbose")]
    return portable_text(f"ssl_bench.run({', '.join(shown)})")
