"""`shapes`: the embedded dataset, ten classes of textured objects, made from a seed; `shapes_layouts` has its masks.

Nothing is downloaded: an image is drawn when it is first read (about 1 ms at 32 px) and kept in a cache folder: the
folder given (`--data shapes:FOLDER`), else the cache folder (see `ssl_bench.system.files`). `render` tells what they
show.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.shapes.drawn import VERSION, DrawnImages
from ssl_bench.datasets.shapes.render import CLASSES
from ssl_bench.settings import Settings, setting
from ssl_bench.system.files import cache_folder


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
        """`path` is the folder that keeps the images; None: the cache folder."""
        self.config, self.path, self.name = config, path, "shapes"
        self.classes, self.image_px = CLASSES, config.image_px
        self.train = self._split("train", config.train_images)
        self.test = self._split("test", config.test_images)

    @property
    def fingerprint(self) -> str:
        """sha256 over the settings and the version of the drawing code."""
        return hashlib.sha256(json.dumps([VERSION, self.config.model_dump()], sort_keys=True).encode()).hexdigest()

    def _split(self, split: str, count: int) -> DrawnImages:
        return DrawnImages(self.path or cache_folder(), self.config.seed, split, count, self.config.image_px)
