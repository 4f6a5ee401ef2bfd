"""Views against torchvision and Pillow as oracles: pixels, distributions, purity. Distances are gray levels of 255."""

from __future__ import annotations

import collections
import math
import pickle
import random
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy import stats
from sklearn.datasets import load_sample_image
from torchvision import transforms
from torchvision.transforms import functional as tv

from ssl_bench.blocks import pixels as operations
from ssl_bench.blocks import views
from ssl_bench.blocks.views import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Crop,
    MultiCrop,
    blur_range_px,
    evaluation_transform,
    from_global_rng,
)

EVERYTHING = Crop(
    crop_px=24,
    scale=(0.3, 1.0),
    jitter_probability=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    gray_probability=0.2,
    blur_probability=0.5,
    solarize_probability=0.2,
)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Independent pixels: the hardest image for every operation here."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def photo() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")[:224, 200:424])


def planar(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=np.float32).transpose(2, 0, 1).copy()


def levels_of(view: torch.Tensor) -> np.ndarray:
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    return ((view * std + mean) * 255).numpy()


def test_whole_views_equal_torchvisions_operations_on_floats():
    """In the drawn order, on the same resized box; the luma weights differ by 1e-4. Blur has its own test."""
    crop, image, rng = replace(EVERYTHING, crop_px=64, blur_probability=0.0), photo(), random.Random(0)
    pixels = operations.unpack(image)
    for _ in range(50):
        drawn = crop.draw(*image.size, rng)
        box = operations.resized_box(pixels, drawn.box_px, 64, "bicubic", drawn.flip)
        expected = torch.from_numpy(box) / 255
        for name, factor in drawn.jitter:
            expected = getattr(tv, f"adjust_{name}")(expected, factor)
        expected = tv.rgb_to_grayscale(expected, 3) if drawn.gray else expected
        expected = tv.solarize(expected, 128 / 255) if drawn.solarize else expected
        distance = np.abs(levels_of(crop.apply(pixels, drawn)) - expected.numpy() * 255)
        assert distance.max() <= (1.2 if drawn.solarize else 0.2)  # solarization jumps by one level at its threshold
        assert distance.mean() <= 0.05


def test_whole_views_are_close_to_the_authors_pipeline():
    """torchvision and Pillow on 8-bit images, truncated after every step: 0.8 levels in the mean, 1.6 at worst."""
    crop, image, rng = replace(EVERYTHING, crop_px=64), photo(), random.Random(0)
    distances = []
    for _ in range(100):
        drawn = crop.draw(*image.size, rng)
        left, top, width, height = drawn.box_px
        expected = tv.resized_crop(image, top, left, height, width, [64, 64], transforms.InterpolationMode.BICUBIC)
        expected = tv.hflip(expected) if drawn.flip else expected
        for name, factor in drawn.jitter:
            expected = getattr(tv, f"adjust_{name}")(expected, factor)
        expected = tv.rgb_to_grayscale(expected, 3) if drawn.gray else expected
        if drawn.blur_sigma_px is not None:
            expected = expected.filter(ImageFilter.GaussianBlur(drawn.blur_sigma_px))
        expected = tv.solarize(expected, 128) if drawn.solarize else expected
        ours = levels_of(crop.apply(operations.unpack(image), drawn))
        distances.append(np.abs(ours - planar(expected)).mean())
    assert np.mean(distances) <= 1.0
    assert max(distances) <= 2.0


def test_a_view_is_a_pure_function_of_image_and_rng():
    image = noise(50, 40)
    views = MultiCrop([(EVERYTHING, 2), (replace(EVERYTHING, crop_px=12), 3)])
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    original = np.array(image)
    first, second = views(image, random.Random(5)), views(image, random.Random(5))
    assert [tuple(view.shape) for view in first] == [(3, 24, 24)] * 2 + [(3, 12, 12)] * 3
    assert all(view.dtype == torch.float32 for view in first)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not torch.equal(first[0], views(image, random.Random(6))[0])
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    np.testing.assert_array_equal(np.array(image), original)


def test_multicrop_equals_its_crops_in_turn_and_pickles():
    image, rng, small = noise(50, 40), random.Random(1), replace(EVERYTHING, crop_px=12)
    views = pickle.loads(pickle.dumps(MultiCrop([(EVERYTHING, 1), (small, 2)])))(image, random.Random(1))
    for view, crop in zip(views, (EVERYTHING, small, small), strict=True):
        assert torch.equal(view, crop(image, rng))


