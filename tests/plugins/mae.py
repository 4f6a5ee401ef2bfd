"""MAE: the pixels of masked patches from the visible ones (He et al. 2021, arXiv 2111.06377).

Of each image's patches a share `mask_ratio` is left out; the encoder sees the others alone. A small decoder gets its
output, a mask token in each gap and every patch's position, and predicts pixels:

    loss = mean over masked patches of mean((prediction - target)^2),   target = (pixels - mean) / sqrt(var + 1e-6)

with mean and unbiased variance of each patch (models_mae.py of facebookresearch/mae, commit efb2a80).
Different here: the encoder keeps its learned positions, where the authors' are fixed sines and cosines.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from PIL import Image
from torch import Tensor, nn

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import Crop
from ssl_bench.method import Batch, MakeBackbone, MakeViews, Method, Preset, Progress, Situation, StepOutput
from ssl_bench.settings import Settings, setting


class MAESettings(Settings):
    """Every setting with its meaning and where its default comes from."""

    crop_px: int | None = setting(None, "Side of the view; null: the image's.", unit="px", ge=1)
    patch_px: int | None = setting(None, "Side of a patch; null: the backbone's.", unit="px", ge=1)
    mask_ratio: float = setting(0.75, "Share of the patches that is left out.", source="section 4.1", gt=0, lt=1)
    decoder_dim: int = setting(512, "Width of the decoder; a multiple of 4 and of its heads.", source="Table 1b", ge=4)
    decoder_depth: int = setting(8, "Blocks of the decoder.", source="Table 1a", ge=1)
    decoder_heads: int = setting(16, "Attention heads of the decoder.", source="models_mae.py", ge=1)

    @property
    def sizes_px(self) -> tuple[int, int]:
        """Sides of the view and of a patch; the paper's where `fill` left them open."""
        return self.crop_px or 224, self.patch_px or 16

    @property
    def side(self) -> int:
        """Patches in a row of the view."""
        crop_px, patch_px = self.sizes_px
        return crop_px // patch_px


@dataclass(frozen=True)
class CropAndOrder:
    """The view (3, crop_px, crop_px) and a random order of its patches (patches,) int64; the first ones are visible."""

    crop: Crop
    patches: int

    def __call__(self, image: Image.Image, rng: Random) -> tuple[Tensor, ...]:
        return self.crop(image, rng), torch.tensor(rng.sample(range(self.patches), self.patches))


def patch_pixels(images: Tensor, patch_px: int) -> Tensor:
    """(batch, 3, height, width) -> (batch, patches, patch_px * patch_px * 3), row by row."""
    rows = images.unfold(2, patch_px, patch_px).unfold(3, patch_px, patch_px)  # (batch, 3, rows, columns, y, x)
    return rows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def masked_loss(predictions: Tensor, pixels: Tensor, masked: Tensor) -> Tensor:
    """Mean squared error on `masked` (batch, patches) bool, of pixels (batch, patches, values) normalized per patch."""
    targets = (pixels - pixels.mean(dim=-1, keepdim=True)) / (pixels.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    errors = (predictions - targets).square().mean(dim=-1)
    return (errors * masked).sum() / masked.sum()


def sines_and_cosines(side: int, dim: int) -> Tensor:
    """(side * side, dim): half of the width for the row, half for the column (`get_2d_sincos_pos_embed`)."""
    rates = 10_000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    angles = torch.arange(side)[:, None] * rates
    one = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, dim / 2)
    return torch.cat([one.repeat_interleave(side, 0), one.repeat(side, 1)], dim=1)


class MAE(Method):
    """MAE: a masked autoencoder whose encoder sees the visible patches only."""

    Config = MAESettings
    requires = frozenset({"masking"})
    mean_over_images = True  # every image has as many masked patches
    presets = {  # noqa: RUF012
        "paper": Preset(  # appendix A.1, Table 8
            "800 epochs of ImageNet",
            {
                "training.epochs": 800,
                "training.batch_size": 4096,
                "optimizer.base_lr": 1.5e-4,
                "optimizer.final_lr": 0.0,
                "optimizer.warmup_epochs": 40,
                "optimizer.betas": (0.9, 0.95),
                "optimizer.weight_decay": 0.05,
                "optimizer.final_weight_decay": None,
            },
        ),
        "small-data": Preset(
            "small images", {"method.decoder_dim": 64, "method.decoder_depth": 1, "method.decoder_heads": 4}, steps=750
        ),
    }
    positions: Tensor

    def __init__(self, config: MAESettings, make_backbone: MakeBackbone) -> None:
        super().__init__(config, make_backbone)
        self.config, dim = config, config.decoder_dim
        self.encoder = make_backbone()
        self.enter = nn.Linear(self.encoder.feature_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim).normal_(std=0.02))
        self.register_buffer("positions", sines_and_cosines(config.side, dim), persistent=False)
        block = nn.TransformerEncoderLayer(
            dim, config.decoder_heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerEncoder(block, config.decoder_depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.leave = nn.Linear(dim, 3 * config.sizes_px[1] ** 2)

    @classmethod
    def fill(cls, config: MAESettings, situation: Situation) -> MAESettings:
        """The view's size and the patch's, which decide how many patches there are to order."""
        sizes = {"crop_px": config.crop_px or situation.image_px, "patch_px": config.patch_px or situation.patch_px}
        return config.model_copy(update=sizes)

    @classmethod
    def make_views(cls, config: MAESettings) -> MakeViews:
        """A crop of (0.2, 1) and a flip, no color (appendix A.1), and the order in which patches are taken."""
        return CropAndOrder(Crop(config.sizes_px[0], (0.2, 1.0)), config.side**2)

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """The error on the patches that the encoder did not see."""
        images, order = batch.views
        count = order.shape[1]
        visible = order[:, : max(1, round(count * (1 - self.config.mask_ratio)))]
        tokens = self.encoder.tokens(images, keep=visible)
        seen = self.enter(tokens.patches)
        whole = self.mask_token.to(seen.dtype).repeat(len(images), count, 1)
        whole = whole.scatter(1, visible[..., None].expand_as(seen), seen) + self.positions
        prefix = tokens.registers if tokens.cls is None else torch.cat([tokens.cls[:, None], tokens.registers], dim=1)
        decoded = self.decoder(torch.cat([self.enter(prefix), whole], dim=1))
        predictions = self.leave(decoded[:, prefix.shape[1] :])
        masked = torch.ones_like(order, dtype=torch.bool).scatter(1, visible, False)
        pixels = patch_pixels(images, self.config.sizes_px[1])
        return StepOutput(masked_loss(predictions, pixels, masked))

    def networks(self) -> dict[str, Backbone]:
        """The encoder, without the decoder."""
        return {"encoder": self.encoder}
