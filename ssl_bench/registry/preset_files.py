"""What presets say today, read without importing a method: `presets.json` beside the module that registers it.

A record holds what its run changed of its preset as the preset was then. To know whether that still is a change, tables
compare with the preset of today, and they import neither torch nor plugins. The file is written by
`python -m ssl_bench.registry.preset_files`; a test compares it with the methods. The records of a method that no such
file names, e.g. a third party's, are taken at their word.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ssl_bench.errors import UserError
from ssl_bench.registry.docstrings import source_path
from ssl_bench.registry.entry_points import HOME, find, plugins

if TYPE_CHECKING:
    from ssl_bench.method import Method
    from ssl_bench.settings import Settings

FILE = "presets.json"


class PresetValues(BaseModel):
    """A preset in plain values: the fields of `ssl_bench.method.Preset` that decide a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, Any]
    convnet_values: dict[str, Any] = Field(default_factory=dict)
    steps: int | None = None


class MethodPresets(BaseModel):
    """What a method's runs are with nothing set by hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defaults: dict[str, Any]
    """Names that `--set` takes -> defaults of the method, the optimizer and training; None: decided from the data."""
    vit_defaults: dict[str, Any] = Field(default_factory=dict)
    """What the method asks of a ViT where the user asks for nothing."""
    presets: dict[str, PresetValues]

    def values(self, preset: str, kind: str) -> dict[str, Any]:
        """Setting -> value of a run of this preset on a backbone of this kind."""
        chosen = self.presets.get(preset, PresetValues(values={}))
        of_kind = chosen.convnet_values if kind == "convnet" else self.vit_defaults
        return {**self.defaults, **chosen.values, **of_kind}

    def epochs(self, preset: str, batch_size: int, train_images: int) -> int | None:
        """As `Preset.epochs_for`: epochs that make about `steps` steps; None where the preset says no steps."""
        chosen = self.presets.get(preset)
        if chosen is None or chosen.steps is None or "training.epochs" in chosen.values:
            return None
        return max(1, round(chosen.steps * batch_size / train_images))


@cache
def presets_of(method: str) -> MethodPresets | None:
    """What the presets of a method are today; None where nothing says so, or the method is not installed."""
    try:
        path = source_path(find("method", method).target.partition(":")[0])
    except UserError:
        return None
    return _read(path.parent / FILE).get(method) if path else None


@cache
def _read(path: Path) -> Mapping[str, MethodPresets]:
    try:
        return TypeAdapter(dict[str, MethodPresets]).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def plain_presets(method: type[Method]) -> MethodPresets:
    """The same from the method itself."""
    from ssl_bench.blocks.optimizers import OptimizerSettings
    from ssl_bench.records.recipe import TrainingSettings

    models: dict[str, type[Settings]] = {
        "method": method.Config,
        "optimizer": OptimizerSettings,
        "training": TrainingSettings,
    }
    defaults = {
        f"{section}.{name}": value
        for section, model in models.items()
        for name, value in model().model_dump(mode="json").items()
    }
    found = MethodPresets(
        defaults=defaults,
        vit_defaults={f"backbone.{name}": value for name, value in method.backbone_defaults.items()},
        presets={
            name: PresetValues(values=dict(one.values), convnet_values=dict(one.convnet_values), steps=one.steps)
            for name, one in method.presets.items()
        },
    )
    return MethodPresets.model_validate_json(found.model_dump_json())


def preset_file(methods: Mapping[str, type[Method]]) -> str:
    """The text of the file for the methods of one folder."""
    parts = []
    for name, method in sorted(methods.items()):
        content = plain_presets(method).model_dump(mode="json")
        presets = ",\n".join(f"  {json.dumps(key)}: {json.dumps(one)}" for key, one in content.pop("presets").items())
        lines = [f" {json.dumps(key)}: {json.dumps(one)}" for key, one in content.items()]
        lines.append(f' "presets": {{\n{presets}\n }}' if presets else ' "presets": {}')
        parts.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def official_methods() -> dict[str, type[Method]]:
    """The methods that come with sslbench and need no extra; imports them."""
    return {one.name: one.load() for one in plugins("method") if one.distribution == HOME and not one.extras}


if __name__ == "__main__":
    sys.stdout.write(preset_file(official_methods()))
