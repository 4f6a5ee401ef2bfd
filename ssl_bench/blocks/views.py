"""Views: random crops of one image, with randomness that the caller owns.

A *view function* maps ``(image, rng)`` to a float32 tensor ``(3, crop_px, crop_px)``, and a method's ``make_views``
returns a function to a tuple of them. The ``random.Random`` is the only source of randomness, so a view is a pure
function of the image and the state of ``rng``: seed one per (seed, epoch, index), and runs resume bit for bit, whatever
the number of workers or threads. Images are RGB; other modes are the reader's duty.

DINO's two global and eight local views (Caron et al. 2021, ``DataAugmentationDINO`` in the authors' main_dino.py)::

    color = Crop(
        crop_px=224, scale=(0.4, 1.0), jitter_probability=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1,
        gray_probability=0.2,
    )
    views = MultiCrop([
        (replace(color, blur_probability=1.0), 1),
        (replace(color, blur_probability=0.1, solarize_probability=0.2), 1),
        (replace(color, crop_px=96, scale=(0.05, 0.4), blur_probability=0.5), 8),
    ])
    first, second, *local = views(image, random.Random(f"{seed} {epoch} {index}"))
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_bench.backbone import IMAGENET_MEAN as IMAGENET_MEAN
from ssl_bench.backbone import IMAGENET_STD as IMAGENET_STD
from ssl_bench.blocks import pixels as operations

View = Callable[[Image.Image, random.Random], Tensor]
Views = Callable[[Image.Image, random.Random], tuple[Tensor, ...]]

LONGEST_ASPECT = 4
"""Images of a larger ratio of their sides are cropped before they are resized for evaluation: memory stays bounded."""

_JITTER: dict[str, Callable[[operations.Pixels, float], operations.Pixels]] = {
    "brightness": operations.adjust_brightness,
    "contrast": operations.adjust_contrast,
    "saturation": operations.adjust_saturation,
    "hue": operations.adjust_hue,
}


class ViewParameters(NamedTuple):
    """Everything random about one view, drawn before a pixel is touched."""

    box_px: tuple[int, int, int, int]  # left, top, width, height in the image
    flip: bool
    jitter: tuple[tuple[str, float], ...]  # (operation, factor; turns for hue) in the order of application
    gray: bool
    blur_sigma_px: float | None
    solarize: bool


@dataclass(frozen=True)
class Crop:
    """Settings of one kind of view, and the view function itself: ``crop(image, rng)``.

    In order: random resized crop, horizontal flip, color jitter, gray, Gaussian blur, solarization, normalization.
    Whatever is not named stays off, except the flip. Distributions are torchvision's (``RandomResizedCrop``,
    ``ColorJitter``) and, for blur and solarization, those of the DINO authors' utils.py.

    Raises:
        ValueError: a setting is outside its range; the message names it.
    """

    crop_px: int
    scale: tuple[float, float]  # area of the crop, as a fraction of the image's
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height, log-uniform; torchvision's default
    interpolation: operations.Interpolation = "bicubic"
    flip_probability: float = 0.5
    jitter_probability: float = 0.0
    brightness: float = 0.0  # b: factor uniform in [max(0, 1 - b), 1 + b]; the same for contrast and saturation
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # h: uniform in [-h, h] turns of the color circle, at most 0.5
    gray_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma_px: tuple[float, float] = (0.1, 2.0)  # uniform, in pixels of the crop; DINO's at 224 and at 96 px alike
    solarize_probability: float = 0.0
    solarize_threshold: float = 128.0  # gray level, 0..256; PIL.ImageOps.solarize's default
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    # Earlier spellings, for plugins that were written with them.
    grey_probability: InitVar[float | None] = None
    solarise_probability: InitVar[float | None] = None
    solarise_threshold: InitVar[float | None] = None

    def __post_init__(
        self, grey_probability: float | None, solarise_probability: float | None, solarise_threshold: float | None
    ) -> None:
        for name, earlier in (
            ("gray_probability", grey_probability),
            ("solarize_probability", solarise_probability),
            ("solarize_threshold", solarise_threshold),
        ):
            if earlier is not None:
                object.__setattr__(self, name, earlier)
        probabilities = [field.name for field in fields(self) if field.name.endswith("_probability")]
        ranges: list[tuple[str, Sequence[float], float, float]] = [
            ("crop_px", (self.crop_px,), 1, math.inf),
            ("scale", self.scale, 1e-9, 1),
            ("ratio", self.ratio, 1e-9, math.inf),
            ("blur_sigma_px", self.blur_sigma_px, 0, math.inf),
            ("hue", (self.hue,), 0, 0.5),
            *((name, (getattr(self, name),), 0, 1) for name in probabilities),
            *((name, (getattr(self, name),), 0, math.inf) for name in ("brightness", "contrast", "saturation")),
        ]
        for name, values, low, high in ranges:
            if not all(low <= value <= high for value in values) or list(values) != sorted(values):
                shown = values[0] if len(values) == 1 else tuple(values)
                raise ValueError(f"{name} = {shown}: give values from {low:g} to {high:g}, the smaller one first.")
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f"interpolation = {self.interpolation!r}: give 'bicubic' or 'bilinear'.")

    def __call__(self, image: Image.Image, rng: random.Random) -> Tensor:
        """A view ``(3, crop_px, crop_px)`` of an RGB image, normalized to ``mean`` and ``std``."""
        return self.apply(operations.unpack(image), self.draw(image.width, image.height, rng))

    def draw(self, width: int, height: int, rng: random.Random) -> ViewParameters:
        """The random part of a view of a ``width`` x ``height`` px image."""
        return ViewParameters(
            box_px=self._draw_box(width, height, rng),
            flip=rng.random() < self.flip_probability,
            jitter=self._draw_jitter(rng) if rng.random() < self.jitter_probability else (),
            gray=rng.random() < self.gray_probability,
            blur_sigma_px=rng.uniform(*self.blur_sigma_px) if rng.random() < self.blur_probability else None,
            solarize=rng.random() < self.solarize_probability,
        )

    def _draw_box(self, width: int, height: int, rng: random.Random) -> tuple[int, int, int, int]:
        """torchvision's RandomResizedCrop: ten tries, then the largest central box whose ratio is allowed."""
        log_ratio = (math.log(self.ratio[0]), math.log(self.ratio[1]))
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(*log_ratio))
            box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < box_width <= width and 0 < box_height <= height:
                left, top = rng.randrange(width - box_width + 1), rng.randrange(height - box_height + 1)
                return left, top, box_width, box_height
        box_width = min(width, max(1, round(height * self.ratio[1])))
        box_height = min(height, max(1, round(width / self.ratio[0])))
        return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height

    def _draw_jitter(self, rng: random.Random) -> tuple[tuple[str, float], ...]:
        """torchvision's ColorJitter: one factor per operation, in random order; neutral operations left out."""
        factors = [(name, rng.uniform(low, high)) for name, low, high in self._factor_ranges]
        rng.shuffle(factors)
        return tuple(factors)

    @functools.cached_property
    def _factor_ranges(self) -> tuple[tuple[str, float, float], ...]:
        """(operation, least factor, largest factor) of the color jitter; for hue in turns."""
        strengths = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        ranges = [(name, max(0.0, 1 - by), 1 + by) for name, by in strengths.items() if by > 0]
        return (*ranges, *([("hue", -self.hue, self.hue)] if self.hue > 0 else []))

    def apply(self, image: NDArray[np.uint8], drawn: ViewParameters) -> Tensor:
        """The view that ``drawn`` describes, of pixels ``(height, width, 3)`` in 0..255."""
        pixels = operations.resized_box(image, drawn.box_px, self.crop_px, self.interpolation, drawn.flip)
        for name, factor in drawn.jitter:
            pixels = _JITTER[name](pixels, factor)
        if drawn.gray:
            pixels = operations.gray(pixels)  # one channel from here on; normalization spreads it over three
        if drawn.blur_sigma_px is not None:
            pixels = operations.gaussian_blur(pixels, drawn.blur_sigma_px)
        if drawn.solarize:
            pixels = operations.solarize(pixels, self.solarize_threshold)
        return operations.normalize(pixels, self.mean, self.std)


