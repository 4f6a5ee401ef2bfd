"""CIFAR-10 and CIFAR-100 as their authors distribute them and torchvision keeps them (cifar-10-batches-py, ...).

The files are pickles, which can run code when they are opened; torchvision opens one only after its MD5 sum has been
compared with the published one. Nothing is downloaded unless `data.download` (`--download`) is set.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.image_files import set_name, subset
from ssl_bench.datasets.reading import shown
from ssl_bench.datasets.torchvision_files import root_of
from ssl_bench.errors import UserError
from ssl_bench.settings import Settings, setting


class CIFARConfig(Settings):
    """Settings of CIFAR."""

    image_px: int = setting(32, "side of the square image that networks get", unit="px", source="CIFAR", ge=8, le=2048)
    train_fraction: float = setting(1.0, "share of each class's training images that is used", gt=0, le=1)
    subset_seed: int = setting(0, "which images train_fraction picks; a larger share contains a smaller one", ge=0)
    download: bool = setting(
        False, "download the set where it is not there (--download); never part of a recipe", exclude=True
    )


class ArrayImages:
    """A `Split` of images in one array (n, height, width, 3) of uint8."""

    labels: Sequence[int]

    def __init__(self, pixels: np.ndarray, labels: Sequence[int]) -> None:
        self._pixels, self.labels = pixels, array("q", labels)

    def __len__(self) -> int:
        return len(self._pixels)

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels, of every image."""
        height, width = self._pixels.shape[1:3]
        return width, height

    def image(self, index: int) -> Image.Image:
        """The image as mode "RGB"."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return Image.fromarray(self._pixels[index])


class CIFAR10(Dataset):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 px in 10 classes, from the authors' Python files."""

    layout = "CIFAR-10, unpacked from cifar-10-python.tar.gz: FOLDER/cifar-10-batches-py/data_batch_1 ..."
    Config = CIFARConfig
    official_name: ClassVar[str] = "cifar10"
    folder: ClassVar[str] = "cifar-10-batches-py"

    @classmethod
    def source(cls) -> Any:
        """The torchvision class that knows the files' names and MD5 sums."""
        from torchvision.datasets import CIFAR10 as Source

        return Source

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether the path is the unpacked folder or holds it."""
        return root_of(path, cls.folder) is not None

    def __init__(self, config: CIFARConfig, path: Path | None) -> None:
        """Check the MD5 sums, load everything (0.2 GB). Raises `UserError` naming a file that is missing or differs."""
        root = None if path is None else root_of(path, self.folder)
        if path is not None and config.download:
            root = root or path
            _download(self.source(), root, self.layout)
        if path is None or root is None:
            where = "" if path is None else f"; {shown(path)}/ has no {self.folder}/"
            name = self.official_name
            raise UserError(f"{name} needs its unpacked folder (--data PATH){where}. Expected {self.layout}")
        self.config, self.path = config, path
        source = self.source()
        sums = _checked_sums(source, root / self.folder)
        try:
            train, test = (source(root, train=is_train, download=False) for is_train in (True, False))
        except Exception as error:
            where = shown(root / self.folder)
            raise UserError(f"torchvision cannot read {where}/ ({error}). Unpack it again.") from error
        self.classes = tuple(train.classes)
        kept = _subset(train.targets, self.classes, config)
        self.train = ArrayImages(train.data[kept], [train.targets[index] for index in kept])
        self.test = ArrayImages(test.data, test.targets)
        self.name = set_name(path, config.train_fraction, self.official_name)
        self.image_px = config.image_px
        selection = [config.train_fraction, config.subset_seed] if config.train_fraction < 1 else []
        self._fingerprint = hashlib.sha256(json.dumps([sums, selection]).encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """sha256 over the files' MD5 sums and, if not all training images are used, which."""
        return self._fingerprint


class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 training and 10,000 test images of 32 px in 100 classes, from the authors' Python files."""

    layout = "CIFAR-100, unpacked from cifar-100-python.tar.gz: FOLDER/cifar-100-python/train ..."
    official_name = "cifar100"
    folder = "cifar-100-python"

    @classmethod
    def source(cls) -> Any:
        """The torchvision class that knows the files' names and MD5 sums."""
        from torchvision.datasets import CIFAR100 as Source

        return Source


def _download(source: Any, root: Path, layout: str) -> None:
    try:
        source(root, download=True)
    except Exception as error:  # no network, no space, a file that is not as published
        raise UserError(
            f"{source.filename} cannot be downloaded to {shown(root)}/ ({error}). Fetch it yourself from {source.url} "
            f"and unpack it there. Expected {layout}"
        ) from error


def _checked_sums(source: Any, folder: Path) -> dict[str, str]:
    """File name to MD5 sum of all files. Raises `UserError` naming the first that is missing or not as published."""
    from torchvision.datasets.utils import check_integrity

    sums = dict((*source.train_list, *source.test_list))
    sums[source.meta["filename"]] = source.meta["md5"]
    for name, md5 in sums.items():
        if not (folder / name).is_file():
            raise UserError(f"{shown(folder / name)} is missing. Unpack {source.filename} again.")
        if not check_integrity(str(folder / name), md5):
            raise UserError(
                f"{shown(folder / name)} is not the published file (its MD5 sum differs), so it is not opened. "
                f"Unpack {source.filename} again, from {source.url}"
            )
    return sums


def _subset(labels: Sequence[int], classes: Sequence[str], config: CIFARConfig) -> list[int]:
    if config.train_fraction == 1:
        return list(range(len(labels)))
    kept: list[int] = []
    for label, name in enumerate(classes):
        members = [index for index, given in enumerate(labels) if given == label]
        picked = subset([str(index) for index in members], name, config.train_fraction, config.subset_seed)
        kept += [members[index] for index in picked]
    return sorted(kept)
