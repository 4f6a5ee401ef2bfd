"""A dataset of a given size without images: planning a run needs its counts and no pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.opening import Found
from ssl_bench.settings import Settings, parse_settings, setting

IMAGENET_TRAIN, IMAGENET_VAL, IMAGENET_CLASSES = 1_281_167, 50_000, 1000
"""ImageNet-1k (ILSVRC 2012): images of both splits, and classes."""


class CountedSplit:
    """So many gray images, each with a label of its own that nobody reads."""

    def __init__(self, count: int, image_px: int) -> None:
        self.count, self.image_px = count, image_px
        self.labels = range(count)

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Image.Image:
        """A gray square."""
        return Image.new("RGB", (self.image_px, self.image_px), (127, 127, 127))


class StandIn(Dataset):
    """As many images and classes as ImageNet-1k has, unless the settings say otherwise."""

    class Config(Settings):
        """Settings of the stand-in."""

        image_px: int = setting(224, "side of the square image that the network gets", unit="px", ge=1)
        train_images: int = setting(IMAGENET_TRAIN, "training images", unit="images", ge=1)
        classes: int = setting(IMAGENET_CLASSES, "classes", ge=1)

    def __init__(self, config: Config, path: Path | None = None) -> None:
        self.config, self.path, self.name, self.image_px = config, None, "imagenet", config.image_px
        self.classes = tuple(map(str, range(config.classes)))
        self.train = CountedSplit(config.train_images, config.image_px)
        self.test = CountedSplit(IMAGENET_VAL, config.image_px)

    @property
    def fingerprint(self) -> str:
        """Of no images."""
        return "0" * 64


def open_stand_in(found: Found, settings: Mapping[str, object]) -> Dataset:
    """A `datasets.opening.Opening` that opens a stand-in whatever was found."""
    return StandIn(parse_settings(StandIn.Config, settings, "data", "the stand-in for a dataset"))