def blur_range_px(crop_px: int) -> tuple[float, float]:
    """Range of the blur's standard deviation in crops of `crop_px`: the papers' 0.1 to 2 px, less below 96 px.

    The papers blur local views of 96 px as widely as views of 224 px; smaller crops are blurred in proportion.
    """
    return 0.1, max(0.2, min(2.0, 2.0 * crop_px / 96))


class MultiCrop:
    """Several kinds of views of one image, each as often as its count says, in order (SwAV, Caron et al. 2020).

    ``MultiCrop([(global_crop, 2), (local_crop, 8)])(image, rng)`` is a tuple of ten tensors. The image is unpacked once
    for all of them; the views are those that calling each ``Crop`` in turn with the same ``rng`` would give.
    """

    def __init__(self, views: Sequence[tuple[Crop, int]]) -> None:
        if any(count < 0 for _, count in views):
            raise ValueError(f"Counts of views are 0 or more, not {[count for _, count in views]}.")
        self.views = tuple(views)

    def __call__(self, image: Image.Image, rng: random.Random) -> tuple[Tensor, ...]:
        """The views of an RGB image, each ``(3, crop_px, crop_px)`` of its own kind."""
        pixels = operations.unpack(image)
        crops = (crop for crop, count in self.views for _ in range(count))
        return tuple(crop.apply(pixels, crop.draw(image.width, image.height, rng)) for crop in crops)


