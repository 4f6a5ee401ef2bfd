"""Pixel operations behind the views: pure numpy on one image, no randomness.

Between ``unpack`` and ``normalize``, a function takes and returns a float32 array ``(channels, height, width)`` in gray
levels 0..255 and may write into its argument: keep the result, forget what you passed. Nothing is rounded to whole
levels between operations, as in torchvision's operations on float tensors. Pillow, and so the DINO authors' pipeline,
truncates after each one: whole views on a photo are 0.8 levels apart in the mean (``tests/test_views.py``).

Planar float32 and numpy were measured against Pillow, torch and lookup tables: hue and blur are about 4 times as
fast as Pillow's at 224 px, and at 32 px, where the price is the call and not the pixel, numpy calls cost half of
torch's. Reductions stay in numpy because their summation order does not depend on the number of torch threads.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]
Interpolation = Literal["bicubic", "bilinear"]

# ITU-R 601-2 luma, the weights of Pillow's convert("L").
GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# What torch.nn.functional.interpolate(antialias=True) calls; its own checks take a sixth of a 32 px resize.
_RESIZE: dict[str, Callable[[torch.Tensor, tuple[int, int], bool, None], torch.Tensor]] = {
    "bicubic": torch._C._nn._upsample_bicubic2d_aa,
    "bilinear": torch._C._nn._upsample_bilinear2d_aa,
}

BOX_PASSES = 3  # Pillow's ImagingGaussianBlur is called with three passes


def _clip(pixels: Pixels, factor: float) -> Pixels:
    """A blend by ``factor`` of levels in 0..255 to 0..255 again; only a factor above 1 leads below 0."""
    black, white = _bounds(pixels.shape)
    np.minimum(pixels, white, out=pixels)
    if factor > 1.0:
        np.maximum(pixels, black, out=pixels)
    return pixels


@functools.lru_cache(maxsize=16)
def _bounds(shape: tuple[int, ...]) -> tuple[Pixels, Pixels]:
    """Black and white as whole images: a third of the time of scalar bounds at 32 px, and a quarter at 224 px."""
    return np.zeros(shape, dtype=np.float32), np.full(shape, 255, dtype=np.float32)


def unpack(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels ``(height, width, 3)`` of an RGB image, read-only.

    Raises:
        ValueError: the image has another mode.
    """
    if image.mode != "RGB":
        raise ValueError(f"Views are made of RGB images, not {image.mode!r}: convert it in the dataset's reader.")
    return np.asarray(image)


