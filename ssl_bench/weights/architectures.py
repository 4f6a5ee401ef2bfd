"""Which registered architecture has exactly the tensors of a network: by name and shape, on torch's meta device."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ssl_bench import registry
from ssl_bench.records.recipe import arch_text
from ssl_bench.weights.facts import own_px
from ssl_bench.weights.known import KnownBackbone, known_backbone
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
    known = known_backbone(plugin)
    settings = {"name": name} if colon else settings_from(candidate, known.settings)
    return next(_fit(candidate, known, settings, own_px(candidate) or DEFAULT_PX), None)


def settings_from(candidate: Candidate, fields: Collection[str], *, sizes: bool = False) -> dict[str, Any]:
    """Of an architecture's settings, those that the tensors decide: a residual network's stem; with `sizes` also those
    by which it differs from the one that its name stands for, e.g. {"dim": 64, "depth": 2, "patch_px": 8}."""
    tensors = candidate.tensors
    found: dict[str, Any] = {}
    stem, patch = tensors.get("conv1.weight"), tensors.get("patch_embed.proj.weight")
    if "stem" in fields and stem is not None and stem.ndim == 4:
        found["stem"] = "cifar" if stem.shape[-1] == 3 else "imagenet"
        if sizes and "width" in fields:
            found["width"] = stem.shape[0] / 64
    if sizes and patch is not None and patch.ndim == 4 and {"dim", "depth", "patch_px"} <= set(fields):
        depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
        found |= {"patch_px": patch.shape[-1], "dim": patch.shape[0], "depth": depth}
    return found


def _stages(candidate: Candidate) -> Iterator[Iterator[Fit]]:
    """Networks as their names stand for, then those of many networks, then any with sizes of its own.

    A later stage is slower, and asked only where the earlier have none that fits.
    """
    image_px, every = own_px(candidate) or DEFAULT_PX, _known()
    shapes = {name: tuple(tensor.shape) for name, tensor in candidate.tensors.items()}
    wanted = {"vit": "vit", "resnet": "convnet"}.get(candidate.layout.family)
    many = [one for one in every if "name" in one.settings]
    single = [one for one in every if one not in many and wanted in (None, one.kind or wanted)]
    by_name = (_fit(candidate, one, settings_from(candidate, one.settings), image_px) for one in single)
    among_many = (
        _fit(candidate, one, {"name": name}, image_px)
        for one in many
        for name in one.loaded.names_like(candidate.layout.family, shapes)
    )
    sized = (_fit(candidate, one, settings_from(candidate, one.settings, sizes=True), image_px) for one in single)
    stages = [by_name, among_many, sized] if wanted else [among_many, by_name]
    for stage in stages:
        yield chain.from_iterable(stage)


def _fit(candidate: Candidate, known: KnownBackbone, settings: dict[str, Any], image_px: int) -> Iterator[Fit]:
    state = known.shapes(settings, image_px)
    if state is not None:
        shown = {key: value for key, value in settings.items() if key != "name" and value != "imagenet"}
        yield Fit(arch_text(known.name, settings), shown, differences(state, candidate.tensors))


def _known() -> list[KnownBackbone]:
    found = []
    for name in registry.names("backbone"):
        with suppress(Exception):  # a broken plugin of others
            found.append(known_backbone(name))
    return found
