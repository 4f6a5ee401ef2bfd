"""Masks and clips of `shapes` in the official layouts of VOC 2012 and DAVIS 2017, so that one reader serves both.

Written once into the cache folder, under a name that changes with the drawing code. The masked images are the first
test images of `shapes`, drawn at 224 px; the clips show other scenes of the same ten classes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_bench.datasets.indexed_png import write_mask
from ssl_bench.datasets.shapes.drawn import VERSION
from ssl_bench.datasets.shapes.render import CLIP_FRAMES, render, render_clip
from ssl_bench.errors import UserError
from ssl_bench.system.files import cache_folder

MASK_PX = 224
MASKED_IMAGES = 200
CLIPS = 10
CLIP_SIZE = (224, 320)
"""Height and width in px."""


class Embedded(NamedTuple):
    """A set in an official layout: where it lies, how records name it, and its digest."""

    path: Path
    name: str
    fingerprint: str


def embedded_voc(images: int = MASKED_IMAGES) -> Embedded:
    """`images` pictures with class and object masks as VOCdevkit/VOC2012, listed in val.txt.

    Class masks hold 1 to 10 in the order of `shapes_render.CLASSES`. Raises `UserError` for a cache that cannot be
    written.
    """
    return _embedded("shapes-masks", f"{images}x{MASK_PX}px", lambda root: _write_voc(root / "VOC2012", images))


def embedded_davis(clips: int = CLIPS, frames: int = CLIP_FRAMES) -> Embedded:
    """`clips` clips of `frames` frames with one to three objects as DAVIS/, listed in val.txt; errors as above."""
    return _embedded("shapes-clips", f"{clips}x{frames}", lambda root: _write_davis(root, clips, frames))


def _write_voc(root: Path, images: int) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = [f"shape_{index:06d}" for index in range(images)]
    for index, name in enumerate(names):
        image, label, mask = render(0, "test", index, MASK_PX)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        write_mask(root / "SegmentationObject" / f"{name}.png", mask)
        write_mask(root / "SegmentationClass" / f"{name}.png", mask * np.uint8(label + 1))
    (root / "ImageSets/Segmentation/val.txt").write_text("".join(f"{name}\n" for name in names))


def _write_davis(root: Path, clips: int, frames: int) -> None:
    for clip in range(clips):
        images, masks = render_clip(0, clip, CLIP_SIZE, frames)
        name = f"shapes-{clip:02d}"
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / name).mkdir(parents=True)
        for frame, (image, mask) in enumerate(zip(images, masks, strict=True)):
            Image.fromarray(image).save(root / "JPEGImages" / "480p" / name / f"{frame:05d}.jpg", quality=95)
            write_mask(root / "Annotations" / "480p" / name / f"{frame:05d}.png", mask)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("".join(f"shapes-{clip:02d}\n" for clip in range(clips)))


def _embedded(name: str, size: str, write: Callable[[Path], None]) -> Embedded:
    fingerprint = hashlib.sha256(f"{name} {VERSION} {size}".encode()).hexdigest()
    place = cache_folder() / f"{name}-v{VERSION}-{size}"
    if not place.is_dir():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
            try:
                write(part)
                os.chmod(part, 0o755)
                os.rename(part, place)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                if not place.is_dir():  # another process was quicker
                    raise
        except OSError as error:
            raise UserError(
                f"cannot write {place}: {error.strerror}. Choose another cache with SSLBENCH_CACHE=FOLDER."
            ) from error
    return Embedded(place, name, fingerprint)
