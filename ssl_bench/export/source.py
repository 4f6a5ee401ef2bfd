"""The network that is exported: of a finished run, or of a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.errors import UserError
from ssl_bench.records.recipe import Recipe, arch_text
from ssl_bench.runs.networks import finished_record, trained_backbone
from ssl_bench.settings import parse_settings
from ssl_bench.weights.loading import load_network, open_weights
from ssl_bench.weights.whole import common_prefix, norm_eps, set_norm_eps


@dataclass(frozen=True)
class Source:
    """A network in eval mode on the CPU, and where it is from."""

    backbone: Backbone
    plugin: str
    """Registered name of the backbone."""
    settings: dict[str, Any]
    """Its complete settings."""
    preprocessing: Preprocessing
    """How it sees images."""
    name: str
    """The run's id or the file's name."""
    method: str
    network: str
    digest: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()

    @property
    def arch(self) -> str:
        """As `--arch` takes it."""
        return arch_text(self.plugin, self.settings)

    @property
    def image_px(self) -> int:
        """Side of the square images that it is exported for."""
        return self.preprocessing.crop_px

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, a common first part of their names left out: timm's names for what is built on timm."""
        state = self.backbone.state_dict()
        prefix = common_prefix(state)
        return {name.removeprefix(prefix): tensor.detach().contiguous() for name, tensor in state.items()}


def of_run(run_dir: Path, network: str | None) -> Source:
    """The network that a finished run keeps. Raises `UserError` where it keeps none, or not the one asked for."""
    record = finished_record(run_dir)
    if not record.steps:
        raise UserError(f"the run {record.run_id} trained nothing, so it kept no weights: choose another run")
    kept = next((one.network for one in record.evaluations if one.network), None) or ""
    if network and network != kept:
        raise UserError(
            f"the run {record.run_id} keeps the network that its method evaluates, {kept!r}, not {network!r}: "
            "leave --network out"
        )
    backbone, _ = trained_backbone(run_dir)
    recipe = Recipe.model_validate(record.recipe)
    seen = Preprocessing(source="sslbench's evaluation").at(recipe.data.image_px)
    return Source(
        backbone, recipe.backbone.name, recipe.backbone.settings, seen, record.run_id, record.method, kept,
        digest=record.digest,
    )  # fmt: skip


def of_file(
    given: Path | str, arch: str | None, network: str | None, settings: Mapping[str, Any], accept_mismatch: bool
) -> Source:
    """One network of a checkpoint, loaded whole. Raises `UserError` for whatever is not exactly that network."""
    recognized = open_weights(given, arch)
    loaded = load_network(recognized, arch=arch, key=network, settings=settings, accept_mismatch=accept_mismatch)
    stored = recognized.stored
    if not loaded.backbone.trainable:
        raise UserError(f"{recognized.shown} is an ONNX graph, and its network has no other form: nothing to export")
    return Source(
        loaded.backbone, loaded.plugin, loaded.config.model_dump(mode="json"), loaded.preprocessing,
        recognized.located.name or stored.path.resolve().name, recognized.method, loaded.candidate.name,
        sha256=stored.sha256, notes=loaded.notes,
    )  # fmt: skip


def at_size(source: Source, image_px: int | None) -> Source:
    """The same network for images of another size; learned positions are resampled by its own rule.

    None: the size of its preprocessing. Raises `UserError` for a size that it does not take.
    """
    seen = source.preprocessing.at(image_px or source.preprocessing.crop_px)
    source, earlier = replace(source, preprocessing=seen), source.backbone
    if seen.crop_px == earlier.image_px or (earlier.positions is None and earlier.patch_px is None):
        return source
    kind = registry.backbone(source.plugin)
    config = parse_settings(kind.Config, source.settings, "backbone", source.plugin)
    resized = kind(kind.without_pretrained(config), image_px=seen.crop_px)
    try:
        resized.load_state_dict(resized.fit_weights(earlier.state_dict()))
    except RuntimeError as error:
        raise UserError(
            f"{source.arch} was built for images of {earlier.image_px} px and cannot be exported for {seen.crop_px} px "
            f"({str(error).strip().splitlines()[-1].strip()}): leave --image-px out"
        ) from error
    set_norm_eps(resized, norm_eps(earlier))
    return replace(source, backbone=resized.eval())
