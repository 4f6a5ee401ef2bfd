"""Datasets of image files that torchvision reads: Flowers, Food, Pets, Aircraft, DTD, EuroSAT, ... in its layouts.

torchvision knows the layouts, lists, class names and addresses; the images are decoded as everywhere here. Nothing is
downloaded unless `data.download` (`--download`) is set. Evaluators fit on the official training and validation images
together, where both exist, and score on the test images, as transfer results of SimCLR and BYOL are reported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.image_files import ImageFiles, decide_image_px, fingerprint, set_name
from ssl_bench.datasets.listing import ImageFile
from ssl_bench.datasets.picking import ContainerConfig, Listed, Picked, SplitName, pick
from ssl_bench.datasets.reading import shown
from ssl_bench.errors import UserError
from ssl_bench.settings import setting


class TorchvisionConfig(ContainerConfig):
    """Settings of the datasets that torchvision knows."""

    download: bool = setting(
        False, "download the set where it is not there (--download); never part of a recipe", exclude=True
    )


class TorchvisionFiles(Dataset):
    """Base of the datasets below: `source` names the class of torchvision.datasets."""

    may_be_missing = True
    Config = TorchvisionConfig
    official_name: ClassVar[str]
    source: ClassVar[str]
    folder: ClassVar[str]
    """What lies in the folder that is given."""
    fit_on: ClassVar[tuple[str, ...]] = ("train",)
    """What `source` calls the splits to train on; () where no split is official, and a part is held out."""

    train: ImageFiles
    test: ImageFiles | None

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether the path is the unpacked folder or holds it."""
        return root_of(path, cls.folder) is not None

    def __init__(self, config: TorchvisionConfig, path: Path | None) -> None:
        """Read the set's lists. Raises `UserError` where files are missing, saying which are expected."""
        if path is None:
            raise UserError(f"{self.official_name} needs its folder: --data {self.official_name}:PATH. {self.layout}")
        self.config, self.path = config, path
        root = root_of(path, self.folder) or path
        parts: dict[SplitName, Listed] = {}
        names: dict[SplitName, list[str]] = {}
        class_names = None
        wanted: dict[SplitName, list[dict[str, str]]] = {"": [{}]}
        if self.fit_on:
            wanted = {"train": [{"split": name} for name in self.fit_on], "test": [{"split": "test"}]}
        for split, arguments in wanted.items():
            names[split], labels = [], []
            for one in arguments:
                opened = open_source(type(self), self.source, root, config.download, **one)
                files, some = _samples(opened)
                names[split] += [os.path.relpath(file, root).replace(os.sep, "/") for file in files]
                labels += some
                class_names = class_names or getattr(opened, "classes", None)
            encoded = np.array([os.fsencode(name) for name in names[split]], np.bytes_)
            parts[split] = Listed(len(labels), np.array(labels, np.int64), encoded)
        picks = pick(parts, config, self.official_name, class_names)

        def files_of(picked: Picked) -> ImageFiles:
            chosen = [names[picked.part][row] for row in picked.rows.tolist()]
            labels: Sequence[int | None] = picked.labels if picked.labels is not None else [None] * len(chosen)
            sized = [ImageFile(name, size) for name, size in zip(chosen, _sizes(root, chosen), strict=True)]
            return ImageFiles(root, zip(labels, sized, strict=True), config.decode_px)

        self.classes, self.train = picks.classes, files_of(picks.train)
        self.test = None if picks.test is None else files_of(picks.test)
        self.name = set_name(path, config.train_fraction, self.official_name)
        self.image_px = decide_image_px(self.train, config)
        self.notes = picks.notes

    @property
    def fingerprint(self) -> str:
        """sha256 over the classes and every file's label, name, size and content (`content_digest`: of a large set a
        sample); not over where the folder lies."""
        return fingerprint(self.classes, self.train.digest, "" if self.test is None else self.test.digest)


def root_of(path: Path, folder: str) -> Path | None:
    """The folder that holds `folder`: the path, or the one around it when the path is `folder` itself."""
    root = path.absolute().parent if path.absolute().name == folder else path
    return root if (root / folder).exists() else None


def open_source(kind: type[Dataset], source: str, root: Path, download: bool, **arguments: Any) -> Any:
    """torchvision's dataset `source` in `root`; downloaded first where asked for and not there.

    Raises `UserError` where its files are not there, or the download fails.
    """
    from torchvision import datasets

    name = str(getattr(kind, "official_name", source))
    try:
        return getattr(datasets, source)(root, **arguments, download=download)
    except Exception as error:  # missing lists, sums that differ, no network, and whatever unpacking raises
        if download:
            raise UserError(
                f"{name} cannot be downloaded to {shown(root)}/ ({str(error).strip() or type(error).__name__}). "
                f"Fetch it yourself and unpack it there. Expected {kind.layout}"
            ) from error
        there = "is not there" if not isinstance(error, OSError | KeyError) else f"is not complete ({error})"
        raise UserError(
            f"{name} in {shown(root)}/ {there}. Expected {kind.layout}. Nothing is downloaded unless you say so: "
            "--download"
        ) from error


