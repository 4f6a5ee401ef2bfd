"""A split of image files, kept small enough for ImageNet: names in one block of bytes, labels in an array."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol

from PIL import Image

from ssl_bench.datasets.content import content_digest, is_read_whole
from ssl_bench.datasets.listing import NOWHERE, ImageFile, PassedOver, list_class, list_images
from ssl_bench.datasets.reading import header_size, read_image, shown
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.settings import Settings, setting

HEADERS = 5_000
"""Headers that are read to decide on `image_px`: about half a second."""


class FilesConfig(Settings):
    """Settings of every dataset that is made of image files."""

    image_px: int | None = setting(
        None, "side of the square image that networks get; null looks at the images", unit="px", ge=8, le=2048
    )
    decode_px: int | None = setting(
        None,
        "decode JPEGs at 1/2, 1/4 or 1/8 of their size while both sides keep this many pixels: faster, pixels differ "
        "slightly; null decodes exactly",
        unit="px",
        ge=8,
    )
    train_fraction: float = setting(1.0, "share of each class's training images that is used", gt=0, le=1)
    subset_seed: int = setting(0, "which images train_fraction picks; a larger share contains a smaller one", ge=0)


class ImageFiles:
    """A `Split` of image files below one folder; about 10 bytes per image plus its name, so workers get it quickly."""

    labels: Sequence[int] | None

    def __init__(
        self, root: Path, files: Iterable[tuple[int | None, ImageFile]], at_least_px: int | None = None
    ) -> None:
        """Keep (label, file) in the order given; every label is None for images without labels.

        Raises `UserError` naming files that are empty or point nowhere.
        """
        self.root = root
        self._at_least_px = at_least_px
        names, ends, labels = bytearray(), array("Q"), array("q")
        digest, unusable, total = hashlib.sha256(), [], 0
        for label, (name, size) in files:
            if size <= 0:
                reason = "link to nowhere" if size == NOWHERE else "0 bytes"
                unusable.append(f"{shown(root / name)} ({reason})")
            encoded = os.fsencode(name)
            digest.update(b"%b\0%b\0%d\n" % (b"-" if label is None else b"%d" % label, encoded, size))
            total += size
            names += encoded
            ends.append(len(names))
            if label is not None:
                labels.append(label)
        if unusable:
            first = ", ".join(unusable[:10])
            more = f" and {len(unusable) - 10:,} more" if len(unusable) > 10 else ""
            count = f"{len(unusable):,} image files are" if len(unusable) > 1 else "an image file is"
            raise UserError(f"{count} empty: {first}{more}. Remove or replace {'them' if len(unusable) > 1 else 'it'}.")
        self._names, self._ends, self.labels = bytes(names), ends, labels
        if ends and not labels:
            self.labels = None
        self._listing, self._bytes = digest.hexdigest(), total

    def __len__(self) -> int:
        return len(self._ends)

    def path(self, index: int) -> Path:
        """Where image `index` lies."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        start = self._ends[index - 1] if index else 0
        return self.root / os.fsdecode(self._names[start : self._ends[index]])

    @cached_property
    def digest(self) -> str:
        """sha256 over (label, name, size in bytes) of every file in order and over `content_digest`.

        Not over where the folder lies. Content is read when this is first asked for.
        """
        paths = [self.path(index) for index in range(len(self))]
        return hashlib.sha256(f"{self._listing} {content_digest(paths, self._bytes)}".encode()).hexdigest()

    @cached_property
    def times(self) -> str:
        """sha256 over when each file changed, for a set so large that `digest` reads a sample of it; else ""."""
        if is_read_whole(len(self), self._bytes):
            return ""
        digest = hashlib.sha256()
        for index in range(len(self)):
            with suppress(OSError):
                digest.update(b"%d\n" % os.stat(self.path(index)).st_mtime_ns)
        return digest.hexdigest()

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels as the header says, before EXIF turns the image; errors as `image`."""
        return header_size(self.path(index))

    def image(self, index: int) -> Image.Image:
        """The image as mode "RGB", upright. Raises `UserError` naming the file when it cannot be read."""
        return read_image(self.path(index), self._at_least_px)


def train_files(folder: Path, classes: Sequence[str], config: FilesConfig, passed: PassedOver) -> ImageFiles:
    """The training split in `folder`/CLASS/IMAGE, or its `train_fraction`."""
    return ImageFiles(folder, files_by_class_folder(folder, classes, classes, passed, config), config.decode_px)


def files_by_class_folder(
    folder: Path,
    classes: Sequence[str],
    known: Sequence[str],
    passed: PassedOver,
    config: FilesConfig | None = None,
) -> Iterator[tuple[int, ImageFile]]:
    """(label, file) of `folder`/CLASS/IMAGE for each of `classes`, labels counted in `known`.

    With a `config`, only its `train_fraction` of each class. What is not an image goes to `passed`. Raises `UserError`
    for a class without images.
    """
    label_of = {name: label for label, name in enumerate(known)}
    for name in classes:
        files = list_class(folder / name, passed)
        if config is not None and config.train_fraction < 1:
            kept = subset([file.name for file in files], name, config.train_fraction, config.subset_seed)
            files = [files[index] for index in kept]
        for file in files:
            yield label_of[name], ImageFile(f"{name}/{file.name}", file.size)


def files_by_answers(
    folder: Path, answers: Mapping[str, str], known: Sequence[str], source: Path, passed: PassedOver
) -> Iterator[tuple[int, ImageFile]]:
    """(label, file) of the flat `folder`, whose classes `answers` (file name to class, read from `source`) tells.

    Raises `UserError` unless the files are exactly those of the answers and every class is `known`.
    """
    label_of = {name: label for label, name in enumerate(known)}
    files = list_images(folder, passed)
    missing = sorted(answers.keys() - {file.name for file in files})
    if missing:
        raise UserError(
            f"{shown(folder)}/ lacks {len(missing):,} of the {len(answers):,} images that {shown(source)} lists, "
            f"{missing[0]} first. Copy the missing files."
        )
    for file in files:
        if file.name not in answers:
            raise UserError(f"{shown(folder / file.name)} is not listed in {shown(source)}. Remove it from there.")
        if answers[file.name] not in label_of:
            lacking = len(set(answers.values()) - set(known))
            raise UserError(
                f"{shown(folder / file.name)} is of class {answers[file.name]}, which has no folder in train/ "
                f"({lacking:,} classes of {shown(source)} have none)."
                f"{did_you_mean(answers[file.name], known)} Complete train/, or arrange the part that you have as "
                "an image folder: {train,val}/CLASS/IMAGE"
            )
        yield label_of[answers[file.name]], file


def subset(names: Sequence[str], class_name: str, fraction: float, seed: int) -> list[int]:
    """Indices of `fraction` (at least one) of a class's images, ascending.

    Picked by a hash of seed, class and name: the same on every machine, and 10 % lies within 20 %.
    """
    count = max(1, round(len(names) * fraction))

    def draw(index: int) -> bytes:
        return hashlib.blake2b(os.fsencode(f"{seed}/{class_name}/{names[index]}"), digest_size=8).digest()

    return sorted(sorted(range(len(names)), key=draw)[:count])


def fingerprint(classes: Sequence[str], train_digest: str, test_digest: str) -> str:
    """sha256 of a dataset's class names and of both splits."""
    return hashlib.sha256(json.dumps([*classes, train_digest, test_digest]).encode()).hexdigest()


