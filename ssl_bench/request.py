"""From what a user asked for to a complete recipe, with every mistake answered before anything is built.

Layers, later ones win: the settings models' defaults, the method's preset, a recipe file, the command line. What a
layer leaves open (None) and the method can decide from the data is decided here, so that a recipe holds no "auto"
except the precision, which is a property of the machine.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench import registry
from ssl_bench.errors import UserError, did_you_mean, unknown_name
from ssl_bench.recipe import DataPart, EvaluatorPart, MachineSettings, Part, Recipe, TrainingSettings
from ssl_bench.settings import parse_settings

if TYPE_CHECKING:
    from ssl_bench.backbone import Backbone
    from ssl_bench.dataset import Dataset
    from ssl_bench.method import Method

SMALL_DATA_IMAGES = 20_000
"""Fewer training images than this choose the preset "small-data" where a method has one."""

DEFAULT_EVALUATORS = ("knn", "linear-probe")


@dataclass(frozen=True)
class Request:
    """What the user asked for, before it is completed. Values are keyed `section.setting`."""

    method: str | None = None
    arch: str | None = None
    data: str | None = None
    preset: str | None = None
    evaluators: tuple[str, ...] | None = None
    more_evaluators: tuple[str, ...] = ()
    """Run beside those, whether they are named or the default."""
    values: Mapping[str, Any] = field(default_factory=dict)
    recipe_file: Path | None = None


@dataclass(frozen=True)
class Resolved:
    """A complete recipe with the plugins that it names, loaded."""

    recipe: Recipe
    machine: MachineSettings
    preset: str
    preset_reason: str
    method: type[Method]
    method_config: Any
    backbone: type[Backbone]
    backbone_config: Any
    dataset: Dataset


SECTIONS = ("method", "backbone", "data", "optimizer", "training", "machine", "evaluators")


def resolve(request: Request) -> Resolved:
    """Complete a request. Raises `UserError` for every wrong name, key or value before anything is built."""
    from ssl_bench.contract import require_filled
    from ssl_bench.datasets.opening import open_dataset
    from ssl_bench.method import Situation
    from ssl_bench.optimizers import OptimizerSettings

    run, file_values = _read_recipe_file(request.recipe_file) if request.recipe_file else ({}, {})
    method_name = request.method or run.get("method")
    if not method_name:
        raise UserError(f"no method given. Known: {', '.join(registry.names('method'))} (sslbench list)")
    registry.find("method", method_name)
    arch = request.arch or run.get("arch")
    if not arch:
        raise UserError(f"no architecture given: add --arch. Known: {', '.join(registry.names('backbone'))}, timm:NAME")
    asked = request.evaluators if request.evaluators is not None else run.get("with", DEFAULT_EVALUATORS)
    evaluator_names = tuple(dict.fromkeys((*asked, *request.more_evaluators)))
    if request.evaluators is not None:  # a file's settings of evaluators that --with leaves out are no mistake
        file_values = {key: v for key, v in file_values.items() if _runs(key, evaluator_names)}
    own_values = {**file_values, **request.values}
    if ":" in arch:
        arch, _, network = arch.partition(":")
        own_values = {**own_values, "backbone.name": network}
    method = registry.method(method_name)
    backbone = registry.backbone(arch)
    _check_sections(own_values, evaluator_names)

    data_text = request.data or run.get("data") or "shapes"
    dataset = open_dataset(data_text, _dataset_loaders(), _section(own_values, "data"))
    preset_name, reason = _choose_preset(method_name, method, request.preset or run.get("preset"), len(dataset.train))
    backbone_config = parse_settings(backbone.Config, _section(own_values, "backbone"), "backbone", arch)
    backbone_config = backbone.fill(backbone_config, dataset.image_px, method.backbone_defaults)
    patch_px = backbone.patch_px_for(backbone_config, dataset.image_px)
    network_kind = backbone.kind_for(backbone_config, dataset.image_px)
    preset = method.presets.get(preset_name)
    preset_values = {} if preset is None else dict(preset.values)
    if preset is not None and network_kind == "convnet":
        preset_values |= preset.convnet_values
    values = {**preset_values, **own_values}

    training = parse_settings(TrainingSettings, _section(values, "training"), "training", "training")
    optimizer = parse_settings(OptimizerSettings, _section(values, "optimizer"), "optimizer", "the optimizer")
    machine = parse_settings(MachineSettings, _section(values, "machine"), "machine", "the machine")
    method_config = parse_settings(method.Config, _section(values, "method"), "method", method_name)
    if training.batch_size > len(dataset.train):
        raise UserError(
            f"training.batch_size = {training.batch_size} is larger than the training set of {dataset.name} "
            f"({len(dataset.train)} images). Give --batch-size {max(1, len(dataset.train) // 4)} or smaller."
        )
    if preset is not None and preset.steps is not None and "training.epochs" not in values:
        epochs = max(1, round(preset.steps * training.batch_size / len(dataset.train)))
        training = training.model_copy(update={"epochs": epochs})
    situation = Situation(
        image_px=dataset.image_px,
        train_images=len(dataset.train),
        patch_px=patch_px,
        batch_size=training.batch_size,
        classes=len(dataset.classes),
        kind=network_kind,
    )
    method_config = method.fill(method_config, situation)
    require_filled(method_config, method.Config, method_name)
    evaluators = []
    for name in evaluator_names:
        kind = registry.evaluator(name)
        config = parse_settings(kind.Config, _section(values, f"evaluators.{name}"), f"evaluators.{name}", name)
        read = kind(config).data(dataset).fingerprint
        evaluators.append(
            EvaluatorPart(
                name=name,
                settings=config.model_dump(mode="json"),
                fingerprint=None if read == dataset.fingerprint else read,
            )
        )
    recipe = Recipe(
        method=Part(name=method_name, settings=method_config.model_dump(mode="json")),
        backbone=Part(name=arch, settings=backbone_config.model_dump(mode="json")),
        data=DataPart(
            name=dataset.name,
            path=str(dataset.path) if dataset.path else None,
            fingerprint=dataset.fingerprint,
            image_px=dataset.image_px,
            settings=dataset.config.model_dump(mode="json"),
        ),
        optimizer=optimizer.model_dump(mode="json"),
        training=training,
        evaluators=tuple(evaluators),
    )
    return Resolved(recipe, machine, preset_name, reason, method, method_config, backbone, backbone_config, dataset)


def request_of(recipe: Recipe, machine: Mapping[str, Any]) -> Request:
    """The request that resolves to `recipe` again, e.g. to go on with a stopped run."""
    values: dict[str, Any] = {}
    for section, settings in (
        ("method", recipe.method.settings),
        ("backbone", recipe.backbone.settings),
        ("data", recipe.data.settings),
        ("optimizer", recipe.optimizer),
        ("training", recipe.training.model_dump()),
        ("machine", machine),
        *((f"evaluators.{part.name}", part.settings) for part in recipe.evaluators),
    ):
        values |= {f"{section}.{key}": value for key, value in settings.items()}
    if "positions" in registry.backbone(recipe.backbone.name).Config.model_fields:
        values.setdefault("backbone.positions", "timm")  # of a run from before this was a setting
    return Request(
        method=recipe.method.name,
        arch=recipe.backbone.name,
        data=recipe.data.path or recipe.data.name,
        preset="none",
        evaluators=tuple(part.name for part in recipe.evaluators),
        values=values,
    )


def _dataset_loaders() -> dict[str, Any]:
    return {name: partial(registry.dataset, name) for name in registry.names("dataset")}


def _choose_preset(name: str, method: type[Method], given: str | None, train_images: int) -> tuple[str, str]:
    if given == "none":
        return given, "asked for: the settings' own defaults"
    if given:
        if given not in method.presets:
            raise unknown_name(f"preset of {name}", given, [*method.presets, "none"], f"sslbench run {name} --help")
        return given, "asked for"
    if train_images < SMALL_DATA_IMAGES and "small-data" in method.presets:
        return "small-data", f"{train_images:,} training images are fewer than {SMALL_DATA_IMAGES:,}"
    if "paper" in method.presets:
        return "paper", f"{train_images:,} training images"
    return "none", f"{name} has no presets"


def _section(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    prefix = section + "."
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _check_sections(values: Mapping[str, Any], evaluator_names: Sequence[str]) -> None:
    for key in values:
        section, dot, _ = key.partition(".")
        if section not in SECTIONS or not dot:
            raise UserError(
                f"{key!r} is not a setting.{did_you_mean(section, SECTIONS)} Settings are named SECTION.SETTING with "
                f"the sections {', '.join(SECTIONS)}, e.g. --set training.epochs=10"
            )
        if not _runs(key, evaluator_names):
            raise UserError(
                f"{key!r} sets an evaluator that does not run here. Running: {', '.join(evaluator_names)}; "
                "choose with --with NAME,NAME"
            )


def _runs(key: str, evaluator_names: Sequence[str]) -> bool:
    section, _, rest = key.partition(".")
    return section != "evaluators" or rest.partition(".")[0] in evaluator_names


def _read_recipe_file(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the recipe {path} is not TOML: {error}") from None
    run = content.pop("run", {})
    known = ("method", "arch", "data", "preset", "with")
    for key in run:
        if key not in known:
            raise UserError(f"'run.{key}' in {path} is not known.{did_you_mean(key, known)} Known: {', '.join(known)}")
    values: dict[str, Any] = {}
    for section, settings in content.items():
        if section not in SECTIONS or not isinstance(settings, dict):
            raise UserError(
                f"[{section}] in {path} is not a section.{did_you_mean(section, (*SECTIONS, 'run'))} "
                f"Known: run, {', '.join(SECTIONS)}"
            )
        for key, value in settings.items():
            if section == "evaluators" and isinstance(value, dict):
                values |= {f"evaluators.{key}.{name}": inner for name, inner in value.items()}
            else:
                values[f"{section}.{key}"] = value
    return run, values
