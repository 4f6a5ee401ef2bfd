"""What a run changes in its preset: recorded, so that a table can show it without a run of the preset itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ssl_bench.blocks.optimizers import OptimizerSettings
from ssl_bench.errors import UserError
from ssl_bench.method import Situation
from ssl_bench.recipes.resolve import Resolved
from ssl_bench.records.recipe import TrainingSettings
from ssl_bench.settings import DATA_PATH, Settings, section_of

NOT_A_CHANGE = ("training.seed", "training.eval_every")
"""Neither changes what a run is compared by: evaluation during training leaves training as it is."""


def changed_settings(resolved: Resolved, preset_name: str) -> dict[str, Any]:
    """Settings of the recipe that differ from the preset's, under the names that `--set` takes.

    The standard is the run of the same method, architecture and data with nothing set by hand. What the preset leaves
    open, the method decides as for this run, from the data, the batch size and the settings that were chosen: only what
    was chosen differs. Evaluators are left out: their numbers carry their own protocols.
    """
    recipe, plain = resolved.recipe, resolved.recipe.model_dump(mode="json")
    kind = resolved.backbone.kind_for(resolved.backbone_config, resolved.dataset.image_px)
    images = len(resolved.training_split)
    preset = resolved.method.presets.get(preset_name)
    values = preset.values_for(kind) if preset else {}
    epochs = preset.epochs_for(recipe.training.batch_size, images) if preset else None
    if epochs is not None:
        values["training.epochs"] = epochs
    situation = Situation(
        image_px=resolved.dataset.image_px,
        train_images=images,
        patch_px=resolved.backbone.patch_px_for(resolved.backbone_config, resolved.dataset.image_px),
        batch_size=recipe.training.batch_size,
        classes=len(resolved.dataset.classes),
        kind=kind,
    )
    method = resolved.method.Config(**section_of(values, "method"))
    left_open = [name for name in type(method).model_fields if getattr(method, name) is None]
    with suppress(UserError):  # where that does not fit this batch size or data, it stays open
        decided = resolved.method.fill(resolved.method_config.model_copy(update=dict.fromkeys(left_open)), situation)
        method = method.model_copy(update={name: getattr(decided, name) for name in left_open})
    standards: list[tuple[str, Mapping[str, Any], dict[str, Any]]] = [
        ("method", plain["method"]["settings"], method.model_dump(mode="json")),
        ("backbone", plain["backbone"]["settings"], _backbone_defaults(resolved)),
        ("data", plain["data"]["settings"], _defaults(type(resolved.dataset).Config)),
        ("optimizer", plain["optimizer"], OptimizerSettings(**section_of(values, "optimizer")).model_dump(mode="json")),
        ("training", plain["training"], TrainingSettings(**section_of(values, "training")).model_dump(mode="json")),
    ]
    started = {"initial": recipe.initial.words} if recipe.initial else {}
    return started | {
        f"{section}.{name}": value
        for section, settings, standard in standards
        for name, value in settings.items()
        if f"{section}.{name}" not in NOT_A_CHANGE and name in standard and value != standard[name]
    }


def _defaults(model: type[Settings]) -> dict[str, Any]:
    """The defaults of a settings model in plain values; a required setting has none."""
    defaults = {name: field.get_default() for name, field in model.model_fields.items() if not field.is_required()}
    return model.model_construct(**defaults).model_dump(mode="json", include=set(defaults))


def _backbone_defaults(resolved: Resolved) -> dict[str, Any]:
    """What the architecture decides with nothing set by hand, e.g. its rule for positions with this method."""
    kind, given = resolved.backbone, resolved.recipe.backbone.settings
    named = {name for name, field in kind.Config.model_fields.items() if field.is_required() or name == DATA_PATH}
    config = kind.Config(**{name: given[name] for name in named})
    filled = kind.fill(config, resolved.dataset.image_px, resolved.method.backbone_defaults)
    settings: dict[str, Any] = filled.model_dump(mode="json", exclude=named)
    return settings
