"""What a user asks for: a request, from the command line or a call, and the recipe file below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench import registry
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.recipes.evaluators import is_of_evaluators
from ssl_bench.recipes.recipe_file import SECTIONS, RecipeFile, read_recipe_file
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.renamed_settings import assignments_with_current_names

if TYPE_CHECKING:
    from ssl_bench.backbone import Backbone
    from ssl_bench.method import Method


@dataclass(frozen=True)
class Request:
    """What the user asked for, before it is completed. Values are keyed `section.setting`."""

    method: str | None = None
    arch: str | None = None
    data: str | None = None
    """What is trained on."""
    preset: str | None = None
    evaluators: tuple[str, ...] | None = None
    more_evaluators: tuple[str, ...] = ()
    """Run beside those, whether they are named or the default."""
    values: Mapping[str, Any] = field(default_factory=dict)
    recipe_file: Path | None = None
    eval_data: tuple[str, ...] | None = None
    """What is evaluated on; empty: the training data. None leaves it to the recipe file."""
    init: str | None = None
    """A run or a file whose weights to start from; `runs.asking.plan_run` finds it and sets `initial.source`."""


def request_of(recipe: Recipe, machine: Mapping[str, Any]) -> Request:
    """The request that resolves to `recipe` again, e.g. to resume a stopped run."""
    values: dict[str, Any] = {}
    for section, settings in (
        ("method", recipe.method.settings),
        ("backbone", recipe.backbone.settings),
        ("data", recipe.data.settings),
        ("optimizer", recipe.optimizer),
        ("training", recipe.training.model_dump()),
        ("machine", machine),
        ("initial", recipe.initial.model_dump() if recipe.initial else {}),
        *((f"evaluators.{part.name}", part.settings) for part in recipe.evaluators),
        *((f"eval_data.{number}", part.settings) for number, part in enumerate(recipe.eval_data, start=1)),
    ):
        values |= {f"{section}.{key}": value for key, value in settings.items()}
    for name, value in registry.backbone(recipe.backbone.name).settings_before.items():
        values.setdefault(f"backbone.{name}", value)
    return Request(
        method=recipe.method.name,
        arch=recipe.backbone.name,
        data=recipe.data.reference,
        eval_data=tuple(part.reference for part in recipe.eval_data),
        preset="none",
        evaluators=tuple(part.name for part in recipe.evaluators),
        values=values,
    )


@dataclass(frozen=True)
class Asked:
    """What a request and its recipe file ask for together, with the plugins that they name, loaded."""

    method_name: str
    method: type[Method]
    arch: str
    backbone: type[Backbone]
    data: str
    eval_data: tuple[str, ...]
    preset: str | None
    evaluators: tuple[str, ...] | None
    values: dict[str, Any]


def asked_for(request: Request) -> Asked:
    """The request laid over its recipe file. Raises `UserError` for wrong names and for settings of no section."""
    file = RecipeFile() if request.recipe_file is None else read_recipe_file(request.recipe_file)
    method_name = _method_name(request, file)
    arch = file.arch if request.arch is None else request.arch
    if not arch:
        raise UserError(
            f"no architecture given: add --arch. Known: {', '.join(registry.names('backbone'))} (sslbench list)"
        )
    values = {
        **assignments_with_current_names(_values_of_file(file, request), method_name),
        **assignments_with_current_names(request.values, method_name),
    }
    arch, colon, network = arch.partition(":")
    method, backbone = registry.method(method_name), registry.backbone(arch)
    if colon:
        values |= {"backbone.name": _network_name(arch, network, backbone)}
    _check_sections(values)
    return Asked(
        method_name=method_name,
        method=method,
        arch=arch,
        backbone=backbone,
        data=request.data if request.data is not None else file.data or "shapes",
        eval_data=(file.eval_data if request.eval_data is None else request.eval_data) or (),
        preset=file.preset if request.preset is None else request.preset,
        evaluators=file.evaluators if request.evaluators is None else request.evaluators,
        values=values,
    )


def _values_of_file(file: RecipeFile, request: Request) -> dict[str, Any]:
    """A file's settings without those of evaluators that --with leaves out and of data that --eval-data replaces."""
    values = dict(file.values)
    if request.evaluators is not None:
        names = (*request.evaluators, *request.more_evaluators)
        values = {key: value for key, value in values.items() if is_of_evaluators(key, names)}
    if request.eval_data is not None:
        values = {key: value for key, value in values.items() if not key.startswith("eval_data.")}
    if "initial.source" in request.values and request.recipe_file is not None:  # what a file pins is of its own source
        values = {key: value for key, value in values.items() if not key.startswith("initial.")}
    return values


def _method_name(request: Request, file: RecipeFile) -> str:
    """The method that is meant. Raises `UserError` where there is none, or a recipe is of another one."""
    name = file.method if request.method is None else request.method
    if not name:
        raise UserError(f"no method given. Known: {', '.join(registry.names('method'))} (sslbench list)")
    registry.find("method", name)
    if file.method is not None and name != file.method:
        raise UserError(
            f"the recipe {request.recipe_file} is of the method {file.method!r}, and METHOD is {name!r}: leave METHOD "
            "out, or change [run] and [method] in a copy of the recipe"
        )
    return name


def _network_name(arch: str, network: str, backbone: type[Backbone]) -> str:
    """The NAME of `--arch ARCH:NAME`. Raises `UserError` for a backbone that is one network only."""
    if "name" not in backbone.Config.model_fields:
        raise UserError(f"--arch {arch}:{network}: {arch} is one network and takes no name. Give --arch {arch}")
    if not network.strip():
        raise UserError(f"--arch {arch}: lacks the network's name. Give --arch {arch}:NAME")
    return network


def _check_sections(values: Mapping[str, Any]) -> None:
    for key in values:
        section, dot, _ = key.partition(".")
        if section not in SECTIONS or not dot:
            raise UserError(
                f"{key!r} is not a setting.{did_you_mean(section, SECTIONS)} Settings are named SECTION.SETTING with "
                f"the sections {', '.join(SECTIONS)}, e.g. --set training.epochs=10"
            )
