"""The network that a finished run left behind, and the same before its first step, both built without its data."""

from __future__ import annotations

from pathlib import Path

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.method import evaluated_network
from ssl_bench.recipes.starting import chosen_start
from ssl_bench.records.reading import read_record
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.record import RunRecord
from ssl_bench.runs.building import backbone_maker, seed_initial_weights
from ssl_bench.settings import parse_settings
from ssl_bench.system.hints import resume_command
from ssl_bench.weights.kept import kept_weights


def finished_record(run_dir: Path) -> RunRecord:
    """The record of a run with weights. Raises `UserError` for a run that is not finished, or did not end well."""
    path = run_dir / "record.json"
    if not path.exists() and (run_dir / "run.json").exists():
        raise UserError(f"{run_dir} is an unfinished run: it has no record yet. Resume with: {resume_command(run_dir)}")
    record = read_record(path)
    if record.status != "finished":
        raise UserError(f"the run {record.run_id} {record.status}: {record.status_reason}")
    if record.features is not None:
        raise UserError(f"{record.run_id} is an evaluation of features from elsewhere: there is no network")
    if record.weights is not None:
        raise UserError(
            f"{record.run_id} is an evaluation of weights from elsewhere and keeps none itself: give their file, "
            f"{record.weights.file}"
        )
    return record


def trained_backbone(run_dir: Path) -> tuple[Backbone, RunRecord]:
    """The trained network in eval mode on the CPU, and the run's record; errors as `finished_record` and
    `kept_weights`."""
    record = finished_record(run_dir)
    recipe = Recipe.model_validate(record.recipe)
    kind = registry.backbone(recipe.backbone.name)
    config = parse_settings(kind.Config, recipe.backbone.settings, "backbone", recipe.backbone.name)
    backbone = kind(kind.without_pretrained(config), image_px=recipe.data.image_px)
    backbone.load_state_dict(kept_weights(run_dir))
    return backbone.eval(), record


def untrained_backbone(run_dir: Path) -> tuple[Backbone, RunRecord]:
    """The run's network before its first step, in eval mode on the CPU, and the record.

    Drawn again from its seed, or read again from where it started (errors as `chosen_start`).
    """
    record = read_record(run_dir / "record.json")
    recipe = Recipe.model_validate(record.recipe)
    kind, method = registry.backbone(recipe.backbone.name), registry.method(recipe.method.name)
    config = parse_settings(kind.Config, recipe.backbone.settings, "backbone", recipe.backbone.name)
    method_config = parse_settings(method.Config, recipe.method.settings, "method", recipe.method.name)
    initial = chosen_start(recipe.initial.model_dump() if recipe.initial else {})
    seed_initial_weights(recipe.training.seed)
    make_backbone = backbone_maker(kind, config, recipe.data.image_px, recipe.arch, initial)
    return evaluated_network(method(method_config, make_backbone)).eval(), record
