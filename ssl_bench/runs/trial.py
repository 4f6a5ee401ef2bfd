"""Trying a network and a first step before long work: whatever they raise becomes one message with a way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch

from ssl_bench.backbone import Backbone, eval_mode
from ssl_bench.blocks.patch_sizes import check_whole_patches
from ssl_bench.errors import UserError
from ssl_bench.method import Batch
from ssl_bench.registry.entry_points import blame
from ssl_bench.registry.failures import DEBUG, in_words

if TYPE_CHECKING:
    from ssl_bench.recipes.resolve import Resolved

SIDES_PX = (32, 48, 56, 64, 84, 96, 112, 128, 160, 192, 224, 256, 288, 384, 448)
"""Sizes of images that are tried where one does not fit; networks of one size want 224 px or one of the larger."""


def require_images_fit(backbone: Backbone, image_px: int, arch: str, resolved: Resolved | None = None) -> None:
    """Raises `UserError` where the network cannot compute the features of square images of `image_px`.

    With `resolved`, the message names a size that the architecture takes.
    """
    problem = why_unseen(backbone, image_px)
    if problem is None:
        return
    if backbone.patch_px is not None:
        check_whole_patches(f"for {arch}, an image (data.image_px)", image_px, backbone.patch_px)
    advice = ""
    if resolved is not None and "image_px" in type(resolved.dataset.config).model_fields:
        side = next(_sides_built_for(resolved, image_px), None)
        advice = f" Give --set data.image_px={side}." if side else ""
    raise UserError(
        f"{arch} cannot see images of {image_px} x {image_px} px: {in_words(problem)}.{advice} {DEBUG}"
    ) from problem


def step_failure(error: Exception, batch: Batch | None, backbone: Backbone, resolved: Resolved) -> UserError:
    """The message for a first training step that failed: which views do not fit the network and what to set."""
    arch = resolved.recipe.arch
    if blame(error):
        return UserError(f"the first training step fails: {blame(error)}")
    if batch is None:
        return UserError(f"the views of the first batch cannot be made: {in_words(error)}. {DEBUG}")
    images = [view for view in batch.views if view.ndim == 4]
    for side in sorted({view.shape[-1] for view in images}):
        problem = why_unseen(backbone, side)
        names = [
            name
            for name, value in resolved.method_config
            if name.endswith("_px") and isinstance(value, int) and value == side
        ]
        if problem is not None:
            larger = _sides_between(side, resolved.dataset.image_px, backbone.patch_px)
            fitting = next(px for px in larger if px == resolved.dataset.image_px or why_unseen(backbone, px) is None)
            advice = " ".join(f"--set method.{name}={fitting}" for name in names)
            return UserError(
                f"{arch} cannot see views of {side} x {side} px: {in_words(problem)}."
                + (f" Give {advice}." if advice else f" Views of {fitting} px would fit.")
                + f" {DEBUG}"
            )
    shapes = ", ".join("x".join(map(str, view.shape)) for view in batch.views)
    return UserError(f"the first training step of {arch} fails on views of {shapes}: {in_words(error)}. {DEBUG}")


def why_unseen(backbone: Backbone, side_px: int) -> Exception | None:
    """What two square images of this side make the network raise, or None; no state and no random number moves."""
    parameter = next(backbone.parameters(), None)
    images = torch.zeros(2, 3, side_px, side_px, device=None if parameter is None else parameter.device)
    with eval_mode(backbone), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            backbone(images)
        except Exception as error:
            return error
    return None


def _sides_built_for(resolved: Resolved, image_px: int) -> Iterator[int]:
    """Sizes of images, the nearest larger ones first, for which the architecture can be built and run."""
    for side in sorted(SIDES_PX, key=lambda side: (side < image_px, abs(side - image_px))):
        with torch.random.fork_rng(devices=[]):
            try:
                backbone = resolved.backbone(resolved.backbone_config, image_px=side)
            except Exception:
                continue
        if why_unseen(backbone, side) is None:
            yield side


def _sides_between(least: int, most: int, patch_px: int | None) -> Iterable[int]:
    """Multiples of a patch (of 8 px where there are none) above `least`, and `most`, which fits."""
    step = patch_px or 8
    return [*range((least // step + 1) * step, most, step), most]
