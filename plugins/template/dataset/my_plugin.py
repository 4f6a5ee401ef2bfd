"""Squares or discs in noise, made from a seed: replace it by your images."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_bench.dataset import Dataset
from ssl_bench.settings import Settings, setting


class MyPluginSettings(Settings):
    """What can be changed, on the command line as --set data.NAME=VALUE."""

    train_images: int = setting(1000, "Training images, the classes taking turns.", unit="images", ge=2)
    test_images: int = setting(200, "Test images, the classes taking turns.", unit="images", ge=2)


class Pictures:
    """One split; worker processes read from it, so it must survive pickling."""

    def __init__(self, count: int, seed: int) -> None:
        self.labels: Sequence[int] = [index % 2 for index in range(count)]
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """32 px of noise with a form in it; the same at every call."""
        draw = np.random.default_rng([self.seed, index])
        pixels = draw.integers(0, 160, (32, 32, 3))
        row, column, radius = draw.integers(10, 22), draw.integers(10, 22), draw.integers(4, 9)
        rows, columns = np.mgrid[:32, :32] - np.array([row, column])[:, None, None]
        disc, square = np.hypot(rows, columns) < radius, np.maximum(abs(rows), abs(columns)) < radius
        pixels[disc if self.labels[index] else square] += 90
        return Image.fromarray(pixels.astype(np.uint8))


class MyPlugin(Dataset):
    """my_plugin: squares and discs in noise, 32 px."""

    Config = MyPluginSettings
    synthetic = True
    # A set on disk also says `layout = "FOLDER/train/CLASS/IMAGE"` and recognizes its folder: see ssl_bench.dataset.

    def __init__(self, config: MyPluginSettings, path: Path | None) -> None:
        self.config, self.path, self.name, self.image_px = config, path, "my_plugin", 32
        self.classes = ("square", "disc")
        self.train, self.test = Pictures(config.train_images, 0), Pictures(config.test_images, 1)

    @property
    def fingerprint(self) -> str:
        """Changes with the settings; count the version up whenever an image changes."""
        return hashlib.sha256(f"version 1 {self.config.model_dump_json()}".encode()).hexdigest()
