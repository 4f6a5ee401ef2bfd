"""Which runs a study needs and in what order: a pure function of the tables' rows, nothing is read or started here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from ssl_bench.recipes.request import Request
from ssl_bench.records.recipe import OUTSIDE_DIGEST, Recipe


@dataclass(frozen=True)
class Place:
    """A row of a table that a run fills."""

    table: str
    row: str


@dataclass(frozen=True)
class StudyRun:
    """One run of a study: what to ask `sslbench run` for, and the complete recipe that this gives."""

    request: Request
    recipe: Recipe
    places: tuple[Place, ...]
    """Rows that it fills, of one table or of several."""

    @property
    def name(self) -> str:
        """The row it fills, with the seed, e.g. "dino-momentum, seed 0"."""
        return f"{self.places[0].row}, seed {self.recipe.training.seed}"


def in_order(runs: Iterable[StudyRun]) -> tuple[StudyRun, ...]:
    """Every run once, in the order in which they teach most soonest: seed 0 of all rows, then seed 1, and so on.

    Within a seed runs stand as they are given. Rows of several tables that train the same networks are one run, which
    all their evaluators evaluate.
    """
    merged: dict[str, StudyRun] = {}
    for run in sorted(runs, key=lambda run: run.recipe.training.seed):
        same = training_digest(run.recipe)
        both = _as_one(merged[same], run) if same in merged else run
        if both is None:  # the evaluators differ in their settings
            same = run.recipe.digest
            both = _as_one(merged[same], run) if same in merged else run
        assert both is not None, "runs of one digest have the same evaluators"
        merged[same] = both
    return tuple(merged.values())


def training_digest(recipe: Recipe) -> str:
    """Recipes with this in common give the same networks and evaluate them on the same data, by whatever evaluators."""
    return recipe.model_copy(update={"evaluators": ()}).digest


def _as_one(run: StudyRun, other: StudyRun) -> StudyRun | None:
    """`run` with the evaluators of `other` as well; None where the same evaluator has other settings in it."""
    parts = {part.name: part for part in run.recipe.evaluators}
    if any(parts.get(part.name, part) != part for part in other.recipe.evaluators):
        return None
    parts |= {part.name: part for part in other.recipe.evaluators}
    settings = {key: value for key, value in other.request.values.items() if key.startswith("evaluators.")}
    places = (*run.places, *(place for place in other.places if place not in run.places))
    if len(parts) == len(run.recipe.evaluators):
        return dataclasses.replace(run, places=places)
    request = dataclasses.replace(run.request, evaluators=tuple(parts), values={**settings, **run.request.values})
    recipe = run.recipe.model_copy(update={"evaluators": tuple(parts.values())})
    return dataclasses.replace(run, request=request, recipe=recipe, places=places)


def with_seeds(run: StudyRun, seeds: int) -> list[StudyRun]:
    """The run with the seeds 0, 1, 2, ...: nothing else of a recipe depends on the seed."""
    found = []
    for seed in range(seeds):
        training = run.recipe.training.model_copy(update={"seed": seed})
        request = dataclasses.replace(run.request, values={**run.request.values, "training.seed": seed})
        found.append(
            dataclasses.replace(run, request=request, recipe=run.recipe.model_copy(update={"training": training}))
        )
    return found


def kind(recipe: Recipe) -> str:
    """What the time of an epoch and the memory depend on: runs that differ only in seed, rates, weights they start
    from, or number of epochs are of one kind."""
    content = recipe.model_dump(mode="json", exclude={"initial"})
    for part in (content["data"], *content["eval_data"]):
        for key in OUTSIDE_DIGEST:
            del part[key]
    content["optimizer"] = content["optimizer"].get("name")
    for name in ("seed", "epochs"):
        del content["training"][name]
    settings = content["method"]["settings"]
    content["method"]["settings"] = {key: value for key, value in settings.items() if not key.endswith("_epochs")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
