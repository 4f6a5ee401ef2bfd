"""Sizes of views in whole patches, and the message for a size that patches do not divide."""

from __future__ import annotations

from ssl_bench.errors import UserError
from ssl_bench.method import Situation

LEAST_ADVISED_PX = 2
"""No advice names patches of a single pixel."""


class NotWholePatches(UserError):
    """A size that patches do not divide; the caller, who knows the network, adds what else could be changed."""


def nearest_whole(px: float, patch_px: int) -> int:
    """The multiple of `patch_px` nearest to `px`, at least one patch."""
    return max(1, round(px / patch_px)) * patch_px


def check_whole_patches(what: str, px: int, patch_px: int | None) -> None:
    """Raises `NotWholePatches` naming `what`, with the nearest sizes that work, where patches do not divide `px`.

    A convolutional network (`patch_px` None) takes any size.
    """
    if patch_px is None or px % patch_px == 0:
        return
    below = px // patch_px * patch_px
    sizes = f"{below} or {below + patch_px}" if below else f"{patch_px}"
    raise NotWholePatches(
        f"{what} of {px} px is not a whole number of patches of {patch_px} px. The nearest sizes that are: {sizes}"
    )


def view_px(crop_px: int | None, situation: Situation) -> int:
    """Side of a view: `crop_px`, or the image's side for None. Raises `NotWholePatches`."""
    px = crop_px or situation.image_px
    check_whole_patches("a view (method.crop_px)", px, situation.patch_px)
    return px


def multi_crop_px(global_crop_px: int | None, local_crop_px: int | None, situation: Situation) -> tuple[int, int]:
    """Sides of global and local views: as given, or for None the image's side and 96/224 of the global view's.

    The local side is rounded to whole patches, for a convolutional network to a multiple of 8 px. Raises
    `NotWholePatches`.
    """
    patch_px = situation.patch_px
    global_px = global_crop_px or situation.image_px
    local_px = local_crop_px or nearest_whole(global_px * 96 / 224, patch_px or 8)
    check_whole_patches("a global view (method.global_crop_px)", global_px, patch_px)
    check_whole_patches("a local view (method.local_crop_px)", local_px, patch_px)
    return global_px, local_px
