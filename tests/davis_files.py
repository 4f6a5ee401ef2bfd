"""Small DAVIS folders made for tests."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_bench.datasets.indexed_png import Mask, write_mask


def square(top: int, left: int, side: int, size: tuple[int, int], value: int = 1) -> Mask:
    """A mask of `size` (height, width) that shows one square object."""
    mask = np.zeros(size, np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


def moving_square(frames: int, size: tuple[int, int] = (40, 60)) -> list[Mask]:
    return [square(10 + frame, 15 + frame, 12, size) for frame in range(frames)]


def write_masks(folder: Path, masks: Sequence[Mask]) -> None:
    folder.mkdir(parents=True)
    for index, mask in enumerate(masks):
        write_mask(folder / f"{index:05d}.png", mask)


def write_davis(root: Path, clips: Mapping[str, Sequence[Mask]], listed: str | None = None) -> Path:
    """`root`/DAVIS with gray frames of the masks' size, and ImageSets/2017/val.txt; returns it."""
    for name, masks in clips.items():
        write_masks(root / "DAVIS/Annotations/480p" / name, masks)
        folder = root / "DAVIS/JPEGImages/480p" / name
        folder.mkdir(parents=True)
        for index, mask in enumerate(masks):
            Image.new("RGB", mask.shape[::-1], (index, 128, 128)).save(folder / f"{index:05d}.jpg")
    (root / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (root / "DAVIS/ImageSets/2017/val.txt").write_text(listed or "".join(f"{name}\n" for name in clips))
    return root / "DAVIS"


def real_data(*names: str) -> Path:
    """The folder of real sets, or skip."""
    given = os.environ.get("SSLBENCH_REAL_DATA")
    if not given or not all((Path(given) / name).is_dir() for name in names):
        pytest.skip(f"set SSLBENCH_REAL_DATA to a folder with {' and '.join(names)}")
    return Path(given)
