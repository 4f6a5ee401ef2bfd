"""Pixel operations against torchvision, Pillow and the standard library. Distances are gray levels of 255."""

from __future__ import annotations

import colorsys
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image
from torch import nn
from torchvision import transforms
from torchvision.transforms import functional as tv

from ssl_bench.blocks import pixels as operations


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Independent pixels: the hardest image for every operation here."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def photo() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")[:224, 200:424])


def planar(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=np.float32).transpose(2, 0, 1).copy()


def unit(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(planar(image)) / 255


# One operation at a time. `float_tolerance`: torchvision on float tensors, which rounds nothing either (its luma
# weights are 0.2989, 0.587, 0.114, a ten-thousandth less than Pillow's). `pillow_tolerance`: largest and mean distance
# on noise from Pillow, which truncates to 8 bits; for hue Pillow passes through 8-bit HSV, whose hue has 256 steps.
JITTER = [
    ("brightness", 0.6, 0.01, (1.0, 0.6)),
    ("brightness", 1.4, 0.01, (1.0, 0.6)),
    ("contrast", 0.6, 0.1, (1.3, 0.7)),
    ("contrast", 1.4, 0.1, (1.3, 0.7)),
    ("saturation", 0.8, 0.1, (1.2, 0.7)),
    ("saturation", 1.2, 0.1, (1.2, 0.7)),
    ("hue", 0.1, 0.01, (15.0, 1.3)),
    ("hue", -0.1, 0.01, (15.0, 1.3)),
    ("hue", 0.31, 0.01, (15.0, 1.5)),
    ("hue", -0.5, 0.01, (15.0, 1.7)),
    ("hue", 0.5, 0.01, (15.0, 1.7)),
    ("hue", 1 / 6, 0.01, (15.0, 1.3)),
]


@pytest.mark.parametrize(("name", "factor", "float_tolerance", "pillow_tolerance"), JITTER)
def test_jitter_equals_torchvision(name, factor, float_tolerance, pillow_tolerance):
    ours, theirs = getattr(operations, f"adjust_{name}"), getattr(tv, f"adjust_{name}")
    for image in (noise(40, 30), photo()):
        result = ours(planar(image), factor)
        assert np.abs(result - theirs(unit(image), factor).numpy() * 255).max() <= float_tolerance
        distance = np.abs(result - planar(theirs(image, factor)))
        assert distance.max() <= pillow_tolerance[0]
        assert distance.mean() <= pillow_tolerance[1]


@pytest.mark.parametrize("turns", [-0.4, -0.1, 0.0, 0.1, 0.25])
def test_hue_equals_the_standard_library(turns):
    colors = [*itertools.product((0, 128, 255), repeat=3), (10, 10, 11), (254, 255, 253)]
    pixels = np.array(colors, dtype=np.float32).T[:, None]
    result = operations.adjust_hue(pixels.copy(), turns)[:, 0].T
    for color, ours in zip(colors, result, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*color)
        np.testing.assert_allclose(ours, colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value), atol=1e-3)


def test_gray_and_solarize_equal_pillow():
    image = noise(40, 30)
    gray = operations.gray(planar(image))
    assert np.abs(gray - tv.rgb_to_grayscale(unit(image)).numpy() * 255).max() <= 0.1
    assert np.abs(gray[0] - np.asarray(image.convert("L"))).max() <= 0.51  # Pillow rounds
    for threshold in (0, 100, 128, 256):
        expected = planar(tv.solarize(image, threshold))
        np.testing.assert_array_equal(operations.solarize(planar(image), threshold), expected)


@pytest.mark.parametrize("sigma_px", [0.0, 0.1, 0.7, 1.3, 1.5, 2.0, 6.0])
def test_blur_is_pillows_before_its_rounding(sigma_px):
    """Pillow rounds after each of six passes; the roundings of the first ones reach 3 levels at small radii."""
    for image in (noise(40, 30), noise(3, 2), photo()):
        distance = np.abs(
            operations.gaussian_blur(planar(image), sigma_px) - planar(image.filter(ImageFilter.GaussianBlur(sigma_px)))
        )
        assert distance.max() <= 3.0
        assert distance.mean() <= 1.1


@pytest.mark.parametrize("sigma_px", [0.3, 1.0, 2.0])
def test_blur_has_the_variance_of_its_gaussian(sigma_px):
    impulse = np.zeros((1, 41, 41), dtype=np.float32)
    impulse[0, 20, 20] = 1
    response = operations.gaussian_blur(impulse, sigma_px)[0]
    assert response.sum() == pytest.approx(1, abs=1e-5)
    assert (response.sum(axis=0) * (np.arange(41) - 20) ** 2).sum() == pytest.approx(sigma_px**2, rel=1e-4)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("box_px", [(0, 0, 60, 50), (7, 3, 41, 30), (10, 20, 5, 9), (59, 49, 1, 1)])
@pytest.mark.parametrize("flip", [False, True])
def test_resized_box_is_within_a_level_of_pillow(interpolation, box_px, flip):
    image = noise(60, 50)
    ours = operations.resized_box(operations.unpack(image), box_px, 24, interpolation, flip)
    left, top, width, height = box_px
    mode = transforms.InterpolationMode(interpolation)
    expected = tv.resized_crop(image, top, left, height, width, [24, 24], mode)
    assert np.abs(ours - planar(tv.hflip(expected) if flip else expected)).max() <= 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resized_box_is_torchs_antialiased_resize(interpolation):
    image = operations.unpack(noise(60, 50))
    box = torch.from_numpy(image[None, 3:33, 7:48].copy()).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(box, size=(24, 24), mode=interpolation, antialias=True)[0].float()
    np.testing.assert_array_equal(
        operations.resized_box(image, (7, 3, 41, 30), 24, interpolation, False), expected.numpy()
    )


def blurred_in_turn(images: list[np.ndarray]) -> list[np.ndarray]:
    return [operations.gaussian_blur(image.copy(), sigma_px) for image in images for sigma_px in (0.3, 1.7, 0.9)]


def test_a_blur_leaves_nothing_behind_for_the_next_one_or_for_other_threads():
    """Its memory is kept from call to call, and is each thread's own."""
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, (channels, 20, 30)).astype(np.float32) for channels in (3, 3, 1) * 5]
    operations._workspaces.of.cache_clear()
    alone = []
    for image in images:
        for sigma_px in (0.3, 1.7, 0.9):
            operations._workspaces.of.cache_clear()
            alone.append(operations.gaussian_blur(image.copy(), sigma_px))
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(blurred_in_turn, [images] * 8))
    for results in (blurred_in_turn(images), *together):
        for one, other in zip(results, alone, strict=True):
            np.testing.assert_array_equal(one, other)
