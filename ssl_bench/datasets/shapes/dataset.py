"""`shapes`: the embedded dataset, ten classes of textured objects, made from a seed; `shapes_layouts` has its masks.

Nothing is downloaded: images are drawn once (about 10 s) and kept as .npy files in a cache folder: the folder given
(`--data shapes:FOLDER`), else the cache folder (see `ssl_bench.system.files`). `shapes_render` tells what they show.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.cifar import ArrayImages
from ssl_bench.datasets.shapes.render import CLASSES, render
from ssl_bench.settings import Settings, setting
from ssl_bench.system.files import cache_folder

VERSION = 1
"""Of the drawing code: one more whenever an image changes, so that no cache or record mixes two sets."""


class Shapes(Dataset):
    """8,000 training and 2,000 test images of ten textured forms."""

    synthetic = True

    class Config(Settings):
        """Settings of shapes."""

        seed: int = setting(0, "which set is made; another seed gives other images of the same classes", ge=0)
        image_px: int = setting(32, "side of the square images; masks and clips are larger", unit="px", ge=16, le=512)
        train_images: int = setting(8000, "training images, the classes taking turns", unit="images", ge=10)
        test_images: int = setting(2000, "test images, the classes taking turns", unit="images", ge=10)

    def __init__(self, config: Config, path: Path | None = None) -> None:
        """Draw both splits, or read them from the cache folder `path`."""
        self.config, self.path, self.name = config, path, "shapes"
        self.classes, self.image_px = CLASSES, config.image_px
        self.train = self._split("train", config.train_images)
        self.test = self._split("test", config.test_images)

    @property
    def fingerprint(self) -> str:
        """sha256 over the settings and the version of the drawing code."""
        return hashlib.sha256(json.dumps([VERSION, self.config.model_dump()], sort_keys=True).encode()).hexdigest()

    def _split(self, split: str, count: int) -> ArrayImages:
        px, seed = self.config.image_px, self.config.seed
        file = (self.path or cache_folder()) / f"shapes-v{VERSION}-s{seed}-{split}-{count}x{px}px.npy"
        pixels = _load(file, (count, px, px, 3))
        if pixels is None:
            pixels = np.stack([render(seed, split, index, px).image for index in range(count)])
            _save(file, pixels)
        return ArrayImages(pixels, [index % len(CLASSES) for index in range(count)])


def _load(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The images of a cache file; None when it is missing, cut short or something else."""
    try:
        pixels = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _save(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write atomically: a reader sees the whole file or none. A folder that cannot be written costs only time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            np.save(part, pixels, allow_pickle=False)
        os.replace(part.name, file)
    except OSError as error:
        warnings.warn(
            f"shapes cannot keep its images in {file.parent} ({error}); they are drawn anew each time", stacklevel=3
        )
