"""What plugins are checked on: two narrow networks, a few images, and a small dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset, Split
from ssl_bench.method import Batch, MakeViews, Situation
from ssl_bench.settings import Settings
from ssl_bench.testing.outcomes import CheckSkipped

IMAGE_PX = 32
BATCH = 8
CLASSES = 4
TRAIN_IMAGES = 8000
"""What a method is told of the data: enough for any queue or number of prototypes meant for small data."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A narrow backbone by its name; calling it builds one with new initial weights."""

    name: str
    kind: type[Backbone]
    config: Any
    image_px: int = IMAGE_PX

    def __call__(self, *, drop_path: float = 0.0) -> Backbone:
        """A new backbone from the global random state."""
        return self.kind(self.config, image_px=self.image_px, drop_path=drop_path)

    @property
    def patch_px(self) -> int | None:
        """Side of a patch, None for a convolutional network."""
        return self.kind.patch_px_for(self.config, self.image_px)

    @property
    def is_convnet(self) -> bool:
        """Whether presets take their values for convolutional networks."""
        return self.kind.kind_for(self.config, self.image_px) == "convnet"


def networks(requires: frozenset[str] = frozenset()) -> list[Network]:
    """The official networks that declare `check_settings` and support what is required, narrow.

    Raises `CheckSkipped` when none does.
    """
    official = [plugin.name for plugin in registry.plugins("backbone") if plugin.distribution == registry.HOME]
    offered = [(name, kind) for name in official if (kind := registry.backbone(name)).check_settings is not None]
    found = [
        Network(name, kind, kind.Config(**(kind.check_settings or {})))
        for name, kind in offered
        if requires <= kind.supports
    ]
    if not found:
        names = ", ".join(name for name, _ in offered)
        raise CheckSkipped(f"none of {names} supports {', '.join(sorted(requires))}")
    return found


def situation(network: Network) -> Situation:
    """The facts from which a method fills its settings, for `network` and batches of 8."""
    facts: dict[str, Any] = {
        "image_px": network.image_px,
        "train_images": TRAIN_IMAGES,
        "patch_px": network.patch_px,
        "batch_size": BATCH,
        "classes": CLASSES,
        "kind": network.kind.kind_for(network.config, network.image_px),
    }
    names = {field.name for field in dataclasses.fields(Situation)}
    return Situation(**{name: value for name, value in facts.items() if name in names})


def picture(seed: int, width: int = 40, height: int = 40) -> Image.Image:
    """An RGB image with structure: smooth colors, a bright block and a little noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    image = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    left, top = int(random.integers(0, width // 2)), int(random.integers(0, height // 2))
    image[top : top + height // 4, left : left + width // 4] = random.integers(0, 256, 3)
    image += random.integers(-12, 13, image.shape).astype(np.int16)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def batch_of(make_views: MakeViews, *, labeled: bool, images: int = BATCH, seed: int = 0) -> Batch:
    """A batch of views of `images` pictures, with labels only for a method that needs them."""
    views = [make_views(picture(100 + index), Random(f"{seed}-{index}")) for index in range(images)]
    stacked: tuple[Tensor, ...] = tuple(torch.stack(parts) for parts in zip(*views, strict=True))
    index = torch.arange(images)
    return Batch(stacked, index, index % CLASSES if labeled else None)


class Pictures:
    """A split of pictures; the labels are drawn at random, so that no image tells its label."""

    def __init__(self, count: int, seed: int, *, told: bool) -> None:
        random = Random(seed)
        self.labels: Sequence[int] = [random.randrange(3) if not told else index % 3 for index in range(count)]
        self.seed, self.told = seed, told

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """A picture, tinted by its class where the split tells it."""
        pixels = np.array(picture(self.seed * 10_000 + index, IMAGE_PX, IMAGE_PX)).astype(np.int16)
        if self.told:
            pixels[..., self.labels[index]] += 90
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


class Unlabeled:
    """The images of another split, without labels."""

    labels = None

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def image(self, index: int) -> Image.Image:
        """As the other split gives it."""
        return self.split.image(index)


class SmallData(Dataset):
    """Three classes of pictures; `told=False` draws the labels at random, `labeled=False` leaves them out."""

    class Config(Settings):
        """None."""

    synthetic = True

    test: Split | None

    def __init__(
        self, config: Any = None, path: Path | None = None, *, told: bool = True, labeled: bool = True
    ) -> None:
        self.config, self.path, self.name, self.image_px = config or self.Config(), path, "checks", IMAGE_PX
        self.classes = ("red", "green", "blue")
        self.train, self.test = Pictures(96, 1, told=told), Pictures(48, 2, told=told)
        if not labeled:
            self.classes, self.train, self.test = (), Unlabeled(self.train), None

    @property
    def fingerprint(self) -> str:
        """A word: nothing is recorded of it."""
        return "c0ffee"
