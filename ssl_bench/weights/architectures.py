"""Which registered architecture has exactly the tensors of a network: by name and shape, on torch's meta device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from torch import Tensor

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.records.recipe import arch_text
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.settings import parse_settings
from ssl_bench.weights.facts import own_px
from ssl_bench.weights.recognize import Candidate
from ssl_bench.weights.whole import Differences, differences

DEFAULT_PX = 224


@dataclass(frozen=True)
class Fit:
    """One architecture compared with a network's tensors."""

    arch: str
    """As `--arch` takes it."""
    settings: dict[str, Any]
    """Of the backbone, beside its defaults, e.g. {"stem": "cifar"}."""
    differences: Differences

    @property
    def typed(self) -> str:
        """E.g. "--arch resnet18 --set backbone.stem=cifar"."""
        return " ".join((f"--arch {self.arch}", *(f"--set backbone.{k}={v}" for k, v in self.settings.items())))


def fitting(candidate: Candidate, most: int = 2) -> list[Fit]:
    """At most `most` architectures that the tensors fill wholly; the nearest where there is none."""
    nearest: Fit | None = None
    for stage in _stages(candidate):
        found: list[Fit] = []
        for fit in stage:
            if not fit.differences:
                found.append(fit)
                if len(found) == most:
                    return found
            elif nearest is None or len(fit.differences) < len(nearest.differences):
                nearest = fit
        if found:
            return found
    return [nearest] if nearest else []


def compare(candidate: Candidate, arch: str) -> Fit | None:
    """One architecture as `--arch` names it; None where it cannot be built without settings of its own."""
    plugin, colon, name = arch.partition(":")
    kind = registry.backbone(plugin)
    settings = {"name": name} if colon else settings_from(candidate, kind)
    return next(_fit(candidate, plugin, settings, own_px(candidate) or DEFAULT_PX), None)


def settings_from(candidate: Candidate, kind: type[Backbone], *, sizes: bool = False) -> dict[str, Any]:
    """Settings of an architecture that the tensors decide: a residual network's stem; with `sizes` also those by which
    a network differs from the one its name stands for, e.g. {"dim": 64, "depth": 2, "patch_px": 8}."""
    fields, tensors = kind.Config.model_fields, candidate.tensors
    found: dict[str, Any] = {}
    stem, patch = tensors.get("conv1.weight"), tensors.get("patch_embed.proj.weight")
    if "stem" in fields and stem is not None and stem.ndim == 4:
        found["stem"] = "cifar" if stem.shape[-1] == 3 else "imagenet"
        if sizes and "width" in fields:
            found["width"] = stem.shape[0] / 64
    if sizes and patch is not None and patch.ndim == 4 and {"dim", "depth", "patch_px"} <= fields.keys():
        depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
        found |= {"patch_px": patch.shape[-1], "dim": patch.shape[0], "depth": depth}
    return found


def _stages(candidate: Candidate) -> Iterator[Iterator[Fit]]:
    """Networks as their names stand for, then those of many networks, then any with sizes of its own.

    A later stage is slower, and asked only where the earlier have none that fits.
    """
    image_px, kinds = own_px(candidate) or DEFAULT_PX, _kinds()
    shapes = {name: tuple(tensor.shape) for name, tensor in candidate.tensors.items()}
    wanted = {"vit": "vit", "resnet": "convnet"}.get(candidate.layout.family)
    many = {plugin: kind for plugin, kind in kinds.items() if "name" in kind.Config.model_fields}
    single = {
        plugin: kind
        for plugin, kind in kinds.items()
        if plugin not in many and wanted in (None, getattr(kind, "kind", None) or wanted)
    }
    by_name = (_fit(candidate, plugin, settings_from(candidate, kind), image_px) for plugin, kind in single.items())
    among_many = (
        _fit(candidate, plugin, {"name": name}, image_px)
        for plugin, kind in many.items()
        for name in kind.names_like(candidate.layout.family, shapes)
    )
    sized = (
        _fit(candidate, plugin, settings_from(candidate, kind, sizes=True), image_px) for plugin, kind in single.items()
    )
    stages = [by_name, among_many, sized] if wanted else [among_many, by_name]
    for stage in stages:
        yield chain.from_iterable(stage)


def _fit(candidate: Candidate, plugin: str, settings: dict[str, Any], image_px: int) -> Iterator[Fit]:
    state = _shapes(plugin, json.dumps(settings, sort_keys=True), image_px)
    if state is not None:
        shown = {key: value for key, value in settings.items() if key != "name" and value != "imagenet"}
        yield Fit(arch_text(plugin, settings), shown, differences(state, candidate.tensors))


@lru_cache(maxsize=256)
def _shapes(plugin: str, settings: str, image_px: int) -> Mapping[str, Tensor] | None:
    """State dict on the meta device; None for what cannot be built, and for a network without weights."""
    kind = registry.backbone(plugin)
    try:
        config = parse_settings(kind.Config, json.loads(settings), "backbone", plugin)
    except UserError:
        return None
    network = blueprint(kind, config, image_px)
    return (network.state_dict() or None) if network is not None else None


def _kinds() -> dict[str, type[Backbone]]:
    found = {}
    for name in registry.names("backbone"):
        with suppress(Exception):  # a broken plugin of others
            found[name] = registry.backbone(name)
    return found
