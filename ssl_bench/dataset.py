"""The contract of a dataset: where images come from, and what a record says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image

from ssl_bench.settings import Settings


class Split(Protocol):
    """Labelled images in a fixed order. Must survive pickling: worker processes read from it.

    A split may also have `size(index) -> (width, height)` in pixels, where that is cheaper than reading the image.
    """

    labels: Sequence[int]
    """One class index an image; read by evaluators and by methods that declare `needs_labels`, by no other."""

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
    notes: tuple[str, ...] = ()
    """What a user should know of how the data were read, e.g. files that were passed over: shown, and recorded."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the folder has this layout; looks at names only."""
        return False

    @abstractmethod
    def __init__(self, config: Any, path: Path | None) -> None: ...

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest that changes with the data, not with the folder: of seed and code version of a made set, of names,
        sizes and content of files."""
