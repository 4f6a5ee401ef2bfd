"""The network that a finished run left behind, and the same before its first step, both built without its data."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.method import evaluated_network
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.record import RunRecord, read_record
from ssl_bench.records.state_file import DamagedFile, parse_strictly
from ssl_bench.settings import parse_settings
from ssl_bench.training.checkpoint import load_weights


def finished_record(run_dir: Path) -> RunRecord:
    """The record of a run with weights. Raises `UserError` for a run that is not finished, or did not end well."""
    record = read_record(run_dir / "record.json")
    if record.status != "finished":
        raise UserError(f"the run {record.run_id} {record.status}: {record.status_reason}")
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
    """The run's network before its first step, drawn again from its seed, in eval mode on the CPU, and the record."""
    record = read_record(run_dir / "record.json")
    recipe = Recipe.model_validate(record.recipe)
    kind, method = registry.backbone(recipe.backbone.name), registry.method(recipe.method.name)
    config = parse_settings(kind.Config, recipe.backbone.settings, "backbone", recipe.backbone.name)
    method_config = parse_settings(method.Config, recipe.method.settings, "method", recipe.method.name)

    def make_backbone(*, drop_path: float = 0.0) -> Backbone:
        return kind(config, image_px=recipe.data.image_px, drop_path=drop_path)

    torch.manual_seed(Random(f"weights-{recipe.training.seed}").getrandbits(63))
    return evaluated_network(method(method_config, make_backbone)).eval(), record


def kept_weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """The weights of a run, checked against the digest kept beside them. Raises `UserError` where they are missing or
    damaged, or the digest is."""
    weights, digest_file = run_dir / "weights.safetensors", run_dir / "weights.json"
    if not weights.exists():
        return load_weights(weights)  # raises, and says what to do
    try:
        content = parse_strictly(digest_file.read_bytes())
        sha256 = content["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise DamagedFile(f"{digest_file} is damaged or missing ({error}): {weights.name} cannot be verified") from None
    return load_weights(weights, str(sha256))
