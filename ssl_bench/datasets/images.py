"""Images without labels: every image file below a folder, in any nesting of folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.image_files import FilesConfig, ImageFiles, decide_image_px, set_name, subset
from ssl_bench.datasets.listing import ImageFile, PassedOver, holds_images, list_images
from ssl_bench.datasets.reading import EXTENSIONS, shown
from ssl_bench.errors import UserError

PARTS = ("train", "val", "test")
"""Folders of a labeled layout."""


class UnlabeledImages(Dataset):
    """Your own images without labels: every image below FOLDER, flat or in any nesting of folders, sorted by name.

    Nothing can be scored on them: a run evaluates on the sets given with --eval-data.
    """

    layout = "a folder of images without labels, flat or nested: FOLDER/IMAGE, FOLDER/ANY/FOLDERS/IMAGE"

    class Config(FilesConfig):
        """Settings of a folder of images; `train_fraction` is the share of all its images."""

    train: ImageFiles
    test = None
    classes = ()

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether there is an image anywhere below the folder."""
        return path.is_dir() and holds_images(path)

    def __init__(self, config: Config, path: Path | None) -> None:
        """List the images. Raises `UserError` for a folder without any, and for files that hold nothing."""
        if path is None or not path.is_dir():
            state = "" if path is None else f"; {shown(path)} is not a folder"
            raise UserError(f"images needs its folder: --data images:PATH{state}. Expected {self.layout}")
        self.config, self.path = config, path
        passed = PassedOver()
        files = list_images(path, passed)
        if not files:
            there = passed.note(path) or "it is empty"
            raise UserError(f"{shown(path)}/ holds no image; {there}. Known endings: {' '.join(EXTENSIONS)}")
        self.train = ImageFiles(path, _without_labels(files, config), config.decode_px)
        self.name = set_name(path, config.train_fraction, _name(path))
        self.image_px = decide_image_px(self.train, config)
        found = (_how_it_was_read(path, files), passed.note(path))
        self.notes = tuple(note for note in found if note)

    @property
    def fingerprint(self) -> str:
        """sha256 over every file's name below the folder, size and content (`content_digest`: of a large set a
        sample); not over where the folder lies."""
        return hashlib.sha256(f"images {self.train.digest}".encode()).hexdigest()


def _name(path: Path) -> str:
    """With the name of the folder around it for a part, which alone names no dataset: "birds-train"; else ""."""
    path = path.absolute()
    return set_name(path.with_name(f"{path.parent.name}-{path.name}")) if path.name in PARTS else ""


def _without_labels(files: Sequence[ImageFile], config: FilesConfig) -> Iterator[tuple[None, ImageFile]]:
    """The files, or the `train_fraction` of them."""
    kept: Sequence[int] = range(len(files))
    if config.train_fraction < 1:
        kept = subset([file.name for file in files], "", config.train_fraction, config.subset_seed)
    return ((None, files[index]) for index in kept)


def _how_it_was_read(path: Path, files: Sequence[ImageFile]) -> str:
    """What a user who expected labels should know: "" for a flat folder, which has none."""
    folders = sorted({file.name.partition("/")[0] for file in files if "/" in file.name})
    parts = [name for name in PARTS if name in folders]
    if "train" in parts and len(parts) > 1:
        return f"read without labels: the images of {' and '.join(f'{name}/' for name in parts)} are one set"
    if path.name in PARTS and any((path.parent / name).is_dir() for name in PARTS if name != path.name):
        return f"read without labels; the folder around {path.name}/ is the one that has them"
    if parts:
        lacking = "val/ or test/" if parts[0] == "train" else "train/"
        return f"read without labels: there is {parts[0]}/ but no {lacking} beside it"
    if len(folders) < 2 or len({file.name.partition("/")[0] for file in files}) > len(folders):
        return ""
    some = ", ".join(folders[:3]) + (", ..." if len(folders) > 3 else "")
    return (
        f"read without labels: its {len(folders):,} folders ({some}) are not taken for classes. For labels, move a "
        "tenth of each class to val/CLASS/ and the rest to train/CLASS/"
    )
