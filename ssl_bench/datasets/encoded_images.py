"""Image files that lie inside larger files: read one at a time by their place, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_bench.datasets.reading import decode_image, decoded_size, shown
from ssl_bench.errors import UserError

PLACE = np.dtype([("file", "<u4"), ("offset", "<i8"), ("length", "<i8"), ("number", "<i8")])
"""Where an image lies: number of its file, first byte, bytes; and its number in the container that a user knows."""
HEADER_BYTES = 1 << 16
"""An image's size is in its first bytes, except in photos with a large preview or color profile before it."""


@dataclass(frozen=True)
class EncodedFiles:
    """What a container holds: images by row."""

    files: tuple[Path, ...]
    """Files that hold the images' bytes."""
    sources: tuple[Path, ...]
    """What errors call each of them: itself, or the container it was copied from."""
    places: NDArray[Any]
    """(n,) of `PLACE`."""
    names: NDArray[np.bytes_] | None = None
    """(n,) names of the images in their container, UTF-8; None where they have none."""

    def take(self, rows: NDArray[np.int64]) -> EncodedFiles:
        """The images `rows` in that order."""
        names = None if self.names is None else self.names[rows]
        return EncodedFiles(self.files, self.sources, self.places[rows], names)


class EncodedImages:
    """A `Split` of images inside larger files: some 30 bytes per image plus its name go to each worker."""

    def __init__(self, found: EncodedFiles, labels: Sequence[int] | None, at_least_px: int | None = None) -> None:
        self._found, self.labels, self._at_least_px = found, labels, at_least_px

    def __len__(self) -> int:
        return len(self._found.places)

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels as the header says, before EXIF turns the image; errors as `image`."""
        try:
            return decoded_size(self._read(index, HEADER_BYTES), self._name(index))
        except UserError:
            return decoded_size(self._read(index), self._name(index))

    def image(self, index: int) -> Image.Image:
        """The image as mode "RGB", upright. Raises `UserError` naming container and image when it cannot be read."""
        return decode_image(self._read(index), self._name(index), self._at_least_px)

    def _read(self, index: int, at_most: int | None = None) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        number, offset, length, _ = self._found.places[index].item()
        wanted = length if at_most is None else min(length, at_most)
        try:
            with open(self._found.files[number], "rb", buffering=0) as file:
                file.seek(offset)
                content = file.read(wanted) or b""
                while len(content) < wanted and (more := file.read(wanted - len(content))):
                    content += more
        except OSError as error:
            raise UserError(f"cannot read {self._name(index)}: {error.strerror}.") from error
        if len(content) < wanted:
            raise UserError(f"cannot read {self._name(index)}: the file ends before it. Copy or download it again.")
        return content

    def _name(self, index: int) -> str:
        found = self._found
        file, _, _, number = found.places[index].item()
        name = "" if found.names is None else found.names[index].decode("utf-8", "backslashreplace")
        return f"image {number:,}{f' ({name})' if name else ''} of {shown(found.sources[file])}"
