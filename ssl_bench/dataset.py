"""The contract of a dataset: where images come from, and what a record says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from ssl_bench.errors import UserError
from ssl_bench.settings import Settings


class Split(Protocol):
    """Labelled images in a fixed order. Must survive pickling: worker processes read from it."""

    labels: Sequence[int]
    """One class index an image; read by evaluators and by methods that declare `needs_labels`, by no other."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The image as mode "RGB", upright. Raises `UserError` naming the file when it cannot be read."""
        ...


@dataclass(frozen=True)
class MaskedImage:
    """An image with its segmentation, for evaluators of attention masks."""

    name: str
    image: Image.Image
    class_mask: np.ndarray
    """(height, width) uint8: 0 background, 1.. class, 255 void (VOC's convention)."""


@dataclass(frozen=True)
class Clip:
    """A short video with the masks of its objects, for mask propagation."""

    name: str
    frames: Sequence[Image.Image]
    masks: Sequence[np.ndarray]
    """(height, width) uint8 a frame: 0 background, 1.. object (DAVIS-2017's convention)."""


class Dataset(ABC):
    """Base class of a dataset plugin; `Kind(config, path)` opens it, reading names but no pixels where it can."""

    Config: ClassVar[type[Settings]]
    synthetic: ClassVar[bool] = False
    """True when images are made by code: records and tables say so."""
    layout: ClassVar[str] = ""
    """The expected folder layout in a few words, for error messages; empty when no path is needed."""

    config: Any
    """The settings it was opened with."""
    name: str
    """Short name used in run ids and tables: the plugin's name or the folder's."""
    path: Path | None
    classes: tuple[str, ...]
    image_px: int
    """Side of the square image that networks get, unless the recipe sets another: 32 for CIFAR, 224 for photos."""
    train: Split
    test: Split

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the folder has this layout; looks at names only."""
        return False

    @abstractmethod
    def __init__(self, config: Any, path: Path | None) -> None: ...

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest that changes with the data: seed and code version of a made set, names and sizes of files."""

    def masked_images(self, limit: int | None = None) -> Iterator[MaskedImage]:
        """Images with masks, where the set has them. Raises `UserError` where it does not."""
        raise UserError(f"the data set {self.name!r} has no masks; give a VOC folder with --voc PATH")

    def clips(self) -> Iterator[Clip]:
        """Clips with masks, where the set has them. Raises `UserError` where it does not."""
        raise UserError(f"the data set {self.name!r} has no clips; give a DAVIS folder with --davis PATH")
