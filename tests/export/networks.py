"""Narrow networks of every registered backbone, ready to be exported."""

from __future__ import annotations

from typing import Any

import torch

from ssl_bench import registry
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.export.source import Source
from ssl_bench.settings import parse_settings
from tests.weights.networks import varied

NARROW = {"depth": 2, "dim": 64, "heads": 4, "width": 0.125, "stem": "imagenet", "name": "test_vit"}
"""Settings by name, where an architecture has them; 4 heads of 16, which no file of tensors tells."""


def source(plugin: str, image_px: int | None = None, *, positions: str = "timm", **settings: Any) -> Source:
    """A network with weights away from their initial values, as of a run of DINO."""
    kind = registry.backbone(plugin)
    given = {name: value for name, value in NARROW.items() if name in kind.Config.model_fields} | settings
    config = parse_settings(kind.Config, given, "backbone", plugin)
    side = image_px or 2 * (kind.patch_px_for(config, 160) or 16)
    config = kind.fill(config, side, {"positions": positions})
    torch.manual_seed(0)
    network = varied(kind(config, image_px=side))
    seen = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), interpolation="bilinear").at(side)
    return Source(network, plugin, config.model_dump(mode="json"), seen, "run-1", "dino", "teacher", digest="ab" * 32)  # type: ignore[arg-type]
