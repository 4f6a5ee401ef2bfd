"""Images of `shapes` as a split: each is drawn when it is first read, and kept in a file that all processes share.

The file holds a CRC-32 for each image (0: not drawn yet) and then the pixels of all, so that what another process is
writing, or what a crash left half written, is told from an image and drawn again. It is sparse: images that nobody
read take no room on the disk.
"""

from __future__ import annotations

import os
import tempfile
import warnings
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_bench.datasets.shapes.render import CLASSES, render

VERSION = 1
"""Of the drawing code: one more whenever an image changes, so that no cache or record mixes two sets."""
SUM_BYTES = 4


class DrawnImages:
    """A `Split` of `count` square images, drawn from a seed."""

    labels: Sequence[int]

    def __init__(self, folder: Path, seed: int, split: str, count: int, px: int) -> None:
        self._seed, self._split, self._shape = seed, split, (count, px, px, 3)
        self._stem = folder / f"shapes-v{VERSION}-s{seed}-{split}-{count}x{px}px"
        self.labels = array("q", (index % len(CLASSES) for index in range(count)))
        self._kept: _Kept | None = None

    def __len__(self) -> int:
        return self._shape[0]

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels, of every image; nothing is drawn for it."""
        return self._shape[1], self._shape[1]

    def image(self, index: int) -> Image.Image:
        """The image as mode "RGB"."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        if self._kept is None:
            self._kept = _kept(self._stem, self._shape)
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = render(self._seed, self._split, index, self._shape[1]).image
            self._kept.put(index, pixels)
        return Image.fromarray(pixels)

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, each of which opens the file itself."""
        return self.__dict__ | {"_kept": None}


class _Kept:
    """Images that are kept in memory alone: where no file can be written."""

    def __init__(self) -> None:
        self._drawn: dict[int, NDArray[np.uint8]] = {}

    def get(self, index: int) -> NDArray[np.uint8] | None:
        return self._drawn.get(index)

    def put(self, index: int, pixels: NDArray[np.uint8]) -> None:
        self._drawn[index] = pixels


class _Complete(_Kept):
    """The file of earlier versions, which held all images from the start."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        super().__init__()
        self._pixels = pixels

    def get(self, index: int) -> NDArray[np.uint8] | None:
        return np.array(self._pixels[index])


class _Shared(_Kept):
    """The file that is filled as images are drawn."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        """Raises `OSError` where it cannot be opened or made."""
        super().__init__()
        self._begin, self._bytes = SUM_BYTES * shape[0], int(np.prod(shape[1:]))
        whole = self._begin + shape[0] * self._bytes
        if not path.is_file() or path.stat().st_size != whole:
            _make(path, whole)
        self._path, self._file = path, os.open(path, os.O_RDWR)
        self._sums = np.asarray(np.memmap(path, np.uint32, "r", shape=shape[:1]))
        self._pixels = np.asarray(np.memmap(path, np.uint8, "r", offset=self._begin, shape=shape))

    def get(self, index: int) -> NDArray[np.uint8] | None:
        expected = int(self._sums[index])
        if not expected:
            return super().get(index)
        pixels = np.array(self._pixels[index])
        return pixels if _sum(pixels) == expected else None

    def put(self, index: int, pixels: NDArray[np.uint8]) -> None:
        try:
            os.pwrite(self._file, pixels.tobytes(), self._begin + index * self._bytes)
            os.pwrite(self._file, np.uint32(_sum(pixels)).tobytes(), SUM_BYTES * index)
        except OSError as error:  # e.g. a full disk
            _warn(self._path, error)
            super().put(index, pixels)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def _kept(stem: Path, shape: tuple[int, ...]) -> _Kept:
    try:
        pixels = np.load(stem.with_name(f"{stem.name}.npy"), mmap_mode="r", allow_pickle=False)
        if pixels.shape == shape and pixels.dtype == np.uint8:
            return _Complete(np.asarray(pixels))
    except (OSError, ValueError, EOFError):  # not there, or damaged
        pass
    path = stem.with_name(f"{stem.name}.drawn")
    try:
        return _Shared(path, shape)
    except OSError as error:
        _warn(path, error)
        return _Kept()


def _make(path: Path, size: int) -> None:
    """An empty file of this size, in the place of a damaged one; of two processes one file stays, which is enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.truncate(handle, size)
    finally:
        os.close(handle)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def _sum(pixels: NDArray[np.uint8]) -> int:
    return zlib.crc32(pixels.data) or 1


def _warn(path: Path, error: OSError) -> None:
    warnings.warn(
        f"shapes cannot keep its images in {path.parent} ({error}); each process draws them again", stacklevel=5
    )
