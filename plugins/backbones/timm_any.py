"""Any network that timm knows by name: `--arch timm:convnext_tiny`.

Source: https://github.com/huggingface/pytorch-image-models; each network's paper is named in timm.

`timm:vit_tiny_patch16_224` is untrained, `timm:vit_tiny_patch16_224.augreg_in21k` starts from the weights of that tag
(`timm_weights`). Features are what timm pools for its classifier. Transformers of patches take any image size that
their patches divide, and show their patch tokens; those whose features are a CLS token show its attention. What a
network does not show, it says why (`timm_attention`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import timm
import torch
from pydantic import field_validator
from torch import Tensor

from ssl_bench.backbone import Backbone, Capability, Kind, Positions, TimmModel, Tokens
from ssl_bench.blocks.patch_sizes import check_whole_patches
from ssl_bench.blocks.preprocessing import from_timm
from ssl_bench.blocks.recompute import keep_statistics_in_backward
from ssl_bench.errors import UserError
from ssl_bench.settings import Settings, setting

from . import timm_attention, timm_maps, timm_search, timm_weights, vit_tokens
from .timm_facts import Facts, create, does_not_fit, facts, reads_cls_alone, size_arguments
from .vit_positions import fit_positions


class TimmSettings(Settings):
    """Which network, and what it starts from."""

    name: str = setting(
        ...,
        "Name of the network in timm.list_models(); with a tag, as NAME.TAG, its pretrained weights.",
        source="timm",
    )
    weights: str | None = setting(
        None,
        "File with pretrained weights; null: those of the name's tag from timm's hub, or random ones without a tag.",
    )
    positions: Positions | None = setting(
        None,
        "How learned positions are resampled for views and images of another size: as DINO's code or as timm; null: "
        "dino for the method DINO where the network is a plain ViT, else timm.",
        source="vision_transformer.py interpolate_pos_encoding; timm resample_abs_pos_embed",
    )
    pool: Literal["token", "timm"] | None = setting(
        None,
        "What the features are: token, the class token; timm, what timm pools for its classifier. null: token for "
        "DINOv3, whose authors read it where timm averages the patches; else timm.",
        source="facebookresearch/dinov3, dinov3/eval/utils.py; timm global_pool",
    )

    @field_validator("weights")
    @classmethod
    def _fits_into_a_record(cls, weights: str | None) -> str | None:
        try:
            (weights or "").encode()
        except UnicodeEncodeError:
            raise ValueError("not UTF-8, so that no record can hold it: rename the file, or give a link") from None
        return weights


class TimmAny(Backbone):
    """Any network of timm's by its name."""

    Config = TimmSettings
    settings_before: ClassVar[Mapping[str, Any]] = {"positions": "timm", "pool": "timm"}

    def __init__(self, config: TimmSettings, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px, drop_path=drop_path)
        known = _facts(config, image_px)
        if known.patch_px is not None and image_px % known.patch_px:
            sizes = [max(1, image_px // known.patch_px + more) * known.patch_px for more in (0, 1)]
            raise UserError(
                f"images of {image_px} px are not whole patches of timm's {config.name}, which are "
                f"{known.patch_px} px. Give --set data.image_px={sizes[0]}, or {sizes[1]}"
            )
        if "." in config.name or config.weights is not None:
            network, self.pretrained = timm_weights.load(config.name, config.weights, image_px, drop_path)
        else:
            network = create(config.name, image_px, drop_path, pretrained=False)
        if config.pool == "token":
            network.global_pool = "token"
        self.network: Any = network
        self.name, self.image_px, self.kind = config.name, image_px, known.kind
        self.patch_px, self.prefix_tokens, self._tokens = known.patch_px, known.prefix_tokens, known.tokens
        self.feature_dim = int(getattr(network, "head_hidden_size", None) or network.num_features)
        self.positions = config.positions if config.positions in known.positions else (known.positions or (None,))[0]
        self.why_not = {
            **timm_attention.why_not(network, config.name),
            **timm_maps.why_not(network, config.name),
        }
        self.supports = frozenset(get_args(Capability)).difference(self.why_not)
        self._recomputes = False
        # timm's pooling takes the CLS token as it is: then the last block need not compute the other tokens
        self._cls_only = reads_cls_alone(network)
        published = timm.get_pretrained_cfg(config.name)
        self.preprocessing = from_timm(dataclasses.asdict(published)) if published else None

    @classmethod
    def patch_px_for(cls, config: TimmSettings, image_px: int) -> int | None:
        """The network's patch; None for one without a fixed grid of patches."""
        return _facts(config, image_px).patch_px

    @classmethod
    def kind_for(cls, config: TimmSettings, image_px: int) -> Kind:
        """The network's kind, by its layers."""
        return _facts(config, image_px).kind

    @classmethod
    def fill(cls, config: TimmSettings, image_px: int, defaults: Mapping[str, Any]) -> TimmSettings:
        """Positions as the method wants them where the network can have them so, else as timm; DINOv3's class token.

        Raises `UserError` where DINO's or MAE's rule is asked for and the network is no plain ViT, or the class token
        and the network has none that its last norm reaches.
        """
        known = _facts(config, image_px)
        rules = known.positions
        pool = config.pool or ("token" if known.reads_token and "dinov3" in config.name else "timm")
        if pool == "token" and not known.reads_token:
            raise UserError(
                f"backbone.pool = 'token': {config.name} has no class token behind its last norm. Leave the setting out"
            )
        wanted = defaults.get("positions")
        chosen = config.positions or (wanted if wanted in rules else "timm")
        if chosen != "timm" and chosen not in rules:
            raise UserError(
                f"backbone.positions = {chosen!r}: {config.name} is not a plain ViT read at its CLS token, and only "
                "timm's rule is known for it. Leave the setting out, or choose e.g. timm:vit_small_patch16_224"
            )
        return config.model_copy(update={"positions": chosen, "pool": pool})

    @classmethod
    def names_like(cls, family: str, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Names of timm's networks of a family whose size may fit."""
        return timm_search.names_like(family, shapes)

    @classmethod
    def without_pretrained(cls, config: TimmSettings) -> TimmSettings:
        """The same network with random weights."""
        return config.model_copy(update={"name": timm_weights.architecture(config.name), "weights": None})

    def fit_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Positions of another image size are resampled where they are learned and the network's rule is known."""
        if self.positions is None:
            return dict(weights)
        return fit_positions(self.network, weights, self.positions, "network.pos_embed")

    def token_count(self, height: int, width: int) -> int | None:
        """As the base class; without a grid of patches, what leaves the last block at the network's own size."""
        if self.patch_px is None:
            return self._tokens if (height, width) == (self.image_px, self.image_px) else None
        return super().token_count(height, width)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim): the features that timm's classifier would read.

        Raises `UserError` for sizes that the network does not take.
        """
        if self._cls_only:
            self._check_size(images)
            return vit_tokens.cls_token(self.network, images, self.positions or "timm")
        return self._fitting(self.network, images)  # type: ignore[no-any-return]

    def tokens(
        self,
        images: Tensor,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tokens:
        """As the base class says: as the network's last norm leaves them; masks for timm's VisionTransformers."""
        if "patch_tokens" in self.why_not:
            raise NotImplementedError(self.why_not["patch_tokens"])
        selection = vit_tokens.Selection(mask, mask_token, keep)
        if "masking" in self.why_not and any(part is not None for part in selection):
            raise NotImplementedError(self.why_not["masking"])
        return timm_attention.tokens(self.network, images, self.positions or "timm", selection)

    def attention(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, heads, rows, columns): the last CLS query on the patches."""
        if "attention" in self.why_not:
            raise NotImplementedError(self.why_not["attention"])
        return timm_attention.cls_attention(self.network, images, self.positions or "timm")

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """As the base class says, through timm's `forward_intermediates`: every stage it names, a stem's too."""
        if "feature_maps" in self.why_not:
            raise NotImplementedError(self.why_not["feature_maps"])
        read = partial(timm_maps.feature_maps, self.network, positions=self.positions or "timm")
        return self._fitting(read, images)  # type: ignore[no-any-return]

    def timm_model(self) -> TimmModel:
        """The network itself; for one image size where positions are not resampled as timm does."""
        name = timm_weights.architecture(self.name)
        arguments = size_arguments(name, self.image_px)
        if self.positions not in (None, "timm"):
            arguments.pop("dynamic_img_size", None)
        if getattr(self.network, "global_pool", None) == "token":
            arguments["global_pool"] = "token"
        return TimmModel(name, arguments)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """As timm does it, with batch norm's statistics moving once a step. Raises `UserError` where timm cannot."""
        if not enabled and not hasattr(self.network, "set_grad_checkpointing"):
            return
        if enabled and not self._recomputes:
            keep_statistics_in_backward(self.network)
            self._recomputes = True
        try:
            self.network.set_grad_checkpointing(enabled)
        except (AttributeError, AssertionError) as error:
            raise UserError(
                f"timm's {self.name} cannot recompute activations: leave machine.activation_checkpointing at false"
            ) from error

    def _check_size(self, images: Tensor) -> None:
        for side in images.shape[-2:]:
            check_whole_patches("an image side", side, self.patch_px)

    def _fitting(self, compute: Callable[[Tensor], Any], images: Tensor) -> Any:
        """`compute(images)`. Raises `UserError` for sizes that the network does not take."""
        self._check_size(images)
        try:
            return compute(images)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, AssertionError, RuntimeError) as error:
            if "more than 1 value per channel" in str(error):  # batch norm on a batch of 1
                raise
            raise does_not_fit(self.name, self.image_px, tuple(images.shape), error) from error


def _facts(config: TimmSettings, image_px: int) -> Facts:
    timm_weights.check_name(config.name)
    return facts(timm_weights.architecture(config.name), image_px)
