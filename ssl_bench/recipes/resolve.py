"""From what a user asked for to a complete recipe, with every mistake answered before anything is built.

Layers, later ones win: the settings models' defaults, the method's preset, a recipe file, the command line. What a
layer leaves open (None) and the method can decide from the data is decided here, so that a recipe holds no "auto"
except the precision, which is a property of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench import registry
from ssl_bench.errors import DoesNotFitData, UserError, did_you_mean, unknown_name
from ssl_bench.recipes.evaluation_data import (
    data_part,
    dataset_loaders,
    default_evaluators,
    open_evaluation_sets,
    require_training_labels,
)
from ssl_bench.recipes.evaluators import (
    complete_evaluators,
    is_of_evaluators,
    require_evaluation_during_training,
    require_own_evaluators,
)
from ssl_bench.recipes.recipe_file import SECTIONS, RecipeFile, read_recipe_file
from ssl_bench.records.recipe import MachineSettings, Part, Recipe, TrainingSettings, arch_text
from ssl_bench.records.renamed_settings import assignments_with_current_names
from ssl_bench.settings import parse_settings, section_of

if TYPE_CHECKING:
    from ssl_bench.backbone import Backbone
    from ssl_bench.dataset import Dataset, Split
    from ssl_bench.datasets.opening import Opening
    from ssl_bench.method import Method
    from ssl_bench.weights.initial import InitialState

SMALL_DATA_IMAGES = 20_000
"""Fewer training images than this choose the preset "small-data" where a method has one."""


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
    """What is trained on."""
    eval_data: tuple[Dataset, ...] = ()
    """What was given to evaluate on."""
    initial: InitialState | None = None

    @property
    def training_split(self) -> Split:
        """The images that the method trains on."""
        return self.dataset.train if self.method.needs_labels else self.dataset.pretraining

    @property
    def evaluation_sets(self) -> tuple[Dataset, ...]:
        """What evaluators read that have no set of their own: `eval_data`, or without any the training data."""
        return self.eval_data or (self.dataset,)


def resolve(request: Request, open_data: Opening | None = None) -> Resolved:
    """Complete a request. Raises `UserError` for every wrong name, key or value before anything is built.

    `open_data` opens datasets (`opening.OpenedOnce` for many requests on the same data); None: `opening.open_found`.
    """
    from ssl_bench.blocks.optimizers import OptimizerSettings
    from ssl_bench.datasets.opening import find_dataset, open_found
    from ssl_bench.method import Situation
    from ssl_bench.recipes.filling import fill
    from ssl_bench.recipes.requirements import refuse_training, require_capable
    from ssl_bench.recipes.starting import as_recorded, chosen_start, require_start_fits

    file = RecipeFile() if request.recipe_file is None else read_recipe_file(request.recipe_file)
    method_name = _method_name(request, file)
    arch = file.arch if request.arch is None else request.arch
    if not arch:
        raise UserError(
            f"no architecture given: add --arch. Known: {', '.join(registry.names('backbone'))} (sslbench list)"
        )
    given_values = {
        **assignments_with_current_names(_values_of_file(file, request), method_name),
        **assignments_with_current_names(request.values, method_name),
    }
    arch, colon, network = arch.partition(":")
    method, backbone = registry.method(method_name), registry.backbone(arch)
    if colon:
        given_values |= {"backbone.name": _network_name(arch, network, backbone)}
    _check_sections(given_values)
    backbone_config = parse_settings(backbone.Config, section_of(given_values, "backbone"), "backbone", arch)

    if not backbone.trainable:
        refuse_training((method_name, method), (arch, backbone, backbone_config), given_values.get("training.epochs"))

    asked = file.evaluators if request.evaluators is None else request.evaluators
    require_capable(
        (method_name, method), (arch, backbone, backbone_config),
        {name: section_of(given_values, f"evaluators.{name}") for name in (*(asked or ()), *request.more_evaluators)},
    )  # fmt: skip

    initial = chosen_start(section_of(given_values, "initial"))
    data_text = request.data if request.data is not None else file.data or "shapes"
    found = find_dataset(data_text, dataset_loaders())
    eval_texts = (file.eval_data if request.eval_data is None else request.eval_data) or ()
    data_settings = section_of(given_values, "data")
    if eval_texts and "held_out" in found.kind.Config.model_fields:
        data_settings.setdefault("held_out", 0.0)  # evaluated on other data: all of these train
    open_data = open_data or open_found
    dataset = open_data(found, data_settings)
    require_training_labels(method, method_name, dataset)
    images = len(dataset.train if method.needs_labels else dataset.pretraining)
    opened = open_evaluation_sets(eval_texts, given_values, dataset.image_px, open_data)
    eval_data = tuple(one for _, one in opened)
    if asked is None:
        asked = default_evaluators(dataset, eval_data)
    evaluator_names = tuple(dict.fromkeys((*asked, *request.more_evaluators)))
    require_own_evaluators(given_values, evaluator_names)
    preset_name, reason = _choose_preset(
        method_name, method, file.preset if request.preset is None else request.preset, images
    )
    backbone_config = backbone.fill(backbone_config, dataset.image_px, method.backbone_defaults)
    require_start_fits(initial, backbone, backbone_config, dataset.image_px, arch_text(arch, dict(backbone_config)))
    patch_px = backbone.patch_px_for(backbone_config, dataset.image_px)
    network_kind = backbone.kind_for(backbone_config, dataset.image_px)
    preset = method.presets.get(preset_name)
    values = {**(preset.values_for(network_kind) if preset else {}), **given_values}

    training = parse_settings(TrainingSettings, section_of(values, "training"), "training", "training")
    optimizer = parse_settings(OptimizerSettings, section_of(values, "optimizer"), "optimizer", "the optimizer")
    machine = parse_settings(MachineSettings, section_of(values, "machine"), "machine", "the machine")
    method_config = parse_settings(method.Config, section_of(values, "method"), "method", method_name)
    if training.batch_size > images and training.epochs:
        raise DoesNotFitData(
            f"training.batch_size = {training.batch_size} is larger than the training set of {dataset.name} "
            f"({images} images). Give --set training.batch_size={images} or smaller."
        )
    epochs = preset.epochs_for(training.batch_size, images) if preset else None
    if epochs is not None and "training.epochs" not in values:
        training = training.model_copy(update={"epochs": epochs})
    situation = Situation(
        image_px=dataset.image_px,
        train_images=images,
        patch_px=patch_px,
        batch_size=training.batch_size,
        classes=len(dataset.classes),
        kind=network_kind,
    )
    method_config = fill(method, method_name, method_config, situation, backbone, dataset)
    evaluators = complete_evaluators(evaluator_names, values, dataset, eval_data)
    require_evaluation_during_training(training, evaluator_names)
    recipe = Recipe(
        method=Part(name=method_name, settings=method_config.model_dump(mode="json")),
        backbone=Part(name=arch, settings=backbone_config.model_dump(mode="json")),
        data=data_part(found.plugin, dataset, images),
        eval_data=tuple(data_part(plugin, one, len(one.train)) for plugin, one in opened),
        optimizer=optimizer.model_dump(mode="json"),
        training=training,
        evaluators=evaluators,
        initial=as_recorded(initial),
    )
    return Resolved(
        recipe, machine, preset_name, reason, method, method_config, backbone, backbone_config, dataset, eval_data,
        initial,
    )  # fmt: skip


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


def _choose_preset(name: str, method: type[Method], given: str | None, train_images: int) -> tuple[str, str]:
    if given is not None and given not in (*method.presets, "none"):
        raise unknown_name(f"preset of {name}", given, [*method.presets, "none"], f"sslbench run {name} --help")
    if given == "none":
        return given, "asked for: the settings' own defaults"
    if given is not None:
        return given, "asked for"
    if train_images < SMALL_DATA_IMAGES and "small-data" in method.presets:
        return "small-data", f"{train_images:,} training images are fewer than {SMALL_DATA_IMAGES:,}"
    if "paper" in method.presets:
        return "paper", f"{train_images:,} training images"
    return "none", f"{name} has no presets"


def _check_sections(values: Mapping[str, Any]) -> None:
    for key in values:
        section, dot, _ = key.partition(".")
        if section not in SECTIONS or not dot:
            raise UserError(
                f"{key!r} is not a setting.{did_you_mean(section, SECTIONS)} Settings are named SECTION.SETTING with "
                f"the sections {', '.join(SECTIONS)}, e.g. --set training.epochs=10"
            )
