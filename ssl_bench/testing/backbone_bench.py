"""A backbone with its small settings: what the checks of a backbone build, and the images they show it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_bench.backbone import Backbone
from ssl_bench.settings import Settings, parse_settings
from ssl_bench.testing import subjects
from ssl_bench.testing.outcomes import CheckSkipped

NARROW: Mapping[str, Any] = {"patch_px": 8, "depth": 2, "dim": 64, "width": 0.125}
"""Settings that the checks make small where a Config has them by these names."""
IMAGES = 3


class Subject:
    """A backbone class with the network that its checks look at."""

    def __init__(self, plugin: type[Backbone], settings: Mapping[str, Any], path: Path | None = None) -> None:
        self.plugin, self.settings = plugin, dict(settings)

    @cached_property
    def config(self) -> Settings:
        """The settings given, over narrow ones where the Config has those."""
        narrow = {name: value for name, value in NARROW.items() if name in self.plugin.Config.model_fields}
        owner = self.plugin.__name__
        try:
            return parse_settings(self.plugin.Config, {**narrow, **self.settings}, "backbone", owner)
        except ValueError:  # a setting of that name which means something else
            return parse_settings(self.plugin.Config, self.settings, "backbone", owner)

    def configs(self) -> list[Settings]:
        """What goes through JSON."""
        return [self.config]

    @cached_property
    def image_px(self) -> int:
        """32, or four patches where 32 has no whole number of them."""
        patch_px = self.plugin.patch_px_for(self.config, subjects.IMAGE_PX)
        return subjects.IMAGE_PX if patch_px is None or subjects.IMAGE_PX % patch_px == 0 else 4 * patch_px

    def build(self, seed: int = 0, drop_path: float = 0.0) -> Backbone:
        """A new network in eval mode, its weights drawn from `seed`."""
        torch.manual_seed(seed)
        return self.plugin(self.config, image_px=self.image_px, drop_path=drop_path).eval()

    def images(self, height: int | None = None, width: int | None = None) -> Tensor:
        """Three pictures (3, 3, height, width) around 0; square ones of the network's side unless told otherwise."""
        high, wide = height or self.image_px, width or self.image_px
        pixels = [torch.tensor(list(subjects.picture(i, wide, high).tobytes())) for i in range(IMAGES)]
        return torch.stack([one.view(high, wide, 3).permute(2, 0, 1) for one in pixels]) / 127.5 - 1

    @cached_property
    def network(self) -> Backbone:
        """One network for the checks that change nothing. Raises `CheckSkipped` when it cannot be built."""
        try:
            return self.build()
        except Exception as error:
            raise CheckSkipped(f"it cannot be built yet ({type(error).__name__})") from error
