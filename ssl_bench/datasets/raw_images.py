"""Images of one size as plain bytes in one file, read one at a time: memory stays flat, workers get a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_bench.datasets.reading import shown
from ssl_bench.errors import UserError


@dataclass(frozen=True)
class RawFile:
    """Where images lie one after another in a file, uint8."""

    path: Path
    shape: tuple[int, ...]
    """(n, ...) with the axes of `axes`."""
    axes: Literal["HW", "HWC", "CWH"]
    """Of one image: gray; RGB; or STL-10's, whose planes are stored column by column."""
    offset: int = 0
    """Bytes before the first image."""

    def read(self, row: int) -> Image.Image:
        """Image `row` as mode "RGB". Raises `UserError` when the file is gone or shorter than it was."""
        count = int(np.prod(self.shape[1:]))
        try:
            pixels = np.fromfile(self.path, np.uint8, count, offset=self.offset + row * count)
        except OSError as error:
            raise UserError(f"cannot read image {row:,} of {shown(self.path)}: {error.strerror}.") from error
        if len(pixels) < count:
            raise UserError(f"cannot read image {row:,} of {shown(self.path)}: the file ends before it.")
        image = pixels.reshape(self.shape[1:])
        if self.axes == "CWH":
            image = np.ascontiguousarray(image.transpose(2, 1, 0))
        return Image.fromarray(image).convert("RGB")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of every image in px."""
        first, second, third = (*self.shape[1:], 0)[:3]
        return (second, third) if self.axes == "CWH" else (second, first)


class RawImages:
    """A `Split` of the images `rows` (n,) of a `RawFile`."""

    def __init__(self, file: RawFile, rows: NDArray[np.int64], labels: Sequence[int] | None) -> None:
        self.file, self.rows, self.labels = file, rows, labels

    def __len__(self) -> int:
        return len(self.rows)

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in px."""
        return self.file.size

    def image(self, index: int) -> Image.Image:
        """The image as mode "RGB". Raises `UserError` naming the file when it cannot be read."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self.file.read(int(self.rows[index]))
