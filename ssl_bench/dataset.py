"""The contract of a dataset: where images come from, and what a record says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image

from ssl_bench.settings import Settings


class Split(Protocol):
    """Images in a fixed order, with or without labels. Must survive pickling: worker processes read from it.

    A split may also have `size(index) -> (width, height)` in pixels, where that is cheaper than reading the image.
    """

    @property
    def labels(self) -> Sequence[int] | None:
        """One class index an image, None for images without labels.

        Read by evaluators and by methods that declare `needs_labels`, by no other.
        """
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The image as mode "RGB", upright. Raises `UserError` naming the file when it cannot be read."""
        ...


class Dataset(ABC):
    """Base class of a dataset plugin; `Kind(config, path)` opens it, reading names but no pixels where it can."""

    Config: ClassVar[type[Settings]]
    synthetic: ClassVar[bool] = False
    """True when images are made by code: records and tables say so."""
    layout: ClassVar[str] = ""
    """The expected folder layout in a few words, for error messages; empty when no path is needed."""
    has_images: ClassVar[bool] = True
    """False for features that were made elsewhere, of which there are labels alone."""
    may_be_missing: ClassVar[bool] = False
    """True where the path that is given need not exist: a pattern of files, or a folder to download to."""

    config: Any
    """The settings it was opened with."""
    name: str
    """Short name used in run ids and tables: the plugin's name or the folder's."""
    path: Path | None
    """The folder or file that was opened, absolute; None for a set that is made by code."""
    classes: tuple[str, ...]
    """Names of the classes, which labels count; empty for a set without labels."""
    image_px: int
    """Side of the square image that networks get, unless the recipe sets another: 32 for CIFAR, 224 for photos."""
    train: Split
    """What evaluators fit on (the bank of a k-NN, a probe), and what methods train on (`pretraining`)."""
    test: Split | None
    """What evaluators score on; None where there is nothing to score on, as in a set without labels."""
    notes: tuple[str, ...] = ()
    """What a user should know of how the data were read, e.g. files that were passed over: shown, and recorded."""

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether the folder or file has this layout; looks at names only."""
        earlier_name: Callable[[Path], bool] | None = getattr(cls, "recognises", None)
        return False if earlier_name is None else earlier_name(path)

    @property
    def pretraining(self) -> Split:
        """What methods train on: `train`, unless the set has images for this alone (STL-10's unlabeled ones)."""
        return self.train

    @property
    def labeled(self) -> bool:
        """Whether evaluators that need labels can run: there is a test split, and both splits have labels."""
        return self.test is not None and self.train.labels is not None and self.test.labels is not None

    @property
    def splits(self) -> dict[str, Split]:
        """Every split once, by name: "train", "test" where it exists, "pretraining" where it is a split of its own."""
        named = {"train": self.train, "test": self.test, "pretraining": self.pretraining}
        if named["pretraining"] is self.train:
            del named["pretraining"]
        return {name: split for name, split in named.items() if split is not None}

    @abstractmethod
    def __init__(self, config: Any, path: Path | None) -> None: ...

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest that changes with the data, not with the folder: of seed and code version of a made set, of names,
        sizes and content of files."""
