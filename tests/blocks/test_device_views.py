"""Views finished on the device against `Crop.apply`. The CPU stands in for the device: says nothing of a card."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssl_bench import registry
from ssl_bench.blocks.device_views import TEMPORARIES, DeviceViews, on_device
from ssl_bench.blocks.views import Crop, MultiCrop
from ssl_bench.errors import UserError
from ssl_bench.method import Batch
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.settings import parse_settings
from ssl_bench.testing.subjects import picture
from tests.methods import WITH_SETTINGS

CPU = torch.device("cpu")
LEVELS = 0.002
"""Of 255; found are 0.0004 on these pictures."""
SIZES_PX = {"crop_px": 24, "global_crop_px": 24, "local_crop_px": 12}
STRONG = Crop(
    20, (0.2, 1.0), jitter_probability=1.0, brightness=0.9, contrast=0.9, saturation=0.9, hue=0.5, gray_probability=0.2,
    blur_probability=0.7, blur_sigma_px=(0.0, 8.0),
)  # fmt: skip


def views_of(name: str) -> MultiCrop:
    kind = registry.method(name)
    given = {key: px for key, px in SIZES_PX.items() if key in kind.Config.model_fields}
    made = kind.make_views(parse_settings(kind.Config, given, "method", name))
    assert isinstance(made, MultiCrop)
    return made


def both(views: MultiCrop, images: int) -> tuple[Batch, list[Tensor]]:
    """A batch on the host whose views are to be finished, and what `MultiCrop` makes of the same images and draws."""
    pictures = [picture(seed, 30 + seed % 9, 26) for seed in range(images)]
    on_device = pickle.loads(pickle.dumps(DeviceViews(views)))
    made = [on_device(one, random.Random(seed)) for seed, one in enumerate(pictures)]
    expected = [views(one, random.Random(seed)) for seed, one in enumerate(pictures)]
    batch = Batch(tuple(map(torch.stack, zip(*made, strict=True))), torch.arange(images), finish=on_device.finish)
    return batch, list(map(torch.stack, zip(*expected, strict=True)))


def distances(views: MultiCrop, found: tuple[Tensor, ...], expected: list[Tensor]) -> list[Tensor]:
    """In gray levels."""
    crops = [crop for crop, count in views.views for _ in range(count)]
    assert len(found) == len(expected) == len(crops)
    return [
        (one - other).abs() * 255 * torch.tensor(crop.std)[:, None, None]
        for one, other, crop in zip(found, expected, crops, strict=True)
    ]


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_every_method_s_views_are_those_of_the_workers(name: str) -> None:
    views = views_of(name)
    batch, expected = both(views, 48)
    solarized = batch.views[-1][:, :, -1] > 0
    assert {one.dtype for one in batch.views[:-1]} == {torch.uint8}
    for number, distance in enumerate(distances(views, batch.to(CPU).views, expected)):
        plain = distance[~solarized[:, number]]
        assert plain.numel() == 0 or plain.max() <= LEVELS
        jumped = distance[solarized[:, number]]  # by a level, where rounding moved one across the threshold of 128
        assert jumped.numel() == 0 or (jumped.max() <= 1 + LEVELS and (jumped > LEVELS).float().mean() <= 1e-3)


@pytest.mark.parametrize("change", [{}, {"interpolation": "bilinear", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}])
def test_the_strongest_settings(change: dict[str, object]) -> None:
    views = MultiCrop([(replace(STRONG, **change), 2)])  # type: ignore[arg-type]
    batch, expected = both(views, 64)
    for distance in distances(views, batch.to(CPU).views, expected):
        assert distance.max() <= LEVELS


def test_solarization_at_any_threshold() -> None:
    """255 - level from the threshold on, so a jump of |255 - 2 threshold| where rounding crosses it."""
    views = MultiCrop([(replace(STRONG, solarize_probability=1.0, solarize_threshold=60.0), 1)])
    batch, expected = both(views, 32)
    (distance,) = distances(views, batch.to(CPU).views, expected)
    assert (distance > LEVELS).float().mean() <= 1e-4
    assert distance.max() <= 255 - 2 * 60 + LEVELS


def test_parts_of_a_batch_are_the_whole_batch_s_images_and_the_host_s_crops_stay() -> None:
    views = MultiCrop([(STRONG, 1), (replace(STRONG, crop_px=11, solarize_probability=0.5), 2)])
    batch, _ = both(views, 13)
    before = [one.clone() for one in batch.views]
    whole, again = batch.to(CPU), batch.to(CPU)
    parts = [part.to(CPU) for part in batch.split(4)]
    first = batch.first(3).to(CPU)
    assert whole.finish is None
    for number, view in enumerate(whole.views):
        assert torch.equal(view, again.views[number])
        assert torch.equal(view, torch.cat([part.views[number] for part in parts]))
        assert torch.equal(view[:3], first.views[number])
        assert view.is_contiguous()
    assert all(map(torch.equal, before, batch.views))


def test_autocast_rounds_nothing() -> None:
    batch, _ = both(MultiCrop([(STRONG, 1)]), 8)
    with torch.autocast("cpu", dtype=torch.float16):
        (found,) = batch.to(CPU).views
    assert torch.equal(found, batch.to(CPU).views[0])


@pytest.mark.parametrize("name", ["dino", "simclr"])
def test_memory_stays_within_what_is_planned(name: str) -> None:
    batch, expected = both(views_of(name), 48)
    memory = LiveMemory()
    with memory:
        batch.to(CPU)
    sizes = [view.nbytes for view in expected]
    assert memory.peak <= sum(sizes) + TEMPORARIES * max(sizes)


def test_what_travels_is_pinned_where_the_device_is_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pinned memory and for the card: what is sent is pinned first, and sent without waiting."""
    sent: list[tuple[bool, bool]] = []
    pinned: set[int] = set()
    move = Tensor.to

    def pin_memory(tensor: Tensor) -> Tensor:
        pinned.add(id(tensor))
        return tensor

    def to(tensor: Tensor, *given: object, **more: object) -> Tensor:
        if given and isinstance(given[0], torch.device):
            sent.append((id(tensor) in pinned, bool(more.get("non_blocking"))))
            return move(tensor, CPU)
        return move(tensor, *given, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "to", to)
    batch, expected = both(MultiCrop([(STRONG, 1)]), 8)
    pinned |= {id(one) for one in (*batch.views, batch.index)}  # by the loader
    (found,) = batch.to(torch.device("cuda")).views
    assert len(sent) == 4  # numbers of the images, crops, which images, their numbers
    assert all(was_pinned and without_waiting for was_pinned, without_waiting in sent)
    assert (found - expected[0]).abs().max() <= LEVELS / 50


class OwnCrop(Crop):
    """A crop whose pixels may be anything."""


@pytest.mark.parametrize("other", [lambda image, rng: (), STRONG, MultiCrop([(OwnCrop(8, (0.2, 1.0)), 2)]), None])
def test_other_views_are_refused(other: object) -> None:
    with pytest.raises(UserError, match=r"machine\.augment_on = device: .* a function of its own"):
        on_device(other, draws_over_batch=False)
    with pytest.raises(UserError, match=r"machine\.augment_on = device: .* batch_views"):
        on_device(MultiCrop([(STRONG, 2)]), draws_over_batch=True)
