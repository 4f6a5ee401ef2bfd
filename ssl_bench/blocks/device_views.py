"""The views of `MultiCrop` in two parts: workers crop, the device does what is left, a micro-batch at a time.

Workers draw every random number as `MultiCrop` does, and crop, resize and flip: images differ in size, and what they
send are bytes, a quarter of the memory of finished views. Color jitter in each image's own order, gray, blur,
solarization and normalization are then computed on the device, in float32, by the formulas of `pixels` over all images
that need the operation. The views are those of `Crop.apply` up to the rounding of float32: 0.002 gray levels of 255,
and a whole level where rounding moved a level across solarization's threshold of 128.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ssl_bench.blocks import pixels as operations
from ssl_bench.blocks.views import Crop, MultiCrop, ViewParameters
from ssl_bench.errors import UserError

TEMPORARIES = 6
"""Memory while a view is finished, at most, as a multiple of the finished view's."""

_Operation = Callable[[Tensor, Tensor], Tensor]
"""Levels (images, 3, height, width) in 0..255 and a number for each image, (images, 1, 1, 1) -> levels."""


class DeviceViews:
    """A view function that leaves the views' color to `finish`. Picklable, as `MultiCrop` is.

    Raises:
        UserError: ``make_views`` is not a `MultiCrop` of `Crop`, whose operations are known here.
    """

    def __init__(self, make_views: object) -> None:
        views = make_views.views if type(make_views) is MultiCrop else ()
        self.crops = [crop for crop, count in views for _ in range(count)]
        if not self.crops or any(type(crop) is not Crop for crop in self.crops):
            raise UserError(
                "machine.augment_on = device: the method's views come from a function of its own, and only those of "
                "ssl_bench.blocks.views.MultiCrop can be finished on the device. Leave the setting at workers"
            )

    def __call__(self, image: Image.Image, rng: random.Random) -> tuple[Tensor, ...]:
        """Crops of an RGB image, (3, crop_px, crop_px) uint8 each, then what was drawn, (views, 11) float64."""
        pixels = operations.unpack(image)
        crops, numbers = [], []
        for crop in self.crops:
            drawn = crop.draw(image.width, image.height, rng)
            levels = operations.resized_levels(pixels, drawn.box_px, crop.crop_px, crop.interpolation, drawn.flip)
            crops.append(torch.from_numpy(np.ascontiguousarray(levels)))
            numbers.append(_as_numbers(drawn))
        return *crops, torch.tensor(numbers, dtype=torch.float64)

    def finish(self, views: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
        """The views (images, 3, crop_px, crop_px) on `device`, of stacked crops and numbers on the host."""
        *crops, drawn = views
        with torch.no_grad():
            return tuple(
                _finished(levels, drawn[:, number], crop, device)
                for number, (levels, crop) in enumerate(zip(crops, self.crops, strict=True))
            )


def on_device(make_views: object, *, draws_over_batch: bool) -> DeviceViews:
    """A method's views for `machine.augment_on` = device. Raises `UserError` where they cannot be finished there."""
    if draws_over_batch:
        raise UserError(
            "machine.augment_on = device: the method's batch_views needs finished views before they are on the device. "
            "Leave the setting at workers"
        )
    return DeviceViews(make_views)


def _as_numbers(drawn: ViewParameters) -> list[float]:
    """As `_finished` reads them: which operation and its factor, four times; gray; radius of the blur; solarized."""
    jitter = [number for name, factor in drawn.jitter for number in (_CODES[name], factor)]
    jitter += [-1.0] * (2 * len(_JITTER) - len(jitter))
    radius = -1.0 if drawn.blur_sigma_px is None else operations.box_radius(drawn.blur_sigma_px)
    return [*jitter, float(drawn.gray), radius, float(drawn.solarize)]


def _finished(levels: Tensor, drawn: Tensor, crop: Crop, device: torch.device) -> Tensor:
    """Levels and numbers (images, 11) on the host -> a normalized view on the device."""
    *jitter, is_gray, radius, is_solarized = drawn.unbind(1)
    steps: list[tuple[_Operation, Tensor, Tensor]] = [
        (operation, codes == code, factors)
        for codes, factors in zip(jitter[::2], jitter[1::2], strict=True)
        for code, operation in enumerate(_JITTER.values())
    ]
    blur = partial(_blur, margin=int(radius.max()) + 1)
    solarize = partial(_solarize, threshold=crop.solarize_threshold)
    steps += [(_gray, is_gray > 0, is_gray), (blur, radius >= 0, radius), (solarize, is_solarized > 0, is_solarized)]
    pixels = levels.to(device, non_blocking=True).to(torch.float32, memory_format=torch.contiguous_format)
    chosen = [(operation, which.nonzero()[:, 0], numbers) for operation, which, numbers in steps if which.any()]
    if chosen:
        sizes = [len(index) for _, index, _ in chosen]
        given = torch.cat([numbers[index] for _, index, numbers in chosen]).float()[:, None, None, None]
        indices = torch.split(_sent(torch.cat([index for _, index, _ in chosen]), device), sizes)
        numbers = torch.split(_sent(given, device), sizes)
        for (operation, _, _), index, its_numbers in zip(chosen, indices, numbers, strict=True):
            pixels.index_copy_(0, index, operation(pixels.index_select(0, index), its_numbers))
    return operations.normalize_(pixels, crop.mean, crop.std)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device, without waiting for what it computes now."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = (float(weight) for weight in operations.GRAY_WEIGHTS)
    return (pixels[:, :1] * red).add_(pixels[:, 1:2], alpha=green).add_(pixels[:, 2:], alpha=blue)


def _brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return pixels.mul_(factor).clamp_(0, 255)


def _contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    mean = _luma(pixels).mean(dim=(2, 3), keepdim=True)
    return pixels.mul_(factor).add_((1 - factor) * mean).clamp_(0, 255)


def _saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    luma = _luma(pixels).mul_(1 - factor)
    return pixels.mul_(factor).add_(luma).clamp_(0, 255)


def _hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """See `pixels.adjust_hue`, line by line the same."""
    turns = turns[:, 0]
    red, green, blue = pixels.unbind(1)
    low, top = pixels.amin(1), pixels.amax(1)
    position = (green + blue).sub_(red).add_(top).sub_(low, alpha=2).copysign_(green - blue)
    chroma = top.sub_(low)
    position.add_(6 * turns * chroma)
    overshoot = (position.abs() > 3 * chroma).logical_and_(turns.abs() > 1 / 6)
    position.sub_(torch.copysign(chroma, turns).mul_(overshoot), alpha=6)
    turned = torch.stack((position, position.sub(chroma, alpha=2), position.add(chroma, alpha=2)), 1).abs_()
    low, chroma = low[:, None], chroma[:, None]
    turned.sub_(chroma, alpha=3).abs_().sub_(chroma).clamp_(min=0)
    return torch.minimum(turned, chroma, out=turned).add_(low)


def _gray(pixels: Tensor, _: Tensor) -> Tensor:
    return _luma(pixels).expand_as(pixels)


def _blur(pixels: Tensor, radius: Tensor, margin: int) -> Tensor:
    """See `pixels.gaussian_blur`; the boxes' radii differ from image to image, `margin` covers the largest."""
    weights = [(radius + 1 - abs(shift)).clamp_(0, 1) / (2 * radius + 1) for shift in range(-margin, margin + 1)]
    for dimension in (3, 2):
        margins = (margin, margin, 0, 0) if dimension == 3 else (0, 0, margin, margin)
        for _ in range(operations.BOX_PASSES):
            padded = functional.pad(pixels, margins, mode="replicate")
            pixels = torch.zeros_like(pixels)
            for shift, weight in enumerate(weights):
                pixels.addcmul_(padded.narrow(dimension, shift, pixels.shape[dimension]), weight)
    return pixels


def _solarize(pixels: Tensor, _: Tensor, threshold: float) -> Tensor:
    return torch.where(pixels >= threshold, 255 - pixels, pixels)


_JITTER: dict[str, _Operation] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}
_CODES = {name: float(code) for code, name in enumerate(_JITTER)}
