"""From what a user asked for to a complete recipe, with every mistake answered before anything is built.

Layers, later ones win: the settings models' defaults, the method's preset, a recipe file, the command line. What a
layer leaves open (None) and the method can decide from the data is decided here, so that a recipe holds no "auto"
except the precision, which is a property of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssl_bench.errors import DoesNotFitData, unknown_name
from ssl_bench.recipes.evaluation_data import (
    data_part,
    dataset_loaders,
    default_evaluators,
    open_evaluation_sets,
    require_training_labels,
)
from ssl_bench.recipes.evaluators import (
    complete_evaluators,
    require_evaluation_during_training,
    require_own_evaluators,
)
from ssl_bench.recipes.request import Asked, Request, asked_for
from ssl_bench.records.recipe import MachineSettings, Part, Recipe, TrainingSettings, arch_text
from ssl_bench.settings import parse_settings, section_of

if TYPE_CHECKING:
    from ssl_bench.backbone import Backbone
    from ssl_bench.dataset import Dataset, Split
    from ssl_bench.datasets.opening import Opening
    from ssl_bench.method import Method, Preset
    from ssl_bench.weights.initial import InitialState

SMALL_DATA_IMAGES = 20_000
"""Fewer training images than this choose the preset "small-data" where a method has one."""


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
    from ssl_bench.datasets.opening import open_found
    from ssl_bench.method import Situation
    from ssl_bench.recipes.filling import fill
    from ssl_bench.recipes.requirements import refuse_training, require_capable
    from ssl_bench.recipes.starting import as_recorded, chosen_start, require_start_fits

    asked = asked_for(request)
    method, backbone = asked.method, asked.backbone
    backbone_config = parse_settings(backbone.Config, section_of(asked.values, "backbone"), "backbone", asked.arch)
    named_method, named_backbone = (asked.method_name, method), (asked.arch, backbone, backbone_config)
    if not backbone.trainable:
        refuse_training(named_method, named_backbone, asked.values.get("training.epochs"))
    evaluator_names = (*(asked.evaluators or ()), *request.more_evaluators)
    evaluator_settings = {name: section_of(asked.values, f"evaluators.{name}") for name in evaluator_names}
    require_capable(named_method, named_backbone, evaluator_settings)

    initial = chosen_start(section_of(asked.values, "initial"))
    plugin, dataset, opened = _open_data(asked, open_data or open_found)
    images = len(dataset.train if method.needs_labels else dataset.pretraining)
    eval_data = tuple(one for _, one in opened)
    if asked.evaluators is None:
        evaluator_names = (*default_evaluators(dataset, eval_data), *request.more_evaluators)
    evaluator_names = tuple(dict.fromkeys(evaluator_names))
    require_own_evaluators(asked.values, evaluator_names)
    preset_name, reason = _choose_preset(asked.method_name, method, asked.preset, images)
    backbone_config = backbone.fill(backbone_config, dataset.image_px, method.backbone_defaults)
    require_start_fits(
        initial, backbone, backbone_config, dataset.image_px, arch_text(asked.arch, dict(backbone_config))
    )
    patch_px = backbone.patch_px_for(backbone_config, dataset.image_px)
    network_kind = backbone.kind_for(backbone_config, dataset.image_px)
    preset = method.presets.get(preset_name)
    values = {**(preset.values_for(network_kind) if preset else {}), **asked.values}

    training = parse_settings(TrainingSettings, section_of(values, "training"), "training", "training")
    optimizer = parse_settings(OptimizerSettings, section_of(values, "optimizer"), "optimizer", "the optimizer")
    machine = parse_settings(MachineSettings, section_of(values, "machine"), "machine", "the machine")
    method_config = parse_settings(method.Config, section_of(values, "method"), "method", asked.method_name)
    training = _fitting(training, preset, values, dataset, images)
    situation = Situation(
        image_px=dataset.image_px,
        train_images=images,
        patch_px=patch_px,
        batch_size=training.batch_size,
        classes=len(dataset.classes),
        kind=network_kind,
    )
    method_config = fill(method, asked.method_name, method_config, situation, backbone, dataset)
    evaluators = complete_evaluators(evaluator_names, values, dataset, eval_data)
    require_evaluation_during_training(training, evaluator_names)
    recipe = Recipe(
        method=Part(name=asked.method_name, settings=method_config.model_dump(mode="json")),
        backbone=Part(name=asked.arch, settings=backbone_config.model_dump(mode="json")),
        data=data_part(plugin, dataset, images),
        eval_data=tuple(data_part(name, one, len(one.train)) for name, one in opened),
        optimizer=optimizer.model_dump(mode="json"),
        training=training,
        evaluators=evaluators,
        initial=as_recorded(initial),
    )
    return Resolved(
        recipe, machine, preset_name, reason, method, method_config, backbone, backbone_config, dataset, eval_data,
        initial,
    )  # fmt: skip


def _open_data(asked: Asked, open_data: Opening) -> tuple[str, Dataset, Sequence[tuple[str, Dataset]]]:
    """What is trained on, after the plugin that reads it, and what is evaluated on, each after its plugin."""
    from ssl_bench.datasets.opening import find_dataset

    found = find_dataset(asked.data, dataset_loaders())
    settings = section_of(asked.values, "data")
    if asked.eval_data and "held_out" in found.kind.Config.model_fields:
        settings.setdefault("held_out", 0.0)  # evaluated on other data: all of these train
    dataset = open_data(found, settings)
    require_training_labels(asked.method, asked.method_name, dataset)
    return found.plugin, dataset, open_evaluation_sets(asked.eval_data, asked.values, dataset.image_px, open_data)


def _fitting(
    training: TrainingSettings, preset: Preset | None, values: Mapping[str, Any], dataset: Dataset, images: int
) -> TrainingSettings:
    """With the epochs that the preset makes of its steps. Raises `UserError` for batches larger than the dataset."""
    if training.batch_size > images and training.epochs:
        raise DoesNotFitData(
            f"training.batch_size = {training.batch_size} is larger than the training set of {dataset.name} "
            f"({images} images). Give --set training.batch_size={images} or smaller."
        )
    epochs = preset.epochs_for(training.batch_size, images) if preset else None
    if epochs is not None and "training.epochs" not in values:
        return training.model_copy(update={"epochs": epochs})
    return training


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