def normalize(pixels: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """``(levels / 255 - mean) / std`` as a tensor ``(3, height, width)``; a single channel is used for all three."""
    factor, offset = _factor_and_offset(mean, std)
    result = pixels * factor
    result -= offset
    return torch.from_numpy(result)


def normalize_batch(levels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """uint8 ``(batch, height, width, 3)`` to float32 ``(batch, 3, height, width)`` on its device, bitwise as
    ``normalize`` of each image."""
    result = levels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return normalize_(result, mean, std)


def normalize_(levels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """float32 ``(batch, 3, height, width)`` on any device, in its own memory; bitwise as ``normalize``."""
    # By numbers and channels: a tensor of them would have to be sent to a device at each call.
    for channel, factor, offset in zip(
        levels.unbind(1), *(one.ravel().tolist() for one in _factor_and_offset(mean, std)), strict=True
    ):
        channel.mul_(factor).sub_(offset)
    return levels


@functools.cache  # a fifth of the time of a 32 px view otherwise goes into making these small arrays
def _factor_and_offset(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Pixels, Pixels]:
    factor: Pixels = (1 / (255 * np.array(std)[:, None, None])).astype(np.float32)
    offset: Pixels = (np.array(mean) / np.array(std))[:, None, None].astype(np.float32)
    return factor, offset


def resized_box(
    image: NDArray[np.uint8], box_px: tuple[int, int, int, int], crop_px: int, interpolation: Interpolation, flip: bool
) -> Pixels:
    """``(3, crop_px, crop_px)`` of the box (left, top, width, height) of an image ``(height, width, 3)``."""
    return resized_levels(image, box_px, crop_px, interpolation, flip).astype(np.float32, order="C")


def resized_levels(
    image: NDArray[np.uint8], box_px: tuple[int, int, int, int], crop_px: int, interpolation: Interpolation, flip: bool
) -> NDArray[np.uint8]:
    """``resized_box`` before it becomes float32, in any order of memory.

    torch's antialiased uint8 resize: within one gray level of cropping and resizing with Pillow (nothing outside the
    box is seen), in less than half the time where the processor has AVX2.
    """
    left, top, width, height = box_px
    # Copied because the vectorized kernel wants contiguous channels-last memory, with the strides of a batch of one:
    # an axis that torch adds later has others, and the kernel then takes up to twice as long.
    box = image[None, top : top + height, left : left + width].copy().transpose(0, 3, 1, 2)
    resized = _RESIZE[interpolation](torch.from_numpy(box), (crop_px, crop_px), False, None)
    levels: NDArray[np.uint8] = resized.numpy()[0]
    return levels[:, :, ::-1] if flip else levels


def gray(pixels: Pixels) -> Pixels:
    """Luma of an RGB image, ``(3, height, width)`` to ``(1, height, width)``."""
    # einsum rather than a matrix product: no BLAS, so no threads behind the DataLoader's back.
    luma: Pixels = np.einsum("c,chw->hw", GRAY_WEIGHTS, pixels)
    return luma[None]


def adjust_brightness(pixels: Pixels, factor: float) -> Pixels:
    """Blend with black: ``factor * pixels``, clipped to 0..255."""
    pixels *= factor
    if factor > 1.0:
        np.minimum(pixels, _bounds(pixels.shape)[1], out=pixels)
    return pixels


def adjust_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Blend with the image's mean luma: ``factor * pixels + (1 - factor) * mean``, clipped."""
    channel_sums = np.add.reduce(pixels.reshape(3, -1), axis=1)
    mean = float(GRAY_WEIGHTS.dot(channel_sums)) / pixels[0].size
    pixels *= factor
    pixels += (1.0 - factor) * mean
    return _clip(pixels, factor)


def adjust_saturation(pixels: Pixels, factor: float) -> Pixels:
    """Blend with the image's luma: ``factor * pixels + (1 - factor) * gray(pixels)``, clipped."""
    luma = gray(pixels)
    luma *= 1.0 - factor
    pixels *= factor
    pixels += luma
    return _clip(pixels, factor)


def adjust_hue(pixels: Pixels, turns: float) -> Pixels:
    """Rotate the hue of HSV by ``turns`` (1 is the full circle, -0.5 <= turns <= 0.5), keeping value and saturation.

    The conversion to HSV and back is not needed. With the hue measured in sextants from a channel's own color, that
    channel is ``low + chroma * clip(2 - distance, 0, 1)``, ``distance`` in 0..3 around the circle; and for red the
    signed distance times chroma is linear in the channels: ``top - 2 low + green + blue - red``, with the sign of
    ``green - blue``. Green and blue lie two sextants to either side. Everything is kept multiplied by chroma, so that
    no division (and no special case for gray pixels) is left.
    """
    red, green, blue = pixels
    low = np.minimum(np.minimum(red, green), blue)
    top = np.maximum(np.maximum(red, green), blue)
    position = green + blue
    position -= red
    position += top
    position -= low
    position -= low
    np.copysign(position, green - blue, out=position)
    chroma = np.subtract(top, low, out=top)
    position += (6.0 * turns) * chroma
    if abs(turns) > 1 / 6:  # beyond one sextant the fold below no longer covers green and blue
        overshoot = np.abs(position) > 3.0 * chroma
        position -= math.copysign(6.0, turns) * chroma * overshoot
    two_sextants = chroma + chroma
    pixels[0] = position
    np.subtract(position, two_sextants, out=pixels[1])
    np.add(position, two_sextants, out=pixels[2])
    np.abs(pixels, out=pixels)
    two_sextants += chroma
    pixels -= two_sextants
    np.abs(pixels, out=pixels)  # now 3 - distance, for raw distances up to 6
    pixels -= chroma
    np.maximum(pixels, _bounds(pixels.shape)[0], out=pixels)
    np.minimum(pixels, chroma, out=pixels)
    pixels += low
    return pixels


def box_radius(sigma_px: float) -> float:
    """Radius of the box (whole pixels and a fraction for the outermost two) whose passes have variance sigma**2.

    Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering", as in Pillow's
    ``BoxBlur.c``.
    """
    variance = sigma_px * sigma_px / BOX_PASSES
    whole = math.floor((math.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3.0 * variance) / (6.0 * (variance - (whole + 1) ** 2))
    return whole + part


def gaussian_blur(pixels: Pixels, sigma_px: float) -> Pixels:
    """Blur with Pillow's approximation of a Gaussian of standard deviation ``sigma_px``, edges repeated.

    Three box filters along each axis, as ``PIL.ImageFilter.GaussianBlur(radius=sigma_px)``, which is what the DINO
    authors use. The boxes are summed with weights ``part, 1, .., 1, part``; one scaling at the end makes them means.
    """
    radius = box_radius(sigma_px)
    whole = int(radius)
    part = radius - whole
    center, passes = _workspaces.of(pixels.shape, whole + 1)
    np.copyto(center, pixels)
    for near_margin, near_edge, far_margin, far_edge, sums, first, last, between in passes:
        np.copyto(near_margin, near_edge)
        np.copyto(far_margin, far_edge)
        np.add(first, last, out=sums)
        sums *= part
        for levels in between:
            sums += levels
    mean_of_boxes = (2.0 * radius + 1.0) ** (-2 * BOX_PASSES)
    np.multiply(center, np.float32(mean_of_boxes), out=pixels)
    return pixels


def _blur_workspace(shape: tuple[int, ...], margin: int) -> tuple[Pixels, list[tuple[Any, ...]]]:
    """Memory of a blur, and slices of it: where the pixels go and come from, and what each pass reads and writes."""
    channels, height, width = shape
    row = width + 2 * margin
    source, target = np.zeros((2, channels, height + 2 * margin, row), dtype=np.float32)
    center = source[:, margin : margin + height, margin : margin + width]
    passes: list[tuple[Any, ...]] = []
    for axis, length, stride in ((2, width, 1), (1, height, row)):
        offset = margin * stride
        for _ in range(BOX_PASSES):
            padded = source.swapaxes(1, axis)
            # A step along either axis is a shift of the flat array. Summing whole flat arrays, margins included,
            # takes a third of the time of summing rows; what it leaves in the margins is overwritten before use.
            levels, sums = source.reshape(-1), target.reshape(-1)[offset:-offset]
            span = sums.size
            passes.append(
                (
                    padded[:, :margin], padded[:, margin : margin + 1],
                    padded[:, margin + length :], padded[:, margin + length - 1 : margin + length],
                    sums, levels[:span], levels[2 * offset :],
                    [levels[shift : shift + span] for shift in range(stride, 2 * offset, stride)],
                )
            )  # fmt: skip
            source, target = target, source
    return center, passes


class _Workspaces(threading.local):
    """Each thread's own: at 32 px, making the memory and its slices would take as long as the sums."""

    def __init__(self) -> None:
        self.of = functools.lru_cache(maxsize=16)(_blur_workspace)


_workspaces = _Workspaces()


def solarize(pixels: Pixels, threshold: float) -> Pixels:
    """Invert (``255 - level``) what is at or above ``threshold`` gray levels."""
    np.subtract(255.0, pixels, out=pixels, where=pixels >= threshold)
    return pixels
