"""A method's settings decided from the data and the network, and what to change where sizes do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.patch_sizes import LEAST_ADVISED_PX, NotWholePatches
from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.method import Method, Situation
from ssl_bench.registry.preflight import require_filled


def fill(
    method: type[Method],
    name: str,
    config: Any,
    situation: Situation,
    backbone: type[Backbone],
    dataset: Dataset,
) -> Any:
    """The method's settings with everything decided, tried on its views.

    Raises `UserError` for sizes that patches do not divide, with settings that this network and these data have, and
    for whatever a plugin raises.
    """
    if situation.patch_px is not None and dataset.image_px % situation.patch_px:
        raise UserError(_images_that_fit(method, config, situation, backbone, dataset))
    try:
        filled = method.fill(config, situation)
        require_filled(filled, method.Config, name)
        method.make_views(filled)
    except NotWholePatches as problem:
        sides = _patches_that_fit(method, config, situation, backbone, dataset.image_px)
        advice = f"; or other patches: --set backbone.patch_px={sides[0]}" if sides else ""
        raise UserError(f"{problem}{advice}") from None
    except UserError:
        raise
    except Exception as error:
        given = ", ".join(f"{key} = {value}" for key, value in config.model_dump().items() if value is not None)
        raise UserError(
            f"the method {name!r} cannot take these settings: {error or type(error).__name__}. Given or left at their "
            f"default: {given} (sslbench run {name} --help)"
        ) from error
    return filled


def _images_that_fit(
    method: type[Method], config: Any, situation: Situation, backbone: type[Backbone], dataset: Dataset
) -> str:
    """Why images that are not whole patches are refused, and the settings that fix it."""
    px, patch_px = dataset.image_px, situation.patch_px
    assert patch_px is not None, "only networks of patches come here"
    advice = []
    if "image_px" in type(dataset.config).model_fields:
        sizes = [size for size in (px // patch_px * patch_px, -(-px // patch_px) * patch_px) if size >= 16]
        advice.append(f"other images: {' or '.join(f'--set data.image_px={size}' for size in sizes)}")
    sides = _patches_that_fit(method, config, situation, backbone, px)
    if sides:
        advice.append(f"other patches: --set backbone.patch_px={sides[0]}")
    ways = "; or ".join(advice) or f"choose an architecture whose patches divide {px} px (sslbench list)"
    return f"images of {px} px are not a whole number of patches of {patch_px} px. Give {ways}"


def _patches_that_fit(
    method: type[Method], config: Any, situation: Situation, backbone: type[Backbone], image_px: int
) -> list[int]:
    """Sides of patches, largest first, with which everything fits; none where the network has no such setting."""
    if "patch_px" not in backbone.Config.model_fields or situation.patch_px is None:
        return []

    def fits(side: int) -> bool:
        try:
            method.fill(config, replace(situation, patch_px=side))
        except Exception:
            return False
        return True

    sides = range(min(situation.patch_px - 1, image_px), LEAST_ADVISED_PX - 1, -1)
    return [side for side in sides if image_px % side == 0 and fits(side)]
