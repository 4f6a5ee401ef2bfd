"""From the rows of tables to the runs that fill them: each variant as `sslbench run` would resolve it."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ssl_bench import registry
from ssl_bench.datasets import opening
from ssl_bench.datasets.opening import OpenedOnce
from ssl_bench.errors import DoesNotFitData, UserError, did_you_mean, unknown_name
from ssl_bench.recipes.evaluation_data import dataset_loaders
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.records.recipe import Recipe
from ssl_bench.settings import assignment_text
from ssl_bench.studies.own_data import own_data
from ssl_bench.studies.plan import Place, StudyRun, with_seeds
from ssl_bench.system.paths import portable_text
from ssl_bench.tables.checks import PRIMARY, require_measured
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.variants import Runs, VariantRun

MOST_EVALUATIONS = 12
"""During training on data of the user's own."""


@dataclass(frozen=True)
class Wish:
    """What the user asked of a study beside the tables."""

    size: str = "laptop"
    data: str | None = None
    """Takes the place of the size's data in every row."""
    eval_data: tuple[str, ...] | None = None
    seeds: int | None = None
    """Of every row; None: as many as the size says."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Settings of every run, as `--set` gives them."""


@dataclass(frozen=True)
class Cells:
    """The runs of tables."""

    runs: tuple[StudyRun, ...]
    left_out: dict[Place, str]
    """Rows that the user's data do not allow, and why."""
    notes: tuple[str, ...]
    """What a user must know of how the data are read."""


def cells_of(description: TableDescription, wish: Wish, opened: OpenedOnce) -> Cells:
    """Every row of a table with every seed, completely resolved.

    Raises `UserError` for a table without `[runs]`, an unknown size, data that cannot be read, and whatever
    is wrong with a row, naming it.
    """
    if description.runs is None:
        raise UserError(
            f"the table {description.id} lists whatever there are records of; nothing says which runs it needs. Add "
            "[runs] to its description, or see which tables have some: sslbench bench --list"
        )
    if wish.size not in description.runs.size:
        raise unknown_name("size", wish.size, description.runs.size, f"those of the table {description.id}")
    size = description.runs.size[wish.size]
    if wish.data is None:
        _require_data(description.id, description.runs, wish)
    data = own_data(wish.data, wish.eval_data, wish.values, size, opened)
    if data is not None:
        data.require_labels(size.evaluators)
        wish = dataclasses.replace(wish, values={**data.values, **wish.values})
    found: list[StudyRun] = []
    left_out: dict[Place, str] = {}
    for variant in description.runs.all_runs(wish.size):
        place, request = Place(description.id, variant.variant.name), request_of(variant, wish)
        try:
            recipe = resolve(request, opened).recipe
            if data is not None and (every := _seldom(recipe)) and "training.eval_every" not in wish.values:
                request = dataclasses.replace(request, values={**request.values, "training.eval_every": every})
                recipe = resolve(request, opened).recipe
        except DoesNotFitData as error:
            left_out[place] = str(error)
            continue
        except UserError as error:
            raise UserError(f"{description.id}, row {place.row!r}: {error}") from None
        found += with_seeds(StudyRun(request, recipe, (place,)), wish.seeds or variant.seeds)
    _require_measured(description, found)
    return Cells(tuple(found), left_out, data.notes if data else ())


def _require_data(table: str, runs: Runs, wish: Wish) -> None:
    """Raises `UserError` where a size's data are not here, with what can be known and done without them."""
    rows = runs.all_runs(wish.size)
    for row in rows:
        try:
            opening.find_dataset(row.data, dataset_loaders())
        except UserError as error:
            trains = next((one for one in rows if one.method != "random"), row)
            settings = {name: value for name, value in trains.settings.items() if not name.startswith("evaluators.")}
            alone = dataclasses.replace(request_of(trains, wish), data=None, evaluators=None, values=settings)
            plan = command_of(alone).replace("sslbench run", "sslbench plan", 1)
            lines = [
                f"{table} in the size {wish.size!r} ({runs.size[wish.size].about}) trains on {row.data}, which is not "
                f"here: {error}",
                f"What a training step needs is predicted without the data, here of the row {trains.variant.name!r}: "
                f"{plan} --device 1050ti",
            ]
            others = [(name, one) for name, one in runs.size.items() if one.data != row.data]
            lines += [f"sslbench bench {table} --size {name}: {one.about}" for name, one in others]
            raise UserError("\n  ".join(lines)) from None


def _require_measured(description: TableDescription, runs: Iterable[StudyRun]) -> None:
    """Raises `UserError` for a column that no run can fill: its evaluator is unknown, or has no such metric."""
    require_measured(description, (), description.id)
    measured: dict[str, set[str] | None] = {}
    asked = {(repr(part), images): part for run in runs for images in _fitted_on(run) for part in run.recipe.evaluators}
    for (_, images), part in asked.items():
        kind = registry.evaluator(part.name)
        names = kind(kind.Config(**part.settings)).metrics(images)
        known = measured.setdefault(part.name, set())
        measured[part.name] = None if names is None or known is None else known | set(names)
    for column in description.column:
        source = column.source
        names_of = measured.get(source.evaluator) if source else None
        if source and names_of and source.metric not in (PRIMARY, *names_of):
            raise UserError(
                f"{description.id}: column {column.id!r}: {source.evaluator} will measure no {source.metric!r}."
                f"{did_you_mean(source.metric, names_of)} With these settings, and with as many training images as "
                f"there are, it measures {', '.join(sorted(names_of))}, and {PRIMARY!r} stands for the main one"
            )


def _fitted_on(run: StudyRun) -> list[int | None]:
    """Numbers of training images of the sets that a run is evaluated on."""
    return [part.train_images for part in run.recipe.eval_data or (run.recipe.data,)]


def _seldom(recipe: Recipe) -> int | None:
    """Epochs between two evaluations that make at most `MOST_EVALUATIONS`; None where there are no more than these.

    On few images a preset trains for many epochs, and evaluating after each would take longer than training.
    """
    training = recipe.training
    if training.eval_every is None or training.epochs // training.eval_every <= MOST_EVALUATIONS:
        return None
    return math.ceil(training.epochs / MOST_EVALUATIONS)


def request_of(variant: VariantRun, wish: Wish) -> Request:
    """What `sslbench run` would be asked for; the seed is still open."""
    settings = dict(variant.settings)
    data, eval_data = variant.data, variant.eval_data
    if wish.data is not None:  # what the size sets of its own data says nothing of others
        data, eval_data = wish.data, ()
        settings = {key: value for key, value in settings.items() if key.partition(".")[0] not in ("data", "eval_data")}
    return Request(
        method=variant.method,
        arch=variant.arch,
        data=data,
        eval_data=wish.eval_data if wish.eval_data is not None else eval_data or None,
        preset=variant.preset,
        evaluators=variant.evaluators,
        values={**settings, **wish.values},
    )


def command_of(request: Request) -> str:
    """The `sslbench run` command that does the same run alone, paths as `portable_path`."""
    words = ["sslbench", "run", str(request.method), "--arch", str(request.arch)]
    words += ["--data", request.data] if request.data else []
    for place in request.eval_data or ():
        words += ["--eval-data", place]
    words += ["--preset", request.preset] if request.preset else []
    words += ["--with", ",".join(request.evaluators)] if request.evaluators else []
    for key, value in request.values.items():
        words += ["--seed", str(value)] if key == "training.seed" else ["--set", assignment_text(key, value)]
    return shlex.join(map(portable_text, words))
