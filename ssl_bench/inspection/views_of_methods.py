"""The views that each method makes of some images, with the settings that a run on these data would have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssl_bench.blocks.views import IMAGENET_MEAN, IMAGENET_STD
from ssl_bench.errors import UserError
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve

ARCHITECTURES = ("resnet18", "deit_ti16")
"""Tried in this order: the first takes images of any size, the second has patches, which masked methods need."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class MethodViews:
    """Views of some images by one method."""

    method: str
    preset: str
    views: Sequence[Sequence[Pixels]]
    """For each image its views, (height, width, 3)."""
    others: int
    """Further tensors of the views that are no images, e.g. masks."""


def method_views(
    method: str, data: str, values: Mapping[str, Any], indices: Sequence[int], arch: str | None = None
) -> MethodViews:
    """The views of the training images `indices` in the first epoch of a run with seed 0.

    `data` and `values` are as in a `Request`. Raises `UserError` for a method that cannot be trained on these data.
    """
    problem: UserError | None = None
    for name in ARCHITECTURES if arch is None else (arch,):
        try:
            resolved = resolve(Request(method=method, arch=name, data=data, values=values, evaluators=()))
        except UserError as error:
            problem = problem or error
            continue
        if not resolved.recipe.training.epochs:
            raise UserError("it trains nothing")
        make_views = resolved.method.make_views(resolved.method_config)
        split = resolved.dataset.pretraining
        made = [make_views(split.image(index), Random(f"views-0-0-{index}")) for index in indices]
        images = [[_pixels(view) for view in views if _is_image(view)] for views in made]
        return MethodViews(method, resolved.preset, images, sum(not _is_image(view) for view in made[0]))
    assert problem is not None
    raise problem


def _is_image(view: Tensor) -> bool:
    return view.ndim == 3 and view.shape[0] == 3 and view.is_floating_point()


def _pixels(view: Tensor) -> Pixels:
    """A normalized view (3, height, width) as pixels that can be shown."""
    values = view.float().numpy().transpose(1, 2, 0) * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)
    pixels: Pixels = (255 * values).round().clip(0, 255).astype(np.uint8)
    return pixels
