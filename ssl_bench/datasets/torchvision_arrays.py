"""Datasets that torchvision reads from one large file: STL-10 and SVHN, read one image at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ssl_bench.dataset import Dataset, Split
from ssl_bench.datasets.content import blocks_digest
from ssl_bench.datasets.image_files import set_name
from ssl_bench.datasets.picking import Listed, Picked, SplitName, pick
from ssl_bench.datasets.raw_images import RawFile, RawImages
from ssl_bench.datasets.reading import shown
from ssl_bench.datasets.torchvision_files import TorchvisionConfig, open_source, root_of
from ssl_bench.datasets.unpacked import unpacked
from ssl_bench.errors import UserError

DIGITS = tuple("0123456789")


class STL10(Dataset):
    """STL-10: methods train on 100,000 unlabeled images, evaluators fit on 5,000 and score on 8,000, 10 classes."""

    layout = "STL-10: FOLDER/stl10_binary/{train_X.bin,train_y.bin,test_X.bin,test_y.bin,unlabeled_X.bin}"
    may_be_missing = True
    Config = TorchvisionConfig
    official_name: ClassVar[str] = "stl10"
    folder: ClassVar[str] = "stl10_binary"
    side_px: ClassVar[int] = 96

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether the path is the unpacked folder or holds it."""
        return root_of(path, cls.folder) is not None

    train: RawImages
    test: RawImages | None

    def __init__(self, config: TorchvisionConfig, path: Path | None) -> None:
        """Look at the files' sizes and read the labels. Raises `UserError` where a file is missing or cut off."""
        if path is None:
            raise UserError(f"stl10 needs its folder: --data stl10:PATH. Expected {self.layout}")
        self.config, self.path = config, path
        root = root_of(path, self.folder) or path
        if config.download:
            open_source(STL10, "STL10", root, download=True, split="test")
        folder = root / self.folder
        expected = [folder / f"{name}.bin" for name in ("train_X", "train_y", "test_X", "test_y", "unlabeled_X")]
        missing = [file for file in expected if not file.is_file()]
        if missing:
            raise UserError(
                f"{shown(missing[0])} is missing. Expected {self.layout}. Nothing is downloaded unless you say so: "
                "--download"
            )
        files: Mapping[SplitName, RawFile] = {"train": self._file(expected[0]), "test": self._file(expected[2])}
        labels = {"train": _labels(expected[1]), "test": _labels(expected[3])}
        parts: dict[SplitName, Listed] = {split: Listed(file.shape[0], labels[split]) for split, file in files.items()}
        for split, part in parts.items():
            if part.labels is None or len(part.labels) != part.count:
                raise UserError(f"{shown(folder)}/: {split}_X.bin and {split}_y.bin do not fit. Unpack the set again.")
        names = folder / "class_names.txt"
        classes = names.read_text(encoding="utf-8").split() if names.is_file() else list(DIGITS)
        picks = pick(parts, config, self.official_name, classes)

        def split_of(picked: Picked) -> RawImages:
            return RawImages(files[picked.part], picked.rows, picked.labels)

        self.classes, self.train = picks.classes, split_of(picks.train)
        self.test = None if picks.test is None else split_of(picks.test)
        unlabeled = self._file(expected[4])
        self._unlabeled = RawImages(unlabeled, np.arange(unlabeled.shape[0]), None)
        self.name = set_name(path, config.train_fraction, self.official_name)
        self.image_px = config.image_px or self.side_px
        self._fingerprint = picks.fingerprint(blocks_digest(expected))

    @property
    def pretraining(self) -> Split:
        """The unlabeled images."""
        return self._unlabeled

    @property
    def fingerprint(self) -> str:
        """sha256 over the files' content (of more than 256 MiB a sample) and over which images are used."""
        return self._fingerprint

    def _file(self, path: Path) -> RawFile:
        size, image = path.stat().st_size, 3 * self.side_px**2
        if not size or size % image:
            raise UserError(
                f"{shown(path)} is cut off: {size:,} bytes are not a whole number of images. Unpack the set again."
            )
        return RawFile(path, (size // image, 3, self.side_px, self.side_px), "CWH")


def _labels(path: Path) -> Any:
    return np.fromfile(path, np.uint8).astype(np.int64) - 1


class SVHN(Dataset):
    """Street View House Numbers, cropped digits: 73,257 training and 26,032 test images of 32 px, 10 classes."""

    layout = "SVHN: FOLDER/{train_32x32.mat,test_32x32.mat}"
    may_be_missing = True
    Config = TorchvisionConfig
    official_name: ClassVar[str] = "svhn"

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether both files are there."""
        return all((path / f"{split}_32x32.mat").is_file() for split in ("train", "test"))

    train: RawImages
    test: RawImages | None

    def __init__(self, config: TorchvisionConfig, path: Path | None) -> None:
        """Unpack the images into the cache, once. Raises `UserError` where a file is missing or not as published."""
        if path is None:
            raise UserError(f"svhn needs its folder: --data svhn:PATH. Expected {self.layout}")
        self.config, self.path = config, path
        splits: tuple[Literal["train", "test"], ...] = ("train", "test")
        mats = [path / f"{split}_32x32.mat" for split in splits]
        if config.download or not all(mat.is_file() for mat in mats):
            for split in splits:
                open_source(SVHN, "SVHN", path, config.download, split=split)
        digest = blocks_digest(mats)

        def build(folder: Path) -> None:
            for split in splits:
                opened = open_source(SVHN, "SVHN", path, download=False, split=split)
                np.save(folder / f"{split}.npy", np.ascontiguousarray(opened.data.transpose(0, 2, 3, 1)))
                np.save(folder / f"{split}_labels.npy", opened.labels)

        folder = unpacked("svhn", mats, digest, build)
        parts: dict[SplitName, Listed] = {}
        files: dict[SplitName, RawFile] = {}
        for split in splits:
            pixels = np.load(folder / f"{split}.npy", mmap_mode="r")
            files[split] = RawFile(folder / f"{split}.npy", pixels.shape, "HWC", pixels.offset)
            parts[split] = Listed(len(pixels), np.load(folder / f"{split}_labels.npy"))
        picks = pick(parts, config, self.official_name, DIGITS)

        def split_of(picked: Picked) -> RawImages:
            return RawImages(files[picked.part], picked.rows, picked.labels)

        self.classes, self.train = picks.classes, split_of(picks.train)
        self.test = None if picks.test is None else split_of(picks.test)
        self.name = set_name(path, config.train_fraction, self.official_name)
        self.image_px = config.image_px or 32
        self._fingerprint = picks.fingerprint(digest)

    @property
    def fingerprint(self) -> str:
        """sha256 over the files' content (of more than 256 MiB a sample) and over which images are used."""
        return self._fingerprint
