"""Looking at the images of a split: size, gray or color, and a digest of the pixels, in one pass on all cores."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_bench.dataset import Split
from ssl_bench.datasets.reading import shown
from ssl_bench.system.limits import cores

MOST_IMAGES = 20_000
"""Of each split that are looked at; of a larger one so many, evenly chosen."""


@dataclass
class Looked:
    """What was seen of a split; the lists have one entry for each image that could be read, in order."""

    images: int
    """In the split; `indices` says which of them were looked at."""
    indices: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """(width, height) in pixels, upright."""
    gray: list[bool] = field(default_factory=list)
    """Whether red, green and blue are the same everywhere."""
    digests: list[bytes] = field(default_factory=list)
    """Of size and pixels: equal for images that are the same pixel by pixel, whatever their files."""
    unreadable: list[str] = field(default_factory=list)
    """One message for each image that cannot be read."""

    @property
    def complete(self) -> bool:
        """Whether every image was looked at."""
        return len(self.indices) + len(self.unreadable) == self.images


def look(split: Split, most: int = MOST_IMAGES) -> Looked:
    """Read the images of a split, at most `most` evenly chosen ones. What cannot be read is named, not raised."""
    total = len(split)
    indices = range(total) if total <= most else [index * total // most for index in range(most)]
    looked = Looked(total)
    with ThreadPoolExecutor(cores()) as pool:  # decoding releases Python's lock
        for index, seen in zip(indices, pool.map(lambda index: _seen(split, index), indices), strict=True):
            if isinstance(seen, str):
                looked.unreadable.append(seen)
                continue
            size, gray, digest = seen
            looked.indices.append(index)
            looked.sizes.append(size)
            looked.gray.append(gray)
            looked.digests.append(digest)
    return looked


def _seen(split: Split, index: int) -> tuple[tuple[int, int], bool, bytes] | str:
    try:
        image = split.image(index)
    except Exception as error:  # a UserError that names the file, or whatever a third-party dataset raises
        return str(error) or f"image {index}: {type(error).__name__}"
    return image.size, is_gray(image), pixel_digest(image)


def is_gray(image: Image.Image) -> bool:
    """Whether the three channels of an RGB image are the same in every pixel."""
    pixels = np.asarray(image)
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())


def pixel_digest(image: Image.Image) -> bytes:
    """16 bytes that differ for images of other sizes or pixels."""
    return hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()


def name_of(split: Split, index: int) -> str:
    """The file of an image as a user would type it; its place in the split where it has no file of its own."""
    path = getattr(split, "path", None)
    return shown(path(index)) if callable(path) else f"image {index:,}"


def file_kinds(split: Split) -> dict[str, int]:
    """How many images have files of each ending, most first; empty where images are no files of their own."""
    path = getattr(split, "path", None)
    if not callable(path):
        return {}
    endings = Counter(Path(path(index)).suffix.lower() or "no ending" for index in range(len(split)))
    return dict(endings.most_common())
