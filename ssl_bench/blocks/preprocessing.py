"""How a network's weights expect images: size, crop, interpolation, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ssl_bench.blocks.pixels import normalize_batch
from ssl_bench.blocks.views import IMAGENET_MEAN, IMAGENET_STD, evaluation_crop
from ssl_bench.measurement import NO_PROTOCOL, Protocol, Value

Triple = tuple[float, float, float]


class Preprocessing(BaseModel):
    """What is done to an image before a network sees it. The defaults are DINO's eval_knn.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_px: int = 224
    """Side of the square that the network sees."""
    resize_px: int = 256
    """The shorter side before the center crop; with `squash` both sides, whatever the aspect."""
    squash: bool = False
    rounds_down: bool = False
    """Halves an odd margin of the center crop downwards, as transformers does; False: as torchvision."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    source: str = "assumed: as DINO evaluates"
    """Where it is from, in words."""

    def at(self, crop_px: int) -> Preprocessing:
        """The same for another image size, resized in proportion."""
        if crop_px == self.crop_px:
            return self
        return self.model_copy(update={"crop_px": crop_px, "resize_px": round(self.resize_px * crop_px / self.crop_px)})

    def protocol(self, native: bool, positions: Protocol = NO_PROTOCOL) -> Protocol:
        """E.g. "resize 256 bicubic, center crop 224"; `native`: images are squares of `crop_px` already.

        Mean and deviation are shown where they are not ImageNet's.
        """
        fields: dict[str, Value | Protocol] = {"image_px": self.crop_px, "positions": positions}
        text = "native {image_px} px"
        if not native:
            fields |= {"resize_px": self.resize_px, "interpolation": self.interpolation}
            text = "resize {resize_px} {interpolation}, center crop {image_px}"
            if self.squash:
                text = "both sides resized to {resize_px} {interpolation}, center crop {image_px}"
        if (self.mean, self.std) != (IMAGENET_MEAN, IMAGENET_STD):
            fields |= {"mean": self.mean, "std": self.std}
            text += ", mean {mean}, std {std}"
        return Protocol.of(text + "{positions}", **fields)

    def crop(self, native: bool) -> Callable[[Image.Image], NDArray[np.uint8]]:
        """RGB image to levels (crop_px, crop_px, 3); `native` images are not resized."""
        resize_px = self.crop_px if native else self.resize_px
        return evaluation_crop(self.crop_px, resize_px, self.interpolation, self.squash, self.rounds_down)

    def normalized(self, levels: Tensor) -> Tensor:
        """Levels (batch, crop_px, crop_px, 3) uint8 to what the network takes, (batch, 3, crop_px, crop_px) float32."""
        return normalize_batch(levels, self.mean, self.std)


def from_timm(config: Mapping[str, Any]) -> Preprocessing:
    """What timm's pretrained_cfg says: size, crop share, interpolation, mean and std (`timm.data.create_transform`)."""
    crop_px = int((config.get("input_size") or (3, 224, 224))[-1])
    return Preprocessing(
        crop_px=crop_px,
        resize_px=int(crop_px / float(config.get("crop_pct") or 0.875)),
        squash=config.get("crop_mode") == "squash",
        interpolation="bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
        mean=tuple(config.get("mean") or IMAGENET_MEAN),
        std=tuple(config.get("std") or IMAGENET_STD),
        source="timm's configuration of the weights",
    )
