"""From the rows of tables to the runs that fill them: each variant as `sslbench run` would resolve it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ssl_bench.datasets.opening import OpenedOnce
from ssl_bench.errors import UserError, unknown_name
from ssl_bench.recipes.resolve import Request, resolve
from ssl_bench.settings import assignment_text
from ssl_bench.studies.plan import Place, StudyRun, with_seeds
from ssl_bench.tables.description import TableDescription
from ssl_bench.tables.variants import VariantRun


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


def runs_of(description: TableDescription, wish: Wish, opened: OpenedOnce) -> list[StudyRun]:
    """Every row of a table with every seed, completely resolved.

    Raises `UserError` for a table without `[runs]`, an unknown size, and whatever is wrong with a row, naming it.
    """
    if description.runs is None:
        raise UserError(
            f"the table {description.id} lists whatever there are records of; nothing says which runs it needs. Add "
            "[runs] to its description, or see which tables have some: sslbench bench --list"
        )
    if wish.size not in description.runs.size:
        raise unknown_name("size", wish.size, description.runs.size, f"those of the table {description.id}")
    found = []
    for variant in description.runs.all_runs(wish.size):
        request = request_of(variant, wish)
        try:
            recipe = resolve(request, opened).recipe
        except UserError as error:
            raise UserError(f"{description.id}, row {variant.variant.name!r}: {error}") from None
        place = Place(description.id, variant.variant.name)
        found += with_seeds(StudyRun(request, recipe, (place,)), wish.seeds or variant.seeds)
    return found


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
    """The `sslbench run` command that does the same run alone."""
    words = ["sslbench", "run", str(request.method), "--arch", str(request.arch)]
    words += ["--data", request.data] if request.data else []
    for place in request.eval_data or ():
        words += ["--eval-data", place]
    words += ["--preset", request.preset] if request.preset else []
    words += ["--with", ",".join(request.evaluators)] if request.evaluators else []
    for key, value in request.values.items():
        words += ["--seed", str(value)] if key == "training.seed" else ["--set", assignment_text(key, value)]
    return shlex.join(words)