def test_thread_count_does_not_change_a_view():
    image, threads = noise(400, 300), torch.get_num_threads()
    crop = replace(EVERYTHING, crop_px=224)
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            rng = random.Random(3)
            results.append(torch.stack([crop(image, rng) for _ in range(4)]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_decisions_have_their_probabilities():
    rng = random.Random(0)
    draws = [EVERYTHING.draw(60, 50, rng) for _ in range(4000)]
    counts = {
        "flip": (sum(drawn.flip for drawn in draws), 0.5),
        "jitter": (sum(bool(drawn.jitter) for drawn in draws), 0.8),
        "gray": (sum(drawn.gray for drawn in draws), 0.2),
        "blur": (sum(drawn.blur_sigma_px is not None for drawn in draws), 0.5),
        "solarize": (sum(drawn.solarize for drawn in draws), 0.2),
    }
    for name, (count, probability) in counts.items():
        assert stats.binomtest(count, len(draws), probability).pvalue > 1e-4, name
    sigmas = [drawn.blur_sigma_px for drawn in draws if drawn.blur_sigma_px is not None]
    assert stats.kstest(sigmas, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-4


def test_jitter_draws_uniform_factors_in_all_orders():
    rng = random.Random(0)
    draws = [drawn.jitter for drawn in (EVERYTHING.draw(60, 50, rng) for _ in range(4000)) if drawn.jitter]
    orders = collections.Counter(tuple(name for name, _ in jitter) for jitter in draws)
    assert len(orders) == math.factorial(4)
    assert stats.chisquare(list(orders.values())).pvalue > 1e-4
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.8, 1.2),
        ("hue", -0.1, 0.1),
    ):
        factors = [dict(jitter)[name] for jitter in draws]
        assert stats.kstest(factors, stats.uniform(low, high - low).cdf).pvalue > 1e-4, name
    only_hue = replace(EVERYTHING, brightness=0, contrast=0, saturation=0, jitter_probability=1)
    assert [name for name, _ in only_hue.draw(60, 50, rng).jitter] == ["hue"]
    strong = replace(EVERYTHING, brightness=3.0, jitter_probability=1)
    assert min(dict(strong.draw(60, 50, rng).jitter)["brightness"] for _ in range(200)) >= 0


def test_boxes_have_uniform_area_and_log_uniform_ratio():
    """On a square image these scales always fit, so no try is rejected and both laws hold exactly."""
    crop, rng = Crop(96, (0.05, 0.4)), random.Random(0)
    boxes = np.array([crop.draw(4000, 4000, rng).box_px for _ in range(3000)])
    area = boxes[:, 2] * boxes[:, 3] / 4000**2
    log_ratio = np.log(boxes[:, 2] / boxes[:, 3])
    assert stats.kstest(area, stats.uniform(0.05, 0.35).cdf).pvalue > 1e-4
    assert stats.kstest(log_ratio, stats.uniform(math.log(3 / 4), 2 * math.log(4 / 3)).cdf).pvalue > 1e-4
    assert (boxes[:, 0] + boxes[:, 2]).max() <= 4000


@pytest.mark.parametrize("size", [(500, 375), (300, 500), (1000, 60), (40, 900), (2, 3)])
@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4)])
def test_boxes_are_distributed_as_torchvisions(size, scale):
    """Rejected tries and the fallback included."""
    width, height = size
    crop, rng, blank = Crop(96, scale), random.Random(1), torch.zeros(3, height, width)
    torch.manual_seed(1)
    ours = np.array([crop.draw(width, height, rng).box_px for _ in range(1500)])
    theirs = np.array(
        [transforms.RandomResizedCrop.get_params(blank, list(scale), [3 / 4, 4 / 3]) for _ in range(1500)]
    )[:, [1, 0, 3, 2]]  # torchvision: top, left, height, width
    for coordinate in range(4):
        assert stats.ks_2samp(ours[:, coordinate], theirs[:, coordinate]).pvalue > 1e-4
    if width > 4 * height or height > 4 * width:  # at the largest scale every try fails: the fallback, equal in pixels
        certain = replace(crop, scale=(1.0, 1.0)).draw(width, height, rng).box_px
        top, left, box_height, box_width = transforms.RandomResizedCrop.get_params(blank, [1.0, 1.0], [3 / 4, 4 / 3])
        assert certain == (left, top, box_width, box_height)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    crop_px=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    fill=st.sampled_from(["noise", "black", "white"]),
)
def test_any_rgb_image_gives_a_finite_view(size, crop_px, seed, fill):
    image = noise(*size) if fill == "noise" else Image.new("RGB", size, fill)
    crop = replace(
        EVERYTHING,
        crop_px=crop_px,
        scale=(0.01, 1.0),
        jitter_probability=1.0,
        brightness=1.0,
        contrast=1.0,
        saturation=1.0,
        hue=0.5,
        blur_sigma_px=(0.0, 8.0),
    )
    view = crop(image, random.Random(seed))
    assert view.shape == (3, crop_px, crop_px)
    assert view.is_contiguous()
    levels = levels_of(view)
    assert np.isfinite(levels).all()
    assert levels.min() >= -0.01
    assert levels.max() <= 255.01


