"""Images sorted into folders by class, the layout most people have: FOLDER/{train,val}/CLASS/IMAGE."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.image_files import (
    FilesConfig,
    ImageFiles,
    decide_image_px,
    files_by_class_folder,
    fingerprint,
    notes,
    set_name,
    train_files,
)
from ssl_bench.datasets.listing import PassedOver, check_class_names, subfolders
from ssl_bench.datasets.reading import shown
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.settings import setting


class ImageFolder(Dataset):
    """Your own images: FOLDER/train/CLASS/IMAGE, and the same below val/ or test/.

    Classes are the folders of train/, sorted; folders within a class belong to it. Tested on val/ where it is there,
    else on test/: val/ carries labels in the datasets where test/ does not (ImageNet, Kaggle).
    """

    layout = "an image folder: FOLDER/{train,val}/CLASS/IMAGE"

    class Config(FilesConfig):
        """Settings of an image folder."""

        test_split: Literal["auto", "val", "test"] = setting(
            "auto", "folder that the evaluation tests on; auto takes val where it is there, else test"
        )

    test_folder: str
    """Which folder `test` is: "val" or "test"."""

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether there is a train/ and a val/ or a test/."""
        return (path / "train").is_dir() and any((path / part).is_dir() for part in ("val", "test"))

    train: ImageFiles
    test: ImageFiles

    def __init__(self, config: Config, path: Path | None) -> None:
        """List both splits. Raises `UserError` for anything that would end the run later."""
        if path is None:
            raise UserError(f"an image folder needs its folder: --data PATH. Expected {self.layout}")
        self.config, self.path = config, path
        self.test_folder = _test_folder(path, config.test_split)
        train, test = path / "train", path / self.test_folder
        if not train.is_dir():
            raise UserError(f"{shown(path)}/ has no train/. Expected {self.layout}")
        if os.path.samefile(train, test):
            raise UserError(
                f"{shown(test)}/ and {shown(train)}/ are the same folder: a test on training images proves nothing."
            )
        passed, passed_in_test = PassedOver(), PassedOver()
        self.classes = tuple(subfolders(train, passed))
        check_class_names(self.classes, train)
        tested = subfolders(test, passed_in_test)
        unknown = [name for name in tested if name not in set(self.classes)]
        if unknown:
            raise UserError(
                f"{shown(test / unknown[0])}/ is a class that {shown(train)}/ does not have."
                f"{did_you_mean(unknown[0], self.classes)} Rename it, or remove it from {self.test_folder}/"
                + (f" ({len(unknown):,} such classes)" if len(unknown) > 1 else "")
            )
        check_class_names(tested, test)
        self.train = train_files(train, self.classes, config, passed)
        self.test = ImageFiles(
            test, files_by_class_folder(test, tested, self.classes, passed_in_test), config.decode_px
        )
        self.name = set_name(path, config.train_fraction)
        self.image_px = decide_image_px(self.train, config)
        self.notes = notes(train, passed, test, passed_in_test)
        untested = [name for name in self.classes if name not in set(tested)]
        if untested:
            self.notes += (f"{self.test_folder}/ has no images of {len(untested):,} classes ({untested[0]} first)",)

    @property
    def fingerprint(self) -> str:
        """sha256 over class names and every file's label, name, size and content (`content_digest`: of a large set a
        sample); not over where the folder lies."""
        return fingerprint(self.classes, self.train.digest, self.test.digest)


def _test_folder(path: Path, wanted: str) -> str:
    there = [part for part in ("val", "test") if (path / part).is_dir()]
    if wanted == "auto" and there:
        return there[0]
    if wanted in there:
        return wanted
    lacking = "val/ or test/" if wanted == "auto" else f"{wanted}/"
    instead = f" It has {there[0]}/: --set data.test_split={there[0]}." if there else ""
    raise UserError(
        f"{shown(path)}/ has no {lacking}.{instead} Expected an image folder: {shown(path)}/{{train,val}}/CLASS/IMAGE"
    )