def notes(train: Path, passed: PassedOver, test: Path, passed_in_test: PassedOver) -> tuple[str, ...]:
    """What was passed over in the folders of both splits, for `Dataset.notes`."""
    return tuple(note for note in (passed.note(train), passed_in_test.note(test)) if note)


def set_name(path: Path, fraction: float = 1.0, official: str = "") -> str:
    """Name for run ids and tables: `official` or the folder's, and the share of the training images if not all."""
    name = official or re.sub(r"[^\w.-]+", "-", os.path.basename(os.path.abspath(path))).strip("-.") or "images"
    return name if fraction == 1 else f"{name}-{100 * fraction:.4g}pct"


def is_complete(counts: tuple[int, int, int], official: tuple[int, int, int], fraction: float = 1.0) -> bool:
    """Whether (classes, training images, test images) are the official numbers, so that the official name is honest.

    With a `fraction` of the training images, rounding may differ by one image per class.
    """
    slack = 0 if fraction == 1 else official[0]
    same_test = counts[0] == official[0] and counts[2] == official[2]
    return same_test and abs(counts[1] - fraction * official[1]) <= slack


class SizedSplit(Protocol):
    """A split that tells the sizes of its images without decoding them."""

    def __len__(self) -> int: ...

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels."""
        ...


def decide_image_px(split: SizedSplit, config: FilesConfig) -> int:
    """`config.image_px`, or what the headers say: all up to `HEADERS`, else that many, evenly chosen.

    A median shorter side of at most 96 px is rounded to a multiple of 16 (28 to 32, 64 to 64); larger images get 224.
    Raises `UserError` when no header can be read, or when `decode_px` would decode below the size decided.
    """
    px = config.image_px
    if px is None:
        sides, problem = [], None
        for index in range(0, len(split), math.ceil(len(split) / HEADERS)):
            try:
                sides.append(min(split.size(index)))
            except UserError as error:  # `checking` names the files that cannot be read
                problem = error
        if not sides and problem is not None:
            raise problem
        middle = statistics.median(sides)
        px = max(16, int(middle / 16 + 0.5) * 16) if middle <= 96 else 224
    if config.decode_px is not None and config.decode_px < px:
        raise UserError(
            f"decode_px = {config.decode_px} would decode images smaller than the {px} px that networks get. "
            f"Give at least {px}, or null for exact decoding."
        )
    return px
