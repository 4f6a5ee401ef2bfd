"""Sizes in whole patches: crops that a transformer can cut, and the message where it cannot."""

from __future__ import annotations

from ssl_bench.errors import UserError

LEAST_ADVISED_PX = 2
"""No advice names patches of a single pixel."""


class NotWholePatches(UserError):
    """A size that patches do not divide; whoever knows the network adds what else could be changed."""


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