def evaluation_transform(
    crop_px: int = 224,
    resize_px: int | None = 256,
    interpolation: operations.Interpolation = "bicubic",
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    squash: bool = False,
) -> Callable[[Image.Image], Tensor]:
    """The deterministic view for evaluation: ``(3, crop_px, crop_px)`` from the center of an RGB image.

    The shorter side is first resized to ``resize_px`` (None: left as it is) with Pillow, so that pixels equal those of
    torchvision's Resize and CenterCrop, with which published numbers were made. The defaults are DINO's eval_knn.py.
    With ``squash`` both sides become ``resize_px``, whatever the aspect (as processors of transformers do).

    Raises:
        ValueError: ``resize_px`` is smaller than ``crop_px``; later, an image that is not resized is.
    """
    return functools.partial(_normalized, evaluation_crop(crop_px, resize_px, interpolation, squash), mean, std)


def evaluation_crop(
    crop_px: int,
    resize_px: int | None,
    interpolation: operations.Interpolation = "bicubic",
    squash: bool = False,
    rounds_down: bool = False,
) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """What ``evaluation_transform`` does before it normalizes: levels ``(crop_px, crop_px, 3)``; errors as there.

    ``rounds_down``: a margin of an odd number of pixels is halved downwards, as transformers does; otherwise to the
    nearest even number, as torchvision does.
    """
    if resize_px is not None and resize_px < crop_px:
        raise ValueError(f"resize_px = {resize_px} is smaller than crop_px = {crop_px}: resize to at least the crop.")
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    return functools.partial(_evaluation_crop, crop_px, resize_px, resample, squash, rounds_down)


def _normalized(
    crop: Callable[[Image.Image], NDArray[np.uint8]],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    image: Image.Image,
) -> Tensor:
    return operations.normalize(crop(image).transpose(2, 0, 1).astype(np.float32, order="C"), mean, std)


def _evaluation_crop(
    crop_px: int, resize_px: int | None, resample: Image.Resampling, squash: bool, rounds_down: bool, image: Image.Image
) -> NDArray[np.uint8]:
    shorter = min(image.size)
    if squash and resize_px is not None:
        image = image.resize((resize_px, resize_px), resample)
    elif resize_px is not None and resize_px != shorter:
        # torchvision truncates the longer side to whole pixels
        width, height = (int(resize_px * side / shorter) for side in image.size)
        if max(width, height) > LONGEST_ASPECT * resize_px:
            image = _resized_center(image, (width, height), crop_px, resample, rounds_down)
        else:
            image = image.resize((width, height), resample)
    if min(image.size) < crop_px:
        raise ValueError(f"An image of {image.size} px has no center of {crop_px} px: set resize_px.")
    left, top = (_margin(side, crop_px, rounds_down) for side in image.size)
    return operations.unpack(image)[top : top + crop_px, left : left + crop_px]


def _margin(side: int, crop_px: int, rounds_down: bool) -> int:
    return (side - crop_px) // 2 if rounds_down else round((side - crop_px) / 2)


def _resized_center(
    image: Image.Image, resized: tuple[int, int], crop_px: int, resample: Image.Resampling, rounds_down: bool
) -> Image.Image:
    """The center ``crop_px`` square of ``image`` resized to ``resized`` (width, height) px, computed alone.

    Resizing first would make 131 million pixels of an image of 20,000 x 2 px. The same filter at the same places, so
    the same pixels up to a rounding of one level. Pixels around the box take part as far as the filter reaches.
    """
    scales = tuple(before / after for before, after in zip(image.size, resized, strict=True))
    lefts = tuple(_margin(after, crop_px, rounds_down) for after in resized)
    starts, ends, boxes = [], [], []
    for side, scale, left in zip(image.size, scales, lefts, strict=True):
        reach = math.ceil(2 * max(scale, 1.0)) + 1  # Pillow's bicubic filter is 2 px wide on each side of its center
        starts.append(max(0, math.floor(left * scale) - reach))
        ends.append(min(side, math.ceil((left + crop_px) * scale) + reach))
        boxes.append((left * scale - starts[-1], (left + crop_px) * scale - starts[-1]))
    part = image.crop((starts[0], starts[1], ends[0], ends[1]))
    box = (max(0.0, boxes[0][0]), max(0.0, boxes[1][0]), min(part.width, boxes[0][1]), min(part.height, boxes[1][1]))
    return part.resize((crop_px, crop_px), resample, box=box)


def from_global_rng(transform: Callable[[Image.Image], Any]) -> Callable[[Image.Image, random.Random], Any]:
    """A transform that draws from global generators (torchvision's, lightly's), as a function of ``(image, rng)``.

    The generators of ``random``, numpy and torch (CPU) are seeded from ``rng`` for the call and put back afterwards.
    Not for threads: they share the generators. Picklable if ``transform`` is.
    """
    return functools.partial(_with_seeded_globals, transform)


def _with_seeded_globals(transform: Callable[[Image.Image], Any], image: Image.Image, rng: random.Random) -> Any:
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        random.seed(rng.getrandbits(64))
        np.random.seed(rng.getrandbits(32))
        torch.default_generator.manual_seed(rng.getrandbits(63))  # torch.manual_seed would seed every GPU as well
        return transform(image)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