@pytest.mark.parametrize(
    ("crop_px", "resize_px", "size"),
    [
        (24, 32, (60, 50)),
        (24, 24, (37, 91)),
        (25, 32, (60, 51)),
        (32, None, (32, 32)),
        (15, None, (20, 18)),
        (8, 9, (1, 1)),
    ],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_transform_equals_torchvision(crop_px, resize_px, size, interpolation):
    image = noise(*size)
    mode = transforms.InterpolationMode(interpolation)
    resize = [] if resize_px is None else [transforms.Resize(resize_px, interpolation=mode)]
    crop_and_normalize = [
        transforms.CenterCrop(crop_px),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    expected = transforms.Compose([*resize, *crop_and_normalize])(image)
    result = pickle.loads(pickle.dumps(evaluation_transform(crop_px, resize_px, interpolation)))(image)
    torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)


def test_from_global_rng_is_pure_and_leaves_no_trace():
    image = noise(50, 40)
    transform = pickle.loads(
        pickle.dumps(
            from_global_rng(transforms.Compose([transforms.RandomResizedCrop(8), transforms.ColorJitter(0.4, 0.4)]))
        )
    )
    rngs = random.Random(4), random.Random(4), random.Random(5)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    undisturbed = random.random(), np.random.rand(), torch.rand(())
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    results = [np.asarray(transform(image, rng)) for rng in rngs]
    assert (random.random(), np.random.rand(), torch.rand(())) == undisturbed
    assert (results[0] == results[1]).all()
    assert (results[0] != results[2]).any()
    assert rngs[0].random() != random.Random(4).random(), "the caller's rng must advance"


def test_from_global_rng_restores_after_an_error():
    def broken(image: Image.Image) -> None:
        raise RuntimeError("broken transform")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken transform"):
        from_global_rng(broken)(noise(2, 2), random.Random(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_px": 0},
        {"scale": (0.4, 1.2)},
        {"scale": (1.0, 0.4)},
        {"scale": (0.0, 0.4)},
        {"ratio": (-1.0, 1.0)},
        {"hue": 0.6},
        {"gray_probability": 1.5},
        {"blur_sigma_px": (2.0, 0.1)},
        {"contrast": -0.1},
        {"interpolation": "nearest"},
    ],
    ids=str,
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(EVERYTHING, **wrong)


def test_other_mistakes_are_explained():
    with pytest.raises(ValueError, match="not 'L'"):
        EVERYTHING(Image.new("L", (4, 4)), random.Random(0))
    with pytest.raises(ValueError, match="resize_px = 24 is smaller"):
        evaluation_transform(32, 24)
    with pytest.raises(ValueError, match="set resize_px"):
        evaluation_transform(32, None)(noise(31, 40))
    with pytest.raises(ValueError, match="0 or more"):
        MultiCrop([(EVERYTHING, -1)])


@pytest.mark.parametrize(
    ("size", "crop_px", "resize_px"),
    [((2000, 2), 224, 256), ((3, 999), 32, 37), ((700, 5000), 64, 73), ((2001, 401), 100, 400), ((60, 13), 8, 16)],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_long_images_are_cropped_first_with_the_same_pixels(
    size: tuple[int, int],
    crop_px: int,
    resize_px: int,
    interpolation: Literal["bicubic", "bilinear"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    levels = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
    transform = views.evaluation_transform(crop_px, resize_px, interpolation, **levels)  # type: ignore[arg-type]
    shorter = min(size)
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    whole = image.resize((int(resize_px * size[0] / shorter), int(resize_px * size[1] / shorter)), resample)
    left, top = round((whole.width - crop_px) / 2), round((whole.height - crop_px) / 2)
    expected = np.asarray(whole.crop((left, top, left + crop_px, top + crop_px)), dtype=np.float32)
    asked: list[tuple[int, int]] = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, *a, **k: asked.append(to) or resize(self, to, *a, **k))
    found = transform(image).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1.01
    assert np.abs(found - expected).mean() < 0.15
    assert asked == [(crop_px, crop_px)], "nothing larger than the crop is made"


def test_crop_takes_earlier_spellings() -> None:
    earlier = Crop(32, (0.2, 1.0), grey_probability=0.3, solarise_probability=0.4, solarise_threshold=99.0)
    assert earlier == Crop(32, (0.2, 1.0), gray_probability=0.3, solarize_probability=0.4, solarize_threshold=99.0)
    assert replace(earlier, crop_px=16).gray_probability == 0.3
    with pytest.raises(ValueError, match=r"gray_probability = 1.5"):
        Crop(32, (0.2, 1.0), grey_probability=1.5)


def test_blur_range_is_two_px_from_96_px_on_and_shrinks_below() -> None:
    assert blur_range_px(224) == blur_range_px(96) == (0.1, 2.0)
    assert blur_range_px(48) == (0.1, 1.0)
    assert blur_range_px(4) == (0.1, 0.2)
