"""Backbones of patches, broken in one way each, fail the check that is about it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_bench.backbone import Backbone, Tokens
from ssl_bench.blocks.patch_selection import check_selection, replace_masked, select_kept
from ssl_bench.settings import Settings
from ssl_bench.testing import CheckFailed
from ssl_bench.testing.backbone_bench import Subject
from ssl_bench.testing.backbones import CHECKS


class Mixing(Backbone):
    """Patches of 8 px, a position each, and one layer of attention (unpublished)."""

    class Config(Settings):
        """None."""

    kind = "vit"
    prefix_tokens = ()
    supports = frozenset({"patch_tokens", "masking"})

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px, drop_path=drop_path)
        self.patch_px, self.image_px, self.feature_dim = 8, image_px, 8
        self.embed = nn.Conv2d(3, 8, 8, stride=8)
        self.mix = nn.Linear(8, 8)

    @classmethod
    def patch_px_for(cls, config: Any, image_px: int) -> int | None:
        return 8

    def forward(self, images: Tensor) -> Tensor:
        return self.tokens(images).patches.mean(dim=1)

    def tokens(
        self,
        images: Tensor,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tokens:
        maps = self.embed(images)
        grid = (maps.shape[2], maps.shape[3])
        patches = maps.flatten(2).transpose(1, 2)
        check_selection(len(images), patches.shape[1], 8, mask, mask_token, keep)
        if mask is not None and mask_token is not None:
            patches = self.masked(patches, mask, mask_token)
        patches = patches + torch.linspace(0, 1, patches.shape[1])[:, None]
        if keep is not None:
            patches = self.kept(patches, keep)
        patches = self.mix(patches)
        mixed = nn.functional.scaled_dot_product_attention(patches, patches, patches)
        return self.parts(mixed, grid)

    def masked(self, patches: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
        return replace_masked(patches, mask, mask_token)

    def kept(self, patches: Tensor, keep: Tensor) -> Tensor:
        return select_kept(patches, keep)

    def parts(self, patches: Tensor, grid: tuple[int, int]) -> Tokens:
        return Tokens(None, patches, patches[:, :0], grid)


class MapsAlone(Mixing):
    """Unpublished."""

    supports = frozenset({"patch_tokens"})

    def forward(self, images: Tensor) -> Tensor:
        return self.patch_tokens(images).mean(dim=(2, 3))

    def tokens(self, images: Tensor, **selection: Any) -> Tokens:
        raise NotImplementedError

    def patch_tokens(self, images: Tensor) -> Tensor:
        return self.mix(self.embed(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Columns(Mixing):
    """Unpublished."""

    def parts(self, patches: Tensor, grid: tuple[int, int]) -> Tokens:
        return Tokens(None, patches, patches[:, :0], (grid[1], grid[0]))

    def patch_tokens(self, images: Tensor) -> Tensor:
        tokens = self.tokens(images)
        return tokens.patches.transpose(1, 2).reshape(len(images), -1, *tokens.grid[::-1])


class ClsOfNothing(Mixing):
    """Unpublished."""

    def parts(self, patches: Tensor, grid: tuple[int, int]) -> Tokens:
        return Tokens(patches[:, 0], patches, patches[:, :0], grid)


class OtherMaps(Mixing):
    """Unpublished."""

    def patch_tokens(self, images: Tensor) -> Tensor:
        return 2 * super().patch_tokens(images)


class Peeking(Mixing):
    """Unpublished."""

    def masked(self, patches: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
        return replace_masked(patches, mask, mask_token) + 0.1 * patches


class Detached(Mixing):
    """Unpublished."""

    def masked(self, patches: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
        return replace_masked(patches, mask, mask_token.detach())


class Sorting(Mixing):
    """Unpublished."""

    def kept(self, patches: Tensor, keep: Tensor) -> Tensor:
        return select_kept(patches, keep.sort(dim=1).values)


class KeepingAll(Mixing):
    """Unpublished."""

    def kept(self, patches: Tensor, keep: Tensor) -> Tensor:
        return select_kept(patches + patches.mean(dim=1, keepdim=True), keep) - patches.mean(dim=1, keepdim=True) * 0.5


class Reordering(Mixing):
    """Unpublished."""

    def kept(self, patches: Tensor, keep: Tensor) -> Tensor:
        chosen = select_kept(patches, keep)
        return chosen if keep.shape[1] == patches.shape[1] else chosen + torch.arange(keep.shape[1])[:, None]


class Mapped(Mixing):
    """Unpublished."""

    supports = frozenset({"patch_tokens", "masking", "feature_maps"})

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        fine = self.embed(images)
        return fine, nn.functional.avg_pool2d(fine, 2)


class CoarseFirst(Mapped):
    """Unpublished."""

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return super().feature_maps(images)[::-1]


class TurnedMaps(Mapped):
    """Unpublished."""

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(one.transpose(2, 3) for one in super().feature_maps(images))


class Recomputing(Mapped):
    """Unpublished."""

    recomputes = False

    def set_activation_checkpointing(self, enabled: bool) -> None:
        self.recomputes = enabled


class RedrawnNoise(Recomputing):
    """Unpublished."""

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)

        def compute(given: Tensor) -> Tensor:
            return nn.functional.dropout(super(RedrawnNoise, self).forward(given), 0.5)

        if not self.recomputes:
            return compute(images)
        return checkpoint(compute, images, use_reentrant=False, preserve_rng_state=False)


class TwiceCounting(Recomputing):
    """Unpublished."""

    def __init__(self, config: Any, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, images: Tensor) -> Tensor:
        features = super().forward(images)
        return checkpoint(self.norm, features, use_reentrant=False) if self.recomputes else self.norm(features)


class Modest(Mixing):
    """Unpublished."""

    supports = frozenset({"patch_tokens"})


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_sound_one_passes_every_check(check: Any) -> None:
    check(Subject(Mapped, {}))


@pytest.mark.parametrize(
    ("plugin", "name", "words"),
    [
        (MapsAlone, "tokens_come_in_one_pass", "patch_tokens() is then derived from it"),
        (Columns, "tokens_come_in_one_pass", "says grid (3, 2): give (rows, columns)"),
        (ClsOfNothing, "tokens_come_in_one_pass", "prefix_tokens names no CLS"),
        (OtherMaps, "tokens_come_in_one_pass", "leave patch_tokens() to the base class"),
        (Peeking, "masked_patches_are_not_seen", "pixels under the mask reach the tokens"),
        (Detached, "masked_patches_are_not_seen", "no gradient reaches mask_token"),
        (Modest, "only_kept_patches_are_seen", "supports does not name 'masking'"),
        (Sorting, "only_kept_patches_are_seen", "another order of the same kept patches"),
        (KeepingAll, "only_kept_patches_are_seen", "keeping all patches changes them"),
        (CoarseFirst, "feature_maps_go_from_fine_to_coarse", "the finest first"),
        (TurnedMaps, "feature_maps_go_from_fine_to_coarse", "rows first, then twice as many columns"),
        (Recomputing, "recomputed_activations_change_nothing", "bytes for the backward pass"),
        (RedrawnNoise, "recomputed_activations_change_nothing", "gradient of"),
        (TwiceCounting, "recomputed_activations_change_nothing", "changes norm."),
        (Reordering, "only_kept_patches_are_seen", "a position goes with its patch"),
    ],
)
def test_broken_in_one_way(plugin: type[Backbone], name: str, words: str) -> None:
    (check,) = [check for check in CHECKS if check.__name__ == name]
    with pytest.raises(CheckFailed) as failed:
        check(Subject(plugin, {}))
    assert words in str(failed.value)