def _samples(opened: Any) -> tuple[list[str], list[int]]:
    """Paths and labels, without decoding an image: by the names under which torchvision's classes keep them."""
    for files, labels in (("_image_files", "_labels"), ("_images", "_labels")):
        if hasattr(opened, files):
            return [str(file) for file in getattr(opened, files)], [int(label) for label in getattr(opened, labels)]
    pairs = opened.samples if hasattr(opened, "samples") else opened._samples
    return [str(file) for file, _ in pairs], [int(label) for _, label in pairs]


def _sizes(root: Path, names: Sequence[str]) -> list[int]:
    missing, sizes = [], []
    for name in names:
        try:
            sizes.append(os.stat(root / name).st_size)
        except OSError:
            missing.append(name)
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(names):,} images that the set's lists name are missing, "
            f"{shown(root / missing[0])} first. Unpack the set again."
        )
    return sizes


class Flowers102(TorchvisionFiles):
    """Oxford 102 Flowers: 2,040 images to fit on, 6,149 to test on, 102 classes."""

    layout = "Oxford Flowers: FOLDER/flowers-102/{jpg/,imagelabels.mat,setid.mat}"
    official_name, source, folder = "flowers102", "Flowers102", "flowers-102"
    fit_on = ("train", "val")


class Food101(TorchvisionFiles):
    """Food-101: 75,750 training and 25,250 test images, 101 classes."""

    layout = "Food-101: FOLDER/food-101/{images/,meta/}"
    official_name, source, folder = "food101", "Food101", "food-101"


class Pets(TorchvisionFiles):
    """Oxford-IIIT Pet: 3,680 images to fit on, 3,669 to test on, 37 breeds."""

    layout = "Oxford-IIIT Pet: FOLDER/oxford-iiit-pet/{images/,annotations/}"
    official_name, source, folder = "pets", "OxfordIIITPet", "oxford-iiit-pet"
    fit_on = ("trainval",)


class DTD(TorchvisionFiles):
    """Describable Textures, partition 1: 3,760 images to fit on, 1,880 to test on, 47 classes."""

    layout = "DTD: FOLDER/dtd/dtd/{images/,labels/}"
    official_name, source, folder = "dtd", "DTD", "dtd"
    fit_on = ("train", "val")


class Aircraft(TorchvisionFiles):
    """FGVC-Aircraft: 6,667 images to fit on, 3,333 to test on, 100 variants."""

    layout = "FGVC-Aircraft: FOLDER/fgvc-aircraft-2013b/data/{images/,variants.txt,images_variant_trainval.txt,...}"
    official_name, source, folder = "fgvc-aircraft", "FGVCAircraft", "fgvc-aircraft-2013b"
    fit_on = ("trainval",)


class StanfordCars(TorchvisionFiles):
    """Stanford Cars: 8,144 training and 8,041 test images, 196 classes; its address is gone, bring your own copy."""

    layout = "Stanford Cars: FOLDER/stanford_cars/{cars_train/,cars_test/,devkit/,cars_test_annos_withlabels.mat}"
    official_name, source, folder = "stanford-cars", "StanfordCars", "stanford_cars"


class Country211(TorchvisionFiles):
    """Country211: 42,200 images to fit on, 21,100 to test on, 211 countries."""

    layout = "Country211: FOLDER/country211/{train,valid,test}/COUNTRY/IMAGE"
    official_name, source, folder = "country211", "Country211", "country211"
    fit_on = ("train", "valid")


class GTSRB(TorchvisionFiles):
    """German traffic signs: 26,640 training and 12,630 test images, 43 classes."""

    layout = "GTSRB: FOLDER/gtsrb/{GTSRB/Training/CLASS/,GTSRB/Final_Test/Images/,GT-final_test.csv}"
    official_name, source, folder = "gtsrb", "GTSRB", "gtsrb"


class EuroSAT(TorchvisionFiles):
    """EuroSAT: 27,000 satellite images of 64 px in 10 classes; a fifth of each is held out to test on."""

    class Config(TorchvisionConfig):
        """Settings of EuroSAT."""

        held_out: float = setting(
            0.2, "share of each class held out to test on; none is official", source="arXiv 1709.00029",
            ge=0, lt=1,
        )  # fmt: skip

    layout = "EuroSAT: FOLDER/eurosat/2750/CLASS/IMAGE"
    official_name, source, folder = "eurosat", "EuroSAT", "eurosat"
    fit_on = ()
