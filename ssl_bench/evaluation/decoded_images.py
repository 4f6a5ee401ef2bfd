"""Images as evaluations see them, decoded once: the cropped squares in the cache folder, read by all networks.

A folder for each split and crop: `levels` (images, px, px, 3) bytes, and `blocks.json` with a SHA-256 for every 128
images. A block is compared with it before it is used; what is damaged is dropped, and the images are decoded again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ssl_bench.system import cache
from ssl_bench.system.files import cache_folder

BLOCK = 128
"""Images that share a SHA-256."""
Levels = NDArray[np.uint8]


class Damaged(Exception):
    """An entry of the cache is not what was written."""


class DecodedImages:
    """The images of a split, from the cache."""

    def __init__(self, folder: Path, count: int, px: int) -> None:
        """Raises `Damaged` for anything else than `count` whole images."""
        self.folder, self.count = folder, count
        try:
            self._sums: list[str] = json.loads((folder / "blocks.json").read_text())["sha256"]
            self._levels: Levels = np.memmap(folder / "levels", np.uint8, "r", shape=(count, px, px, 3))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(str(error)) from None
        whole = (folder / "levels").stat().st_size == count * px * px * 3
        if not whole or len(self._sums) != math.ceil(count / BLOCK):
            raise Damaged("not as many images as were written")
        self._checked: set[int] = set()

    def read(self, start: int, stop: int) -> Levels:
        """(stop - start, px, px, 3), a copy. Raises `Damaged`."""
        for block in range(start // BLOCK, math.ceil(min(stop, self.count) / BLOCK)):
            if block not in self._checked:
                levels = self._levels[block * BLOCK : (block + 1) * BLOCK]
                if hashlib.sha256(levels.data).hexdigest() != self._sums[block]:
                    raise Damaged(f"block {block} has another SHA-256")
                self._checked.add(block)
        return np.array(self._levels[start:stop])


def open_decoded(key: str, count: int, px: int) -> DecodedImages | None:
    """What was kept under `key`; None where nothing was, or it is damaged, which is removed."""
    folder = _folder(key)
    if not folder.is_dir():
        return None
    try:
        found = DecodedImages(folder, count, px)
    except Damaged:
        cache.remove(folder)
        return None
    cache.touch(folder)
    return found


def drop_decoded(key: str) -> None:
    """Remove what was kept under `key`."""
    cache.remove(_folder(key))


class DecodedWriter:
    """Keeps images as they come, in order; under their key once all are there, else not at all.

    Nothing is kept, and nothing fails, where they exceed the limit of the cache, or cannot be written.
    """

    def __init__(self, key: str, count: int, px: int) -> None:
        self._key, self._missing = key, count
        self._part: Path | None = None
        self._sums: list[str] = []
        self._block, self._in_block = hashlib.sha256(), 0
        try:
            parent = _folder(key).parent
            parent.mkdir(parents=True, exist_ok=True)
            if cache.make_room(count * px * px * 3):
                self._part = Path(tempfile.mkdtemp(dir=parent, prefix=".decoded-"))
                self._file = open(self._part / "levels", "wb")  # noqa: SIM115 (closed by close)
        except OSError:
            self._give_up()

    def __enter__(self) -> DecodedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self._part is not None and kind is None and self._missing == 0:
                self._keep(self._part)
        except OSError:
            pass
        finally:
            self._give_up()

    def add(self, levels: Levels) -> None:
        """The next images, (some, px, px, 3)."""
        if self._part is None:
            return
        self._missing -= len(levels)
        try:
            while len(levels):
                taken, levels = np.split(levels, [BLOCK - self._in_block])
                content = taken.tobytes()
                self._block.update(content)
                self._file.write(content)
                self._in_block += len(taken)
                if self._in_block == BLOCK:
                    self._end_block()
        except OSError:
            self._give_up()

    def _end_block(self) -> None:
        self._sums.append(self._block.hexdigest())
        self._block, self._in_block = hashlib.sha256(), 0

    def _keep(self, part: Path) -> None:
        if self._in_block:
            self._end_block()
        self._file.flush()
        os.fsync(self._file.fileno())
        (part / "blocks.json").write_text(json.dumps({"sha256": self._sums}))
        os.rename(part, _folder(self._key))

    def _give_up(self) -> None:
        if self._part is not None:
            self._file.close()
            shutil.rmtree(self._part, ignore_errors=True)
            self._part = None


def _folder(key: str) -> Path:
    return cache_folder() / "decoded" / key
